#!/usr/bin/env bash
# Checks on Linux that the program and its tests compile for macOS: types and lints. Nothing is linked
# or run, so Apple's frameworks are not needed; what crates have in C is compiled by zig, which brings
# the headers along.
#
#   CARGO_TARGET_DIR honoured, as by native/setup.sh, which must have run
set -euo pipefail

ZIG_VERSION=0.17.1
TARGET=aarch64-apple-darwin

[ "$(uname -s)" = Linux ] || { echo "check-macos: on a Mac, make lint checks this" >&2; exit 1; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
native=$(cd "${CARGO_TARGET_DIR:-$root/target}/native" && pwd -P)
folder="$native/macos"
mkdir -p "$folder"

rustup target list --installed | grep -qx "$TARGET" || rustup target add "$TARGET"
[ -x "$folder/zig-$ZIG_VERSION/ziglang/zig" ] ||
  python3 -m pip install --quiet --disable-pip-version-check --no-input --no-compile --root-user-action=ignore \
    --no-deps --target "$folder/zig-$ZIG_VERSION" "ziglang==$ZIG_VERSION"

# Crates name the target the way Apple's compiler wants it; zig has its own way.
cat >"$folder/cc" <<SCRIPT
#!/usr/bin/env bash
args=()
while [ \$# -gt 0 ]; do
  case "\$1" in
    -arch) shift ;;
    --target=* | -mmacosx-version-min=*) ;;
    *) args+=("\$1") ;;
  esac
  shift
done
exec "$folder/zig-$ZIG_VERSION/ziglang/zig" cc -target aarch64-macos "\${args[@]}"
SCRIPT
printf '#!/usr/bin/env bash\nexec "%s" ar "$@"\n' "$folder/zig-$ZIG_VERSION/ziglang/zig" >"$folder/ar"
chmod +x "$folder/cc" "$folder/ar"

# Apple's half-precision accessors and sizes are those of the bindings for Linux.
cat >"$folder/config.toml" <<CONFIG
[target.$TARGET.mlx]
rustc-env = { OUT_DIR = "$native/bindings" }
CONFIG

cd "$root"
CC_aarch64_apple_darwin="$folder/cc" AR_aarch64_apple_darwin="$folder/ar" \
  cargo clippy --locked --config "$folder/config.toml" --target "$TARGET" --all-targets -- -D warnings
