#!/usr/bin/env bash
# Runs the tests of all that has unsafe code, each kernel at each level of instructions among them, with
# AddressSanitizer watching memory, that of MLX's arrays too. Needs a nightly Rust, whose flag this is; no other
# tool. The first build compiles every dependency anew. Usage: sanitize.sh [TEST...], by parts of their names.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cargo +nightly --version >/dev/null 2>&1 || {
  echo "sanitize: a nightly Rust is missing: rustup toolchain install nightly" >&2
  exit 1
}
cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
triple=$(rustc -vV | sed -n 's/^host: //p')
tests=("$@")
[ ${#tests[@]} -gt 0 ] || tests=(engine::{cache,embed,encoders,ffi,format,generate,kernels,layers}:: fs::)
# What MLX keeps until the end is no leak; SQLite has two constants of one name.
export ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0
# Our libraries are found by the program, not by these.
native=$(cd "$target/native" 2>/dev/null && pwd -P || true)
export LD_LIBRARY_PATH="$native/wheel/mlx/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
RUSTFLAGS=-Zsanitizer=address cargo +nightly test --locked --target "$triple" --target-dir "$target/sanitize" --lib -- \
  "${tests[@]}"
