#!/bin/sh
# make_kernels.sh: compiles the test kernels to PTX, optimised and for debugging, and packs them into
# kernels.tar.xz, which is checked in: nvcc is not needed to run the tests. Made with nvcc 13.0.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
nvcc=${NVCC:-/usr/local/cuda/bin/nvcc}
out=/tmp/kernels-ptx kernels=/tmp/kernels # fixed: they are in the debugging sections
rm -rf "$out" "$kernels"
mkdir "$out" "$kernels"
trap 'rm -rf "$out" "$kernels"' EXIT
cp "$here"/*.cu "$kernels"
cd "$kernels"
for file in basic matrix library bugs; do
    for sm in 80 89 90; do
        "$nvcc" -std=c++17 -O3 -lineinfo -ptx -arch "sm_$sm" "$file.cu" -o "$out/$file-O3-sm_$sm.ptx"
        "$nvcc" -std=c++17 -G -ptx -arch "sm_$sm" "$file.cu" -o "$out/$file-G-sm_$sm.ptx"
    done
done
# Paths of the machine that compiled them say nothing to anybody.
sed -i -E 's#"[^"]*/(include|kernels)/#"\1/#; s#"[^"]*/tmpxft[^"]*"#"tmp"#' "$out"/*.ptx
tar -C "$out" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - . | xz -9e >"$here/kernels.tar.xz"
ls -l "$here/kernels.tar.xz"
