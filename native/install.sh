#!/usr/bin/env bash
# Installs the program below a prefix: bin/mlx-cache and, on Linux, the libraries it needs under
# lib/mlx-cache/, which it finds relative to itself; completions and the manual under share/.
# Usage: install.sh BINARY NATIVE_FOLDER PREFIX
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
binary=$1 native=$2 prefix=$3
# Whoever installs for others means them to read it, whatever his umask.
umask 022

install -d "$prefix/bin"
install -m 755 "$binary" "$prefix/bin/mlx-cache"
share="$prefix/share"
install -d "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/site-functions" \
  "$share/fish/vendor_completions.d"
rm -f "$share"/man/man1/mlx-cache*.1
install -m 644 "$root"/man/*.1 "$share/man/man1/"
install -m 644 "$root/completions/mlx-cache.bash" "$share/bash-completion/completions/mlx-cache"
install -m 644 "$root/completions/_mlx-cache" "$share/zsh/site-functions/_mlx-cache"
install -m 644 "$root/completions/mlx-cache.fish" "$share/fish/vendor_completions.d/mlx-cache.fish"

if [ "$(uname -s)" = Linux ]; then
  libraries="$prefix/lib/mlx-cache"
  rm -rf "$libraries"
  install -d "$libraries/mlx/lib"
  cp -P "$native"/wheel/mlx/lib/*.so* "$libraries/mlx/lib/"
  # The wheel's own dependencies lie beside it, where libmlx.so looks for them.
  for folder in "$native"/wheel/*.libs "$native"/wheel/nvidia; do
    [ -d "$folder" ] && cp -R "$folder" "$libraries/"
  done
  # OpenBLAS and its Fortran run-time come along, so that the program outlives the build machine's packages.
  ldd "$native/openblas" | awk '$1 ~ /^lib(openblas|gfortran\.|quadmath\.)/ && $3 ~ /^\// { print $1, $3 }' |
    while read -r name library; do
      install -m 755 "$library" "$libraries/mlx/lib/$name"
    done
  # While developing the program also looks for libraries in the build's folder. Elsewhere that name may
  # belong to anybody, who could put libraries of his own there: it is cut off, in place.
  python3 - "$prefix/bin/mlx-cache" "$native/wheel" <<'EDIT'
import os, sys
program, wheel = sys.argv[1], os.path.realpath(sys.argv[2])
content = open(program, "rb").read()
unwanted = b":" + os.fsencode(wheel) + b"/mlx/lib\0"
if content.count(b"/../lib/mlx-cache/mlx/lib" + unwanted) != 1:
    sys.exit(f"install: {program} does not look for its libraries in {wheel}: it was built elsewhere")
open(program, "wb").write(content.replace(unwanted, bytes(len(unwanted))))
EDIT
fi
echo "installed $prefix/bin/mlx-cache"
