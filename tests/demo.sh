#!/usr/bin/env bash
# The main job on real models, in a store of its own. Usage: demo.sh BINARY TARGET_FOLDER
set -euo pipefail
binary=$1 target=$2
export MLX_CACHE_HOME="$target/demo-store" MLX_CACHE_OFFLINE=1
PATH="$(dirname "$binary"):$PATH"

show() { # show COMMAND...: prints the command as a person would type it, then runs it
  local word line=
  for word in "$@"; do
    case $word in *' '*) line+=" \"$word\"" ;; *) line+=" $word" ;; esac
  done
  printf '\n$%s\n' "$line"
  "$@"
}

printf 'A store of its own: %s\n' "$MLX_CACHE_HOME"
show mlx-cache add "$target/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" --name HuggingFaceTB/SmolLM2-135M-Instruct
show mlx-cache add "$target/models/all-MiniLM-L6-v2" --name sentence-transformers/all-MiniLM-L6-v2
show mlx-cache list
show mlx-cache show smollm2
show mlx-cache run smollm2 "What is the capital of France?" --temp 0 --verbose
printf '\n$ echo "The Seine flows through Paris." | mlx-cache run smollm2 "Repeat:" --temp 0 --max-tokens 32 --json\n'
echo "The Seine flows through Paris." | mlx-cache run smollm2 "Repeat:" --temp 0 --max-tokens 32 --json
show mlx-cache doctor
