#!/usr/bin/env bash
# Fetches the Python programs that share caches with mlx-cache, for the tests: transformers, mlx_lm and four
# releases of huggingface_hub. Usage: python.sh FOLDER
# Makes FOLDER/hf-<release>/bin/python3, a Python with that release and the others, and bin/hf, its program.
set -euo pipefail
folder=$1
releases="0.36.0 1.31.0 1.33.0 2.4.0"
requirements="$(dirname "${BASH_SOURCE[0]}")/python.txt"

interpreter=$(python3 -c 'import sys; print(sys.executable)')
# What is there was fetched by this script for this interpreter and these requirements, or it is fetched again.
state="$interpreter $("$interpreter" --version) $(cat "${BASH_SOURCE[0]}" "$requirements" | cksum)"
[ -e "$folder/state" ] && [ "$(cat "$folder/state")" = "$state" ] && exit 0

printf 'python: fetching transformers, mlx_lm and huggingface_hub %s\n' "$releases" >&2
rm -rf "$folder"
fetch() {
  "$interpreter" -m pip install --quiet --disable-pip-version-check --no-input --no-compile --no-deps \
    --root-user-action=ignore --only-binary :all: "$@" >&2
}
fetch --target "$folder/common" --requirement "$requirements"
for release in $releases; do
  place="$folder/hf-$release"
  fetch --target "$place/lib" "huggingface_hub==$release"
  mkdir -p "$place/bin"
  cat > "$place/bin/python3" <<EOF
#!/bin/sh
here=\$(CDPATH= cd -- "\$(dirname -- "\$0")/.." && pwd)
PYTHONPATH="\$here/lib:\$here/../common" exec "$interpreter" -s "\$@"
EOF
  cat > "$place/bin/hf" <<'EOF'
#!/bin/sh
exec "$(dirname -- "$0")/python3" -c 'import sys; from huggingface_hub.cli.hf import main; sys.argv[0] = "hf"; main()' "$@"
EOF
  chmod +x "$place/bin/python3" "$place/bin/hf"
done
printf '%s\n' "$state" > "$folder/state"
