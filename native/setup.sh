#!/usr/bin/env bash
# Prepares Linux to build the unmodified mlx-rs crate: fetches the official MLX wheel, builds mlx-c
# from the sources inside the mlx-sys crate, generates its bindings, and writes the cargo
# configuration that replaces mlx-sys's build script (which assumes Apple's frameworks).
# On macOS there is nothing to do. Running it again when nothing changed takes milliseconds.
#
#   MLX_WHEEL        mlx-cpu (default), mlx-cuda-12 or mlx-cuda-13
#   CARGO_TARGET_DIR honoured; everything made here lies in <target>/native
set -euo pipefail

MLX_VERSION=0.32.2 # the version that mlx-c 0.7.0 pins (GIT_TAG in its CMakeLists.txt)
LIBCLANG_VERSION=18.1.1
CMAKE_VERSION=3.31.10
MLX_WHEEL=${MLX_WHEEL:-mlx-cpu}

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

if [ "$(uname -s)" = Darwin ]; then
  say "macOS builds mlx-rs as it is: nothing to prepare"
  exit 0
fi
[ "$(uname -s)" = Linux ] || die "only Linux and macOS are supported"
case "$(uname -m)" in
  x86_64 | aarch64) triple="$(uname -m)-unknown-linux-gnu" ;;
  *) die "no MLX wheel exists for $(uname -m)" ;;
esac
case "$MLX_WHEEL" in
  mlx-cpu | mlx-cuda-12 | mlx-cuda-13) ;;
  *) die "MLX_WHEEL must be mlx-cpu, mlx-cuda-12 or mlx-cuda-13, not '$MLX_WHEEL'" ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
mkdir -p "${CARGO_TARGET_DIR:-$root/target}/native"
native=$(cd "${CARGO_TARGET_DIR:-$root/target}/native" && pwd -P)
config="$root/target/native-config.toml"
wheel="$native/wheel"

# ---- up to date? ----
stamp=$(
  {
    printf '%s\n' "$MLX_WHEEL" "$native" "$triple"
    cd "$root" && sha256sum native/setup.sh native/*.cpp native/*.h native/CMakeLists.txt \
      native/compat/* native/requirements-*.txt native/bindgen/src/main.rs native/bindgen/headers/* \
      native/bindgen/Cargo.lock
    grep -A 2 '^name = "mlx-sys"' Cargo.lock || true
  } | sha256sum | cut -d ' ' -f 1
)
if [ -e "$native/stamp" ] && [ "$(cat "$native/stamp")" = "$stamp" ] &&
  [ -e "$wheel/mlx/lib/libmlx.so" ] && [ -e "$native/lib/libmlxc.a" ] && [ -e "$native/bindings/bindings.rs" ]; then
  # The configuration is small and may have gone with another checkout's target folder.
  [ -e "$config" ] || { mkdir -p "$root/target" && cp "$native/cargo-config.toml" "$config"; }
  exit 0
fi
rm -f "$native/stamp"

# ---- tools ----
have() { command -v "$1" >/dev/null 2>&1; }
apt_updated=
apt_install() {
  [ "$(id -u)" = 0 ] && have apt-get || return 1
  if [ -z "$apt_updated" ]; then
    apt-get update -qq >&2 || return 1
    apt_updated=yes
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}
need() { # need COMMAND PACKAGE
  have "$1" && return
  say "$1 is missing; installing $2"
  apt_install "$2" || die "$1 is missing: install it (Debian and Ubuntu: sudo apt-get install $2)"
}
need c++ g++
need cc gcc
need make make
need python3 python3
have cargo || die "cargo is missing: install Rust from https://rustup.rs"
python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip ||
  die "pip is missing: install it (Debian and Ubuntu: sudo apt-get install python3-pip)"

# Wheels are unpacked into folders of ours; nothing is installed into the user's Python.
fetch_wheels() { # fetch_wheels FOLDER PIP_ARG...
  local folder=$1
  shift
  rm -rf "$folder.new"
  python3 -m pip install --quiet --disable-pip-version-check --no-input --no-compile --root-user-action=ignore \
    --target "$folder.new" "$@" >&2 || die "pip could not fetch: $*"
  rm -rf "$folder"
  mv "$folder.new" "$folder"
}

if have cmake; then
  cmake=cmake
else
  cmake="$native/cmake/cmake/data/bin/cmake"
  [ -x "$cmake" ] || { say "fetching cmake $CMAKE_VERSION"; fetch_wheels "$native/cmake" --no-deps "cmake==$CMAKE_VERSION"; }
fi

# OpenBLAS stands in for the reference BLAS of the wheel (about 60 times slower in a matrix product).
# What is linked with it stays, and tells install.sh where it lies.
find_openblas() {
  printf 'int main(void){return 0;}' | cc -x c - -Wl,--no-as-needed -lopenblas -o "$native/openblas" 2>/dev/null
}
mkdir -p "$native"
find_openblas || apt_install libopenblas-dev || true
find_openblas || die "OpenBLAS is missing: install it (Debian and Ubuntu: sudo apt-get install libopenblas-dev; Fedora: openblas-devel; Arch: openblas)"

# ---- the MLX wheel ----
if [ ! -e "$wheel/mlx/lib/libmlx.so" ] || [ "$(cat "$wheel/.name" 2>/dev/null)" != "$MLX_WHEEL $MLX_VERSION" ]; then
  say "fetching $MLX_WHEEL $MLX_VERSION"
  if [ "$MLX_WHEEL" = mlx-cpu ]; then
    fetch_wheels "$wheel" --no-deps --require-hashes --requirement "$root/native/requirements-cpu.txt"
  else
    # With its dependencies: NVIDIA's run-time libraries are wheels that libmlx.so finds beside itself.
    fetch_wheels "$wheel" "$MLX_WHEEL==$MLX_VERSION"
  fi
  [ -e "$wheel/mlx/lib/libmlx.so" ] || die "the wheel $MLX_WHEEL holds no mlx/lib/libmlx.so"
  printf '%s' "$MLX_WHEEL $MLX_VERSION" >"$wheel/.name"
fi

# ---- mlx-c and our functions beside it ----
mlx_sys=$(cd "$root" && cargo metadata --format-version 1 --locked --filter-platform "$triple" 2>/dev/null |
  python3 -c 'import json,sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"]=="mlx-sys"))') ||
  die "cargo could not fetch the dependencies (cargo fetch --locked says why)"
mlx_c="$(dirname "$mlx_sys")/src/mlx-c"
grep -q "GIT_TAG v$MLX_VERSION" "$mlx_c/CMakeLists.txt" ||
  die "mlx-c in $mlx_c wants another MLX than $MLX_VERSION: raise MLX_VERSION and the requirements in native/"

say "building mlx-c"
"$cmake" -S "$root/native" -B "$native/build" -DCMAKE_BUILD_TYPE=Release -DMLX_C_SOURCE="$mlx_c" \
  -DCMAKE_PREFIX_PATH="$wheel/mlx" >"$native/build.log" 2>&1 &&
  "$cmake" --build "$native/build" --parallel "$(nproc)" >>"$native/build.log" 2>&1 || {
  tail -n 30 "$native/build.log" >&2
  die "mlx-c does not build: the whole log is $native/build.log"
}
mkdir -p "$native/lib" "$native/bindings"
cp "$native/build/mlx-c/libmlxc.a" "$native/build/libmlxcache_native.a" "$native/lib/"

# ---- bindings ----
if [ -z "${LIBCLANG_PATH:-}" ] && ! ldconfig -p 2>/dev/null | grep -q 'libclang[-.0-9]*\.so' &&
  ! ls /usr/lib/llvm-*/lib/libclang.so* >/dev/null 2>&1; then
  [ -e "$native/libclang/clang/native/libclang.so" ] || {
    say "fetching libclang $LIBCLANG_VERSION"
    fetch_wheels "$native/libclang" --no-deps "libclang==$LIBCLANG_VERSION"
  }
  export LIBCLANG_PATH="$native/libclang/clang/native"
fi
say "generating the bindings"
# The libclang wheel has no headers of its own: the C compiler's serve, but for those that only it can read.
(cd "$root/native/bindgen" && cargo run --quiet --locked --target-dir "$native/bindgen" -- \
  "$mlx_c" "$native/bindings/bindings.rs" \
  "-I$root/native/bindgen/headers" "-I$(cc -print-file-name=include)") ||
  die "the bindings could not be generated"

# ---- cargo's side ----
cat >"$native/cargo-config.toml" <<CONFIG
# Written by native/setup.sh: replaces the build script of mlx-sys (links = "mlx").
[target.$triple.mlx]
rustc-link-search = ["native=$native/lib", "native=$wheel/mlx/lib"]
rustc-link-lib = ["static=mlxcache_native", "static=mlxc", "dylib=mlx", "dylib=stdc++"]
rustc-env = { OUT_DIR = "$native/bindings" }
wheel = "$wheel"
wheel_name = "$MLX_WHEEL $MLX_VERSION"
CONFIG
mkdir -p "$root/target"
cp "$native/cargo-config.toml" "$config"
printf '%s' "$stamp" >"$native/stamp"
say "ready ($MLX_WHEEL $MLX_VERSION)"
