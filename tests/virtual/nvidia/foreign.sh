#!/bin/sh
# foreign.sh SCRIPT LIBRARY-DIRECTORY PTX WORK-DIRECTORY: installs cuda-bindings and numba-cuda into a venv and
# runs the script on the virtual driver.
set -eu
python3 -m venv "$4" 2>/dev/null || { echo "SKIP: no python3-venv"; exit 77; }
"$4/bin/pip" install -q cuda-bindings numba-cuda >/dev/null 2>&1 ||
    { echo "SKIP: cuda-bindings and numba-cuda cannot be installed here"; exit 77; }
[ -d /usr/local/cuda/nvvm ] || { echo "SKIP: numba-cuda needs the toolkit's NVVM"; exit 77; }
LD_LIBRARY_PATH=$2 "$4/bin/python" -W ignore "$1" "$3"
