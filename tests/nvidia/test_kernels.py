#!/usr/bin/env python3
"""Reads the PTX of the NVIDIA backend as it will be compiled and holds it against docs/numerics.md:
every float instruction rounds to nearest by name, nothing flushes or approximates; and where ptxas
is installed, every text assembles without spills or local memory, inside the budget of its header. The
budget's shared memory is kernels.def's.

usage: test_kernels.py SOURCE BUILD [later]     BUILD: where the preprocessed *.ptx lie;
later: assembled for sm_90 and sm_100 too, and not only for what a text is written for
"""
import pathlib
import re
import shutil
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "backends/nvidia_ptx"))
from ptxas_table import assemble_all, budgets

FORBIDDEN = re.compile(r"\.(ftz|approx|full)\b")
# Instructions on f32 that round, and must say how.
ROUNDS = re.compile(r"\b(add|sub|mul|fma|mad|div|rcp|sqrt)\.(?!rn\.f32\b)[a-z.]*f32\b")
NARROWS = re.compile(r"\bcvt\.(?!rn\.)(?!r[a-z]*i\.)[a-z0-9.]*(f16|bf16)\.f32\b")

CASES = [  # line, is it allowed?
    ("add.rn.f32 a, b, c;", True),
    ("add.f32 a, b, c;", False),
    ("fma.rn.ftz.f32 a, b, c, d;", False),
    ("rcp.approx.f32 a, b;", False),
    ("div.full.f32 a, b, c;", False),
    ("mul.rz.f32 a, b, c;", False),
    ("sqrt.rn.f32 a, b;", True),
    ("add.u32 a, b, c; mad.lo.u32 a, b, c, d;", True),
    ("cvt.f32.f16 a, b;", True),
    ("cvt.rn.f16.f32 a, b;", True),
    ("cvt.rz.f16.f32 a, b;", False),
    ("cvt.rzi.u32.f32 a, b;", True),
    ("max.f32 a, b, c;", True),
]


def offence(line):
    return next((m[0] for m in (p.search(line) for p in (FORBIDDEN, ROUNDS, NARROWS)) if m), None)


def main():
    source, build = map(pathlib.Path, sys.argv[1:3])
    later = {"90", "100"} if sys.argv[3:] else set()
    complaints = [f"rule of this test: {line!r}" for line, allowed in CASES
                  if allowed != (offence(line) is None)]
    texts = sorted(build.glob("*.ptx"))
    if not texts:
        complaints.append(f"{build}: no PTX")
    for path in texts:
        for line in path.read_text().splitlines():
            line = line.split("//")[0]
            for statement in line.split(";"):
                bad = offence(statement)
                if bad:
                    complaints.append(f"{path.name}: {bad} in '{statement.strip()}'")
    status = (source / "hal/include/moehal/status.def").read_text()
    common = (source / "backends/nvidia_ptx/kernels/common.inc").read_text()
    for name in "BAD_INDEX", "OUT_OF_MEMORY":
        number = re.search(rf"MH_STATUS\((\d+), {name},", status)[1]
        if f"#define {name} {number}\n" not in common:
            complaints.append(f"common.inc: {name} is not status.def's {number}")
    listed = (source / "backends/nvidia_ptx/kernels.def").read_text()
    listed = {name: int(own) for name, own in re.findall(r"^KERNEL\(\w+, (\w+), (\d+)\)", listed, re.M)}
    if listed != {name: own for name, (_, own) in budgets().items()}:
        complaints.append(f"kernels.def says {listed}, the headers' budgets {budgets()}")
    ptxas = shutil.which("ptxas") or shutil.which("ptxas", path="/usr/local/cuda/bin")
    if ptxas:
        jobs = [(path, sm) for path in texts for sm in {path.stem.rsplit("_", 1)[1]} | later]
        complaints += [why for _, why in assemble_all(ptxas, jobs) if why]
    else:
        print("no ptxas here: the texts were read, not assembled")
    for line in complaints:
        print(line)
    print(f"{len(texts)} texts, {len(complaints)} complaints")
    sys.exit(1 if complaints else 0)


main()
