#!/usr/bin/env bash
# Installs on a runner, whose user is not root, what native/setup.sh and tests/tools.sh would install as root.
set -euo pipefail
case $(uname -s) in
  Linux)
    sudo apt-get update -qq
    sudo apt-get install -y -qq --no-install-recommends libopenblas-dev zsh fish man-db groff ruby jq
    ;;
  Darwin) brew install --quiet fish groff jq ;;
esac
