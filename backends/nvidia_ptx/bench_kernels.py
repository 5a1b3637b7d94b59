#!/usr/bin/env python3
"""Times single kernels on the GPU at hand, without the rest of moehal: linear of one row with weights
that are not in the cache, and attention of one token. Launches go in a graph of 20. Needs CuPy.

usage: bench_kernels.py BUILD     BUILD: where the preprocessed *.ptx lie
"""
import pathlib
import sys

import cupy
import numpy

U64, U32, F32 = numpy.uint64, numpy.uint32, numpy.float32
TEXTS = pathlib.Path(sys.argv[1])
ELEMENT = {1: 4, 3: 2, 4: 1}
FORM = {1: "1_80", 3: "3_80", 4: "4_89"}
COLD = 300 << 20    # bytes of weights gone through before any comes again
AHEAD = 20 << 20    # plan.h, columns_ahead


def kernel(family, form, name):
    function = cupy.RawModule(path=str(TEXTS / f"{family}_{form}.ptx")).get_function(name)
    function.max_dynamic_shared_size_bytes = 200 << 10
    return function


def microseconds(launch, count):
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        launch(0)
        stream.synchronize()
        stream.begin_capture()
        for i in range(count):
            launch(i)
        graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record(stream)
        for _ in range(3):
            graph.launch(stream)
        end.record(stream)
    end.synchronize()
    return cupy.cuda.get_elapsed_time(begin, end) / (3 * count) * 1e3


def linear(form, out, columns):
    row = columns * ELEMENT[form]
    copies = max(2, COLD // (out * row) + 1)
    weights = cupy.zeros(out * row * copies, dtype=cupy.uint8)
    scale_row = (columns + 127) // 128
    scales = cupy.ones((out + 127) // 128 * scale_row, dtype=cupy.float32)
    x, y = cupy.ones(columns, dtype=cupy.float32), cupy.zeros(out, dtype=cupy.float32)
    ahead = AHEAD // min(out, 132 * 160) // ELEMENT[form] & ~127
    function = kernel("linear", FORM[form], "linear_t1")

    def launch(i):
        data = weights.data.ptr + i % copies * out * row
        function((1, (out + 31) // 32, 1), (256, 1, 1),
                 (U64(y.data.ptr), U64(4 * out), U64(0), U64(x.data.ptr), U64(4 * columns), U64(0),
                  U64(0), U64(0), U64(data), U64(row), U64(scales.data.ptr), U64(4 * scale_row), U64(0),
                  U64(0), U32(1), U32(out), U32(columns), U32(0), U32(0), U32(3), U32(ahead)),
                 shared_mem=(columns + 63) // 64 * 256)
    us = microseconds(launch, 20)
    print(f"linear {FORM[form]} {out} x {columns}: {us:.1f} us, {out * row / us / 1e3:.0f} GB/s", flush=True)


def attention(form, heads, keys, log2):
    latent, width, page, side = 512, 576, 64, 1 << log2
    row, pages, segments = width * ELEMENT[form], keys // 64, (keys + 255) // 256
    cache = cupy.zeros(keys * row, dtype=cupy.uint8)
    position = cupy.full(1, keys - 1, dtype=cupy.int32)
    slot, table = cupy.zeros(1, dtype=cupy.int32), cupy.arange(pages, dtype=cupy.int32)
    fault, counters = cupy.zeros(1, dtype=cupy.uint32), cupy.zeros(65536, dtype=cupy.uint32)
    q, y = cupy.ones((heads, width), dtype=cupy.float32), cupy.zeros((heads, latent), dtype=cupy.float32)
    scratch = cupy.zeros(heads * segments * (latent + 4), dtype=cupy.float32)
    function = kernel("attention", FORM[form], f"attention_h{side}")
    args = (U64(cache.data.ptr), U64(page * row), U64(row), U64(position.data.ptr), U64(4),
            U64(slot.data.ptr), U64(4), U64(table.data.ptr), U64(4 * pages), U64(fault.data.ptr),
            U32(pages), U32(page), U32(1), U32(pages), U64(y.data.ptr), U64(4 * heads * latent),
            U64(4 * latent), U64(q.data.ptr), U64(4 * heads * width), U64(4 * width),
            U64(scratch.data.ptr), U64(counters.data.ptr), U32(heads), U32(latent), U32(width),
            F32(0.1), U32(3))
    us = microseconds(lambda i: function((segments, (heads + side - 1) // side, 1),
                                         ((512, 256, 128, 128)[log2], 1, 1), args,
                                         shared_mem=(width + 63) // 64 * 256 * side), 5)
    print(f"attention {FORM[form]}, {heads} heads, {keys} keys, {side} heads a block: {us:.1f} us, "
          f"{heads * keys * (latent + width) / us / 1e6:.2f} tera-fma/s", flush=True)


def main():
    for form in (3, 4):
        for out, columns in ((129280, 7168), (18432, 7168), (7168, 16384), (7168, 2048), (2112, 7168)):
            linear(form, out, columns)
    for heads, keys in ((16, 256), (16, 4096), (128, 4096), (128, 16384)):
        for log2 in range(4):
            attention(3, heads, keys, log2)


main()
