#!/bin/sh
# convert.sh SOURCE LIBRARY-DIRECTORY WORK-DIRECTORY [ROUNDS]: builds convert.cc with the toolkit's headers and runs
# it on the virtual driver.
set -eu
toolkit=/usr/local/cuda
for header in cuda_fp8.h cuda_fp16.h cuda_bf16.h cuda.h; do
    [ -f "$toolkit/include/$header" ] || { echo "SKIP: the CUDA toolkit's $header is not in $toolkit"; exit 77; }
done
command -v g++ >/dev/null || { echo "SKIP: no g++"; exit 77; }
mkdir -p "$3"
g++ -std=c++17 -O2 -w -isystem "$toolkit/include" "$1" -o "$3/convert" -L"$2" -lcuda
LD_LIBRARY_PATH=$2 "$3/convert" "${4-1}"
