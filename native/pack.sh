#!/usr/bin/env bash
# Packs a release: what install.sh installs, the texts and the licences, as FOLDER/mlx-cache-<version>-<part>.tar.gz
# with one folder of that name in it. Usage: pack.sh BINARY NATIVE_FOLDER FOLDER
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
binary=$1 native=$2 folder=$3
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)
case "$(uname -s) $(uname -m)" in
  "Linux x86_64" | "Linux aarch64") part="linux-$(uname -m)" ;;
  "Darwin arm64") part=macos-arm64 ;;
  *) echo "pack: no release is made for $(uname -s) on $(uname -m)" >&2; exit 1 ;;
esac
name="mlx-cache-$version-$part"

mkdir -p "$folder"
tree=$(mktemp -d "$folder/pack.XXXXXX")
trap 'rm -rf "$tree"' EXIT
"$root/native/install.sh" "$binary" "$native" "$tree/$name" >&2
install -m 644 "$root/README.md" "$root/CHANGELOG.md" "$root"/LICENSE-* "$tree/$name/"
# Nobody's name and number in the archive, whoever packs it.
tar -C "$tree" -cf - $(tar --version | grep -q GNU && echo --owner=0 --group=0 --numeric-owner) "$name" | gzip -9 \
  >"$folder/$name.tar.gz.new"
mv "$folder/$name.tar.gz.new" "$folder/$name.tar.gz"
echo "$folder/$name.tar.gz"
