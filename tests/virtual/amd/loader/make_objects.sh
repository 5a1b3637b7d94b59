#!/bin/sh
# make_objects.sh: compiles objects.hip into the seeds of the fuzzer, which the loader's test reads
# too. They are checked in: no compiler is needed to run the tests. Made with clang 19.1.7.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../../fuzz/seeds/code_object
clang=${CLANG:-clang-19}
cd "$here"
# NAME ARCHS OPTIONS: a bundle, or the one code object in it
bundle() {
    name=$1
    shift
    "$clang" -x hip --cuda-device-only -nogpulib -nogpuinc -fuse-cuid=none "$@" objects.hip -o "$out/$name"
}
object() {
    name=$1
    shift
    bundle "$name" --no-gpu-bundle-output "$@"
}
object v4-O0.co --offload-arch=gfx942 -mcode-object-version=4 -O0
object v5-O3.co --offload-arch=gfx942 -mcode-object-version=5 -O3
object v6-preload.co --offload-arch=gfx942 -mcode-object-version=6 -O3 -mllvm -amdgpu-kernarg-preload-count=4
object lines.co --offload-arch=gfx942 -O3 -gline-tables-only -fdebug-compilation-dir=.
object gfx90a.co --offload-arch=gfx90a -O3
bundle two.hipfb --offload-arch=gfx90a --offload-arch=gfx942:xnack- -O3
bundle other.hipfb --offload-arch=gfx90a --offload-arch=gfx1100 -O3
bundle compressed.hipfb --offload-arch=gfx942 -O3 --offload-compress
