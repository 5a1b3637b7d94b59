#!/usr/bin/env python3
"""ptxas as an oracle of what is PTX: one instruction each from the probes, changed at random (a modifier
dropped, added, exchanged; an operand dropped, doubled or of another kind), must be taken or refused as
ptxas does.

usage: mutate.py LIBCUDA HWVECTORS WORK-FOLDER COUNT

Taking what ptxas refuses is counted and bounded; refusing what it takes is allowed only for forms that are
refused by name ("not supported")."""
import collections
import ctypes
import pathlib
import random
import re
import subprocess
import sys

PTXAS = pathlib.Path("/usr/local/cuda/bin/ptxas")
library, hwvectors, folder, count = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4])
if not PTXAS.exists():
    print(f"SKIP: no ptxas in {PTXAS.parent}")
    sys.exit(77)
folder.mkdir(parents=True, exist_ok=True)
subprocess.run([hwvectors, "--ptx", folder], check=True)
cu = ctypes.CDLL(library)
context = ctypes.c_void_p()
assert cu.cuInit(0) == 0 and cu.cuCtxCreate_v2(ctypes.byref(context), 0, 0) == 0
rng = random.Random(7)
MODIFIERS = (".f32 .f64 .s32 .u32 .b32 .u64 .s64 .b64 .u16 .s16 .b16 .u8 .f16 .bf16 .f16x2 .bf16x2 .rn .rz .rm .rp "
             ".rni .rzi .ftz .sat .approx .lo .hi .wide .sync .aligned .relu .NaN .cc .full .global .shared "
             ".add .x2 .x4 .trans .satfinite").split()
FAMILIES = ["rn rz rm rp", "rni rzi rmi rpi", "s32 u32 b32", "s64 u64 b64", "f16x2 bf16x2", "eq ne lt le gt ge equ num nan",
            "e4m3x2 e5m2x2", "e4m3 e5m2", "s8 u8", "clamp wrap", "idx up down bfly", "x1 x2 x4", "lo hi",
            "add min max and or xor inc dec exch", "global shared", "any all uni"]
NAMES = ["add sub mul min max", "and or xor", "shl shr", "sin cos ex2 lg2 rcp rsqrt sqrt tanh", "neg abs not cnot",
         "clz popc brev bfind", "fma mad", "div rem"]
OPERANDS = "%i0 %f0 %d0 %l0 %h0 %p0 1 0f3f800000 -1 %tid.x".split()


def mutate(body):
    """One instruction of the body, changed in one way."""
    parts = body.split(";")
    which = rng.choice([i for i, part in enumerate(parts) if part.strip()])
    match = re.match(r"(\s*(?:@!?%p\d )?)([\w.:]+)(\s+)(.*)$", parts[which], re.S)
    if not match or ":" in match[2]:
        return None
    lead, opcode, space, operands = match.groups()
    name, *modifiers = opcode.split(".")
    operand_list = re.split(r",\s*(?![^{]*\})", operands)
    way = rng.randrange(12)
    if way > 5: # one of the same family, which is often legal
        names = [f.split() for f in (NAMES if way == 6 else FAMILIES)]
        words = [name] if way == 6 else modifiers
        fits = [(i, f) for i, word in enumerate(words) for f in names if word in f]
        if not fits:
            return None
        i, family = rng.choice(fits)
        words[i] = rng.choice(family)
        parts[which] = lead + ".".join([words[0], *modifiers] if way == 6 else [name, *words]) + space + operands
        return ";".join(parts)
    if way == 0 and modifiers:
        del modifiers[rng.randrange(len(modifiers))]
    elif way == 1:
        more = rng.choice(MODIFIERS)[1:]
        if more in modifiers: # ptxas does not mind, and says nothing of what it means
            return None
        modifiers.insert(rng.randrange(len(modifiers) + 1), more)
    elif way == 2 and modifiers:
        modifiers[rng.randrange(len(modifiers))] = rng.choice(MODIFIERS)[1:]
    elif way == 3 and len(operand_list) > 1:
        del operand_list[rng.randrange(len(operand_list))]
    elif way == 4:
        operand_list.insert(rng.randrange(len(operand_list) + 1), rng.choice(operand_list))
    else:
        operand_list[rng.randrange(len(operand_list))] = rng.choice(OPERANDS)
    parts[which] = lead + ".".join([name, *modifiers]) + space + ", ".join(operand_list)
    return ";".join(parts)


def ours(text):
    module, log = ctypes.c_void_p(), ctypes.create_string_buffer(600)
    options = (ctypes.c_int * 2)(5, 6)
    values = (ctypes.c_void_p * 2)(ctypes.addressof(log), 600)
    result = cu.cuModuleLoadDataEx(ctypes.byref(module), text.encode() + b"\0", 2, options, values)
    if result == 0:
        cu.cuModuleUnload(module)
    return result == 0, log.value.decode().strip()


def theirs(text):
    path = folder / "mutant"
    path.write_text(text)
    run = subprocess.run([PTXAS, "-arch", "sm_90", path, "-o", "/dev/null"], capture_output=True, text=True)
    return run.returncode == 0, run.stderr.split("\n")[0]


files = sorted(folder.glob("*.ptx"))
tally, strict, lenient = collections.Counter(), [], []
while sum(tally.values()) < count:
    text = rng.choice(files).read_text()
    head, body, tail = text.split("\n\n", 1)[0], *re.split(r"\n\n", text.split("\n\n", 1)[1])[1:3]
    start = text.index(body)
    changed = mutate(body)
    if not changed or changed == body:
        continue
    mutant = text[:start] + changed + text[start + len(body):]
    (we, why), (they, reason) = ours(mutant), theirs(mutant)
    tally[f"here {'taken' if we else 'refused'}, ptxas {'takes' if they else 'refuses'}"] += 1
    # ptxas takes a cache policy of an atomic without .L2::cache_hint, and any register as one.
    known = re.search(r"'(atom|red)\.[^']*' takes", why)
    if they and not we and "not supported" not in why and not known:
        strict.append((changed.strip(), why))
    if we and not they:
        lenient.append((changed.strip(), reason))
for kind, number in sorted(tally.items()):
    print(f"{number:5} {kind}")
for body, why in strict[:20]:
    print(f"refused here, and ptxas takes it: {body}\n    {why}")
for body, why in lenient[:20]:
    print(f"taken here, and ptxas refuses it: {body}\n    {why}")
sys.exit(bool(strict) or len(lenient) > count // 20)
