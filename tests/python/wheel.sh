#!/usr/bin/env bash
# Installs a wheel into an empty environment, away from the checkout, and runs what README.md and
# docs/python.md say there. Usage: wheel.sh WHEEL
set -euo pipefail
wheel=$(readlink -f "$1")
tests=$(readlink -f "$(dirname "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH CAISSON_LIBRARY CAISSON_COMMAND

python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel"
cd "$work"
"$work/env/bin/caisson" --version
"$work/env/bin/python" "$tests/docs_test.py"

# Everything comes from the wheel or belongs to every Linux; RocksDB is in the executable alone, a
# training process never loads it.
package=$("$work/env/bin/python" -c 'import caisson, pathlib; print(pathlib.Path(caisson.__file__).parent)')
for binary in "$package/lib/libcaisson_c.so" "$package/bin/caisson"; do
  if ldd "$binary" | awk '/=>/ {print $3}' |
    grep -vE "^$work/|/(libc|libm|libgcc_s|libstdc\+\+|libz|libdl|libpthread|librt)\.so"; then
    echo "$binary takes these from the machine"
    exit 1
  fi
done
if grep -qi rocksdb "$package/lib/libcaisson_c.so"; then
  echo "libcaisson_c.so has RocksDB in it"
  exit 1
fi
echo "installed, imported and run: $(basename "$wheel"), $(du -h "$wheel" | cut -f1)"
