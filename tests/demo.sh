#!/usr/bin/env bash
# The main job on real models, in a home of its own. Usage: demo.sh BINARY TARGET_FOLDER
# DEMO_BENCH may hold other arguments for the test of speed, for those who have less time.
set -euo pipefail
binary=$1 target=$2
# A home of its own, so that nobody's caches are touched: a store, and the folders of two other tools.
home="$target/demo"
rm -rf "$home"
gguf="$target/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
lmstudio="$home/.lmstudio/models/HuggingFaceTB/SmolLM2-135M-Instruct-GGUF"
mkdir -p "$lmstudio" "$home/downloads"
cp "$gguf" "$lmstudio/"
cp "$gguf" "$home/downloads/smollm2.gguf"
export HOME="$home" MLX_CACHE_OFFLINE=1
unset MLX_CACHE_HOME HF_HOME HF_HUB_CACHE OLLAMA_MODELS
PATH="$(dirname "$binary"):$PATH"
cd "$home"

show() { # show COMMAND...: prints the command as a person would type it, then runs it
  local word line=
  for word in "$@"; do
    case $word in *' '*) line+=" \"$word\"" ;; *) line+=" $word" ;; esac
  done
  printf '\n$%s\n' "$line"
  "$@"
}

printf 'A home of its own, with a model of LM Studio and a copy of it among the downloads: %s\n' "$home"
show mlx-cache status
show mlx-cache add lmstudio
show mlx-cache add "$target/models/all-MiniLM-L6-v2" --copy --name sentence-transformers/all-MiniLM-L6-v2
show mlx-cache list
show mlx-cache show smollm2
show mlx-cache verify
show mlx-cache dedupe --source lmstudio --path downloads
show mlx-cache dedupe --source lmstudio --path downloads --apply --yes
show mlx-cache run smollm2 "What is the capital of France?" --temp 0 --verbose
printf 'The cat sleeps on the window sill.\nInterest rates were raised again.\nBread needs flour, water and time.\n' >notes.txt
show mlx-cache embed minilm --input notes.txt --output notes.npy
show mlx-cache embed minilm "something to eat" --nearest 1 --against notes.npy
printf '\n$ echo "The Seine flows through Paris." | mlx-cache run smollm2 "Repeat:" --temp 0 --max-tokens 32 --json\n'
echo "The Seine flows through Paris." | mlx-cache run smollm2 "Repeat:" --temp 0 --max-tokens 32 --json
read -ra bench <<<"${DEMO_BENCH:--p 128 -g 32 -r 3}"
show mlx-cache bench smollm2 "${bench[@]}"
show mlx-cache doctor
