#!/usr/bin/env python3
"""Foreign clients of the driver: NVIDIA's own cuda-bindings, and numba-cuda, which compiles Python to PTX with
the NVVM of the toolkit. foreign.py PTX"""
import ctypes
import sys

import numpy as np


def without_nvjitlink():
    """The linker that makes machine code must not be found: the driver's own is to be used."""
    import cuda.pathfinder as finder

    load = finder.load_nvidia_dynamic_lib

    def refuse(name):
        if name == "nvJitLink":
            raise finder.DynamicLibNotFoundError("nvJitLink is left out of this test")
        return load(name)

    finder.load_nvidia_dynamic_lib = refuse


def check(result, *values):
    if int(result) != 0:
        raise SystemExit(f"not ok: {result}")
    return values[0] if len(values) == 1 else values


def bindings(ptx):
    from cuda.bindings import driver as cu

    check(*cu.cuInit(0))
    device = check(*cu.cuDeviceGet(0))
    name = check(*cu.cuDeviceGetName(100, device)).rstrip(b"\0").decode()
    assert "Virtual" in name, name
    context = check(*cu.cuDevicePrimaryCtxRetain(device))
    check(*cu.cuCtxSetCurrent(context))
    module = check(*cu.cuModuleLoadData(open(ptx, "rb").read() + b"\0"))
    kernel = check(*cu.cuModuleGetFunction(module, b"vector_add"))
    n = 1000
    a, b, c = np.arange(n, dtype=np.float32), np.ones(n, np.float32), np.zeros(n, np.float32)
    da, db, dc = (check(*cu.cuMemAlloc(4 * n)) for _ in range(3))
    check(*cu.cuMemcpyHtoD(da, a.ctypes.data, 4 * n))
    check(*cu.cuMemcpyHtoD(db, b.ctypes.data, 4 * n))
    params = ((da, db, dc, n), (None, None, None, ctypes.c_int))
    check(*cu.cuLaunchKernel(kernel, 4, 1, 1, 256, 1, 1, 0, 0, params, 0))
    check(*cu.cuMemcpyDtoH(c.ctypes.data, dc, 4 * n))
    assert (c == a + 1).all()
    for p in da, db, dc:
        check(*cu.cuMemFree(p))
    print("ok: cuda-bindings", name)


def numba_client():
    from numba import cuda, float32, int32

    @cuda.jit
    def add(x, y, out):
        i = cuda.grid(1)
        if i < out.size:
            out[i] = x[i] + y[i]

    @cuda.jit
    def total(x, out):
        part = cuda.shared.array(128, int32)
        t = cuda.threadIdx.x
        i = cuda.grid(1)
        part[t] = x[i] if i < x.size else 0
        cuda.syncthreads()
        s = 64
        while s > 0:
            if t < s:
                part[t] += part[t + s]
            cuda.syncthreads()
            s //= 2
        if t == 0:
            cuda.atomic.add(out, 0, part[0])

    @cuda.jit
    def matmul(a, b, c):
        sa = cuda.shared.array((8, 8), float32)
        sb = cuda.shared.array((8, 8), float32)
        x, y = cuda.grid(2)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        value = float32(0)
        for k in range(a.shape[1] // 8):
            sa[tx, ty] = a[x, k * 8 + ty]
            sb[tx, ty] = b[k * 8 + tx, y]
            cuda.syncthreads()
            for j in range(8):
                value += sa[tx, j] * sb[j, ty]
            cuda.syncthreads()
        c[x, y] = value

    rng = np.random.default_rng(1)
    x, y = rng.random(1000, np.float32), rng.random(1000, np.float32)
    out = np.zeros(1000, np.float32)
    add[8, 128](x, y, out)
    assert (out == x + y).all()
    ints = rng.integers(-1000, 1000, 1000).astype(np.int32)
    sums = np.zeros(1, np.int32)
    total[8, 128](ints, sums)
    assert sums[0] == ints.sum()
    a = rng.integers(-4, 5, (32, 24)).astype(np.float32)
    b = rng.integers(-4, 5, (24, 16)).astype(np.float32)
    c = np.zeros((32, 16), np.float32)
    matmul[(4, 2), (8, 8)](a, b, c)
    assert (c == a @ b).all()
    print("ok: numba-cuda: add, reduction with atomics, matmul in shared memory")


if __name__ == "__main__":
    without_nvjitlink()
    bindings(sys.argv[1])
    numba_client()
