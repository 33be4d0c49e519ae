#!/usr/bin/env bash
# Looks for the programs that the tests run beside ours: shells for the completions, man and groff for the
# manual, ruby for the formula, jq and git for the examples in the documents. As root on Debian and Ubuntu it
# installs what is missing; elsewhere it says what to install.
set -euo pipefail
missing=()
for program in zsh fish man groff ruby jq git; do
  command -v "$program" >/dev/null 2>&1 || missing+=("$program")
done
[ ${#missing[@]} = 0 ] && exit 0

packages=("${missing[@]/#man/man-db}")
printf 'tools: %s missing\n' "${missing[*]}" >&2
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
  exit 0
fi
case $(uname -s) in
  Darwin) how="brew install ${missing[*]}" ;;
  *) how="sudo apt-get install ${packages[*]}, or what your system has for them" ;;
esac
printf 'tools: install what the tests need: %s\n' "$how" >&2
exit 1
