#!/usr/bin/env bash
# Writes a release's version and checksums into the formula. Usage: update.sh VERSION CHECKSUMS
# CHECKSUMS is the release's SHA256SUMS: lines of a checksum and mlx-cache-<version>-<part>.tar.gz.
set -euo pipefail
version=$1 checksums=$2
formula="$(dirname "${BASH_SOURCE[0]}")/mlx-cache.rb"
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || { echo "update: '$version' is no version" >&2; exit 1; }

text=$(cat "$formula")
old=$(sed -n 's/^  version "\(.*\)"$/\1/p' <<<"$text")
text=${text//"$old"/"$version"}
for part in source linux-x86_64 linux-aarch64; do
  checksum=$(awk -v name="mlx-cache-$version-$part.tar.gz" '$2 == name { print $1 }' "$checksums")
  [[ $checksum =~ ^[0-9a-f]{64}$ ]] || { echo "update: $checksums has no $part of $version" >&2; exit 1; }
  text=$(sed "s/sha256 \"[0-9a-f]*\" # $part\$/sha256 \"$checksum\" # $part/" <<<"$text")
done
printf '%s\n' "$text" >"$formula"
