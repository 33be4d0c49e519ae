#!/usr/bin/env bash
# Feeds each fuzz target with random input for some seconds, AddressSanitizer watching, and ends at the first
# that fails; the input that did it is then below target/fuzz. Needs a nightly Rust, whose flags these are; no
# other tool. Usage: run.sh SECONDS [TARGET...]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
seconds=$1
shift
cargo +nightly --version >/dev/null 2>&1 || {
  echo "fuzz: a nightly Rust is missing: rustup toolchain install nightly" >&2
  exit 1
}
mkdir -p "${CARGO_TARGET_DIR:-$root/target}/fuzz"
target=$(cd "${CARGO_TARGET_DIR:-$root/target}/fuzz" && pwd -P)
native=$(cd "${CARGO_TARGET_DIR:-$root/target}/native" 2>/dev/null && pwd -P || true)
triple=$(rustc -vV | sed -n 's/^host: //p')
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=($(cd "$root/fuzz/fuzz_targets" && ls *.rs | sed 's/\.rs$//'))

cd "$root/fuzz"
# The versions that are tested elsewhere.
cp "$root/Cargo.lock" Cargo.lock
RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module -Cdebug-assertions=on \
  -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
  cargo +nightly build --release --target "$triple" --target-dir "$target" "${targets[@]/#/--bin=}"

# Something to begin with.
begin() { # begin TARGET FILE...: copies the files into what the target is fed with
  local corpus="$target/corpus/$1" file
  shift
  mkdir -p "$corpus"
  for file in "$@"; do
    cp "$file" "$corpus/$(sha256sum "$file" 2>/dev/null | cut -c 1-16 || shasum -a 256 "$file" | cut -c 1-16)"
  done
}
begin gguf_header "$root"/fixtures/tiny/gguf/*.gguf
begin config_json "$root"/fixtures/tiny/*/config.json "$root"/fixtures/architectures/*/config.json
begin safetensors_header
begin model_reference

for name in "${targets[@]}"; do
  printf 'fuzz: %s for %s s\n' "$name" "$seconds" >&2
  # Our libraries are found by the program, not by these.
  LD_LIBRARY_PATH="$native/wheel/mlx/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" \
    "$target/$triple/release/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$target/$name-" "$target/corpus/$name"
done
