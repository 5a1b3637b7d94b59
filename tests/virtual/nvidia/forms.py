#!/usr/bin/env python3
"""Every opcode form of the reference list (reference/opcodes-by-tier.txt: what 3,440 kernels use): tiers 1, 2,
3 and 5 and stmatrix must load, the rest must be refused by name, with line, column and text.

usage: forms.py LIBCUDA LIST"""
import ctypes
import pathlib
import re
import sys

cu = ctypes.CDLL(sys.argv[1])
context = ctypes.c_void_p()
assert cu.cuInit(0) == 0 and cu.cuCtxCreate_v2(ctypes.byref(context), 0, 0) == 0

BYTES = {"pred": 0, "u8": 1, "s8": 1, "b8": 1, "e4m3x2": 2, "e5m2x2": 2, "e4m3": 1, "e5m2": 1, "tf32": 4}
BYTES |= {f"{c}{n}": n // 8 for c in "usbf" for n in (16, 32, 64)} | {"f16x2": 4, "bf16x2": 4, "bf16": 2}
UNARY = "abs neg not clz popc brev sin cos ex2 lg2 rcp rsqrt sqrt tanh cnot".split()
BINARY = "add sub mul min max div rem and or xor shl shr copysign".split()
HEAD = """.version 8.7
.target sm_90a
.address_size 64
.func f32(.param .b32 q) { ret; }
.func f64(.param .b64 q) { ret; }
.visible .entry k(.param .align 16 .b8 x[64])
{
.reg .pred %p<8>; .reg .b16 %h<40>; .reg .b32 %r<80>; .reg .b64 %d<80>;
.shared .align 128 .b8 s[1024]; .const .align 16 .b8 c[64]; .local .align 16 .b8 m[64];
mov.u64 %d0, s; mov.u32 %r0, s;
"""


def register(kind, i):
    size = BYTES[kind]
    return f"%p{i}" if size == 0 else f"%h{i}" if size <= 2 else f"%r{i}" if size == 4 else f"%d{i}"


def vector(kind, count, first=4):
    return "{" + ", ".join(register(kind, first + i) for i in range(count)) + "}"


def matrix_operands(parts):
    """mma and wmma: registers by the sizes of shape and types."""
    shape = next(p for p in parts if re.fullmatch(r"m\d+n\d+k\d+", p))
    m, n, k = map(int, re.findall(r"\d+", shape))
    types = [p for p in parts if p in BYTES]
    wmma = parts[0] == "wmma"

    def registers(cells, kind):
        bits = BYTES[kind] * 8
        count = cells * bits // (32 * max(bits, 32))
        return vector("b64" if bits == 64 else "b32", 8 if wmma and kind == "f16" and cells == 256 and k == 16 and
                      (len(types) != 4 or m != n) and parts[1] != "mma" else count)
    if parts[1] in ("load", "store"):
        which = parts[2]
        cells = {"a": m * k, "b": k * n, "c": m * n, "d": m * n}[which]
        count = 8 if types[0] == "f16" and which in "ab" else cells * BYTES[types[0]] // (32 * max(BYTES[types[0]], 4))
        v = vector("b64" if types[0] == "f64" else "b32", count)
        return f"[%d0], {v}, %r1" if parts[1] == "store" else f"{v}, [%d0], %r1"
    if len(types) == 2: # wmma of f16: types of d and c
        types = [types[0], "f16", "f16", types[1]]
    a, b = ("{" + ", ".join(f"%r{4 + i}" for i in range(8)) + "}",) * 2 if wmma and types[1] == "f16" else \
        (registers(m * k, types[1]), registers(k * n, types[2]))
    return f"{registers(m * n, types[0])}, {a}, {b}, {registers(m * n, types[3])}"


def operands(form):
    base, *rest = form.split(".")
    parts, types = [base, *rest], [p for p in rest if p in BYTES]
    t = types[0] if types else "b32"
    count = next((int(p[1:]) for p in rest if p in ("v2", "v4")), 1)
    values = vector(t, count) if count > 1 else register(t, 4)
    space = next((p for p in rest if p in ("global", "shared", "local", "const", "param")), "generic")
    place = {"shared": "[s]", "local": "[m]", "const": "[c]", "param": "[x]"}.get(space, "[%d0]")
    if base in ("mma", "wmma"):
        return matrix_operands(parts)
    if base in ("bra", "call"):
        return "L; L:" if base == "bra" else "f32, (q)"
    if base in UNARY or base == "mov":
        d = "u32" if base in ("clz", "popc") else t
        return f"{register(d, 3)}, {register(t, 4)}"
    if base in BINARY:
        wide = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}.get(t, t) if "wide" in rest else t
        last = "%r5" if base in ("shl", "shr") else register(t, 5)
        return f"{register(wide, 3)}, {register(t, 4)}, {last}"
    if base in ("fma", "mad", "prmt", "shf", "dp4a"):
        wide = {"u32": "u64", "s32": "s64"}.get(t, t) if "wide" in rest else t
        return f"{register(wide, 3)}, {register(t, 4)}, {register(t, 5)}, {register(wide, 6)}"
    if base == "cvt":
        two = f", {register(types[1], 5)}" if types[0].endswith("x2") and types[1] == "f32" else ""
        return f"{register(types[0], 3)}, {register(types[1], 4)}{two}"
    return {
        "ld": f"{values}, {place}", "st": f"{place}, {values}", "ldu": f"{values}, [%d0]", "cvta": "%d1, %d2",
        "setp": f"%p1, {register(t, 4)}, {register(t, 5)}", "selp": f"{register(t, 3)}, {register(t, 4)}, {register(t, 5)}, %p1",
        "bfi": f"{register(t, 3)}, {register(t, 4)}, {register(t, 5)}, %r6, %r7", "bfind": "%r3, %r4", "bmsk": "%r3, %r4, %r5",
        "shfl": "%r3, %r4, 1, 31, -1", "activemask": "%r3", "nanosleep": "%r3", "redux": "%r3, %r4, -1",
        "match": f"%r3, {register(t, 4)}, -1", "vote": ("%r3" if "ballot" in rest else "%p1") + ", %p2, -1",
        "bar": "-1" if "warp" in rest else "1, 64" if "arrive" in rest else
               ("%r3, 1, %p1" if "popc" in rest else "%p1, 1, %p2") if "red" in rest else "0",
        "barrier": "" if "cluster" in rest else "0",
        "atom": f"{register(t, 3)}, {place}, {register(t, 4)}" + (f", {register(t, 5)}" if "cas" in rest else ""),
        "red": f"{place}, {register(t, 4)}",
        "cp": "" if {"commit_group", "wait_all"} & set(rest) else "0" if "wait_group" in rest else "[s], [%d0], 16",
        "ldmatrix": f"{vector('b32', 4 if 'x4' in rest else 2)}, [{'%r0' if 'shared' in rest else '%d0'}]",
        "stmatrix": f"[%r0], {vector('b32', 4)}",
    }.get(base, "")


def text_of(form):
    if form.startswith("st.param"):
        bits = 8 * BYTES[form.split(".")[-1]]
        return f"{{ .param .b{bits} q; {form} [q], {register(f'b{bits}', 4)}; call f{bits}, (q); }}"
    if form.startswith("call"):
        return f"{{ .param .b32 q; st.param.b32 [q], %r4; {form} f32, (q); }}"
    return f"{form} {operands(form)};" if form != "bra" and form != "bra.uni" else f"{form} L; L:"


def load(form):
    module, log = ctypes.c_void_p(), ctypes.create_string_buffer(600)
    options, values = (ctypes.c_int * 2)(5, 6), (ctypes.c_void_p * 2)(ctypes.addressof(log), 600)
    text = HEAD + text_of(form) + "\nret;\n}\n"
    result = cu.cuModuleLoadDataEx(ctypes.byref(module), text.encode() + b"\0", 2, options, values)
    if result == 0:
        cu.cuModuleUnload(module)
    return result, log.value.decode().strip()


tier, taken, refused, failed = 0, 0, 0, 0
for line in pathlib.Path(sys.argv[2]).read_text().splitlines():
    if line.startswith("#"):
        tier = int(line.split()[2].rstrip(":")) if "TIER" in line else tier
        continue
    result, log = load(line)
    if tier in (1, 2, 3, 5) or line.startswith("stmatrix"):
        taken += 1
        good = result == 0
    else:
        refused += 1
        good = result == 218 and re.search(r"line 11, column \d+", log) and line.split(".")[0] in log and \
            ("not supported" in log or "not modelled" in log)
    if not good:
        failed += 1
        print(f"tier {tier}: {text_of(line)}\n    {result}: {log}")
print(f"{taken} forms to be taken, {refused} to be refused, {failed} are not")
sys.exit(failed != 0)
