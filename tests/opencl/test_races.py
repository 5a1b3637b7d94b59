#!/usr/bin/env python3
"""Small cases of every kernel on oclgrind: the bits, and no data race, no access out of bounds, no
divergent barrier in its log (its exit status is always 0). Each kernel's check against the definition,
when its program is built, runs there too.

usage: test_races.py MOEHAL OPENCL-DIR FORM FORMAT...          (fused: the fused ops, with bf16)
"""
import os
import shutil
import subprocess
import sys
import tempfile

MOEHAL, MODULES, FORM, *FORMATS = sys.argv[1:]
OCLGRIND = "/usr/lib/oclgrind/liboclgrind-rt.so"

OF_FORMATS = """
linear/{}/T2.O9.I130/gaps/random/plain
linear/{}/T1.O9.I714/dense/random/plain
linear_add/{}/T13.O9.I130/inplace/random/plain
linear_swiglu/{}/T5.N9.I66/shifted/random/plain
head_linear/{}/T5.H2.B66.C5.F7/gaps/random/rows
head_linear/{}/T2.H2.B70.C66.F67/gaps/random/transposed
head_linear/{}/T1.H1.B72.C66.F67/dense/random/transposed
mla_query/{}/T2.H2.L66.N5.R4.U7.X16/gaps/random/bad
mla_query/{}/T5.H2.L66.N5.R4.U7.X16/gaps/random/plain
embed/{}/T5.D70.V9/gaps/random/bad
router_linear/{}/T2.E40.I70.J4.G8.W3/gaps/random/sigmoid-bias-groups
experts_gate_up/{}/T2.J2.D70.I9.S4.E6/gaps/random/map
experts_gate_up/{}/T5.J3.D70.I5.S4.E6/gaps/random/absent
experts_down/{}/T5.J2.D9.I70.S4.E4/gaps/random/bad
experts_down_combine/{}/T2.J2.D9.I70.S4.E4/dense/random/plain
experts_down_combine/{}/T5.J2.D9.I70.S4.E6/gaps/random/map
"""
FUSED = """
norm_linear/{}/T2.O9.U5.I66/gaps/random/pair
norm_linear/{}/T5.O9.U1.I130/gaps/random/plain
mla_qkv/{}-f32/T4.H2.L66.R4.P8.Q2.M2.N5.U7/gaps/random/bad
norm_router/{}/T2.E40.I66.J4.G8.W3/gaps/random/sigmoid-bias-groups
moe_gate_up/{}/T2.J2.D70.I9.N5.S4.E6/gaps/random/map
moe_gate_up/{}/T5.J3.D70.I5.N9.S4.E6/gaps/random/absent
moe_down_combine/{}/T2.J2.D9.I70.N66.S4.E6/gaps/random/map
moe_down_combine/{}/T5.J2.D9.I70.N66.S4.E4/inplace/random/plain
moe_down_combine/{}/T1.J8.D2.I72.N72.S9.E9/dense/random/plain
"""
OTHERS = """
add/f32/T3.N129/inplace/random/plain
swiglu/f32/T3.N129/inplace/random/plain
rmsnorm/f32/T3.D129/inplace/random/residual
rmsnorm/f32/T3.D66/gaps/random/plain
rope/f32/T3.H2.R6.X9/inplace/random/bad
kv_write/f32/T4.L9.R4.P8.Q2.M2/gaps/random/bad
kv_write/bf16/T4.L9.R4.P8.Q2.M2/gaps/random/padding
mla_kv/f32/T4.L66.R4.P8.Q2.M2/gaps/random/bad
mla_kv/bf16/T4.L66.R4.P8.Q2.M2/gaps/random/padding
attention/f32/T2.H2.L66.R4.P16.Q2.M3/gaps/random/bad
attention/bf16/T2.H1.L66.R4.P64.Q1.M6/gaps/random/plain
attention/f32/T1.H1.L200.R64.P16.Q1.M20/dense/random/plain
attention/bf16/T2.H1.L64.R8.P64.Q2.M6/dense/random/padding
router/f32/T3.E40.J4.G8.W3/gaps/ties/sigmoid-bias-groups
router/f32/T3.E40.J4.G8.W3/gaps/random/softmax-groups
combine/f32/T3.J2.D70.S4.E6/inplace/random/absent
combine/f32/T3.J2.D70.S4.E6/gaps/random/shared
argmax/f32/T3.V70/gaps/ties/plain
sample/f32/T3.V70/gaps/random/top-k
sample/f32/T3.V70/gaps/ties/all
sample/f32/T3.V70/gaps/wide/top-p
sample/f32/T2.V70/gaps/special/temperature
sample/f32/T2.V1100/gaps/random/all
copy/u32/A2.B3.C5.D7/gaps/random/transposed
cast/f32-f16/A2.B3.C5.D7/gaps/special/rank4
cast/bf16-f32/A2.B3.C5.D70/gaps/special/rank2
fill/u32/A2.B3.C5.D70/gaps/random/rank2
"""


def cases():
    yield from (line for line in OTHERS.split("\n") if line)
    for name in FORMATS:
        lines, weights = (FUSED, "bf16") if name == "fused" else (OF_FORMATS, name)
        yield from (line.format(weights) for line in lines.split("\n") if line)


def main():
    if not shutil.which("oclgrind") or not os.path.exists(OCLGRIND):
        print("SKIP: oclgrind is not installed")
        return 77
    failed = count = 0
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "log")
        env = dict(os.environ, MOEHAL_BACKENDS=MODULES, MOEHAL_OPENCL=OCLGRIND,
                   MOEHAL_OPENCL_FORM=FORM, MOEHAL_CACHE=os.path.join(folder, "cache"))
        for case in cases():
            if os.path.exists(log):
                os.remove(log)
            done = subprocess.run(
                ["oclgrind", "--data-races", "--log", log, MOEHAL, "check", "--device", "opencl:0",
                 "--filter", case], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, timeout=300, stdin=subprocess.DEVNULL)
            with open(log, encoding="utf-8") as file:
                told = file.read()
            count += 1
            if done.returncode or told.strip():
                failed += 1
                print(f"FAIL {case}: exit status {done.returncode}\n{done.stdout[-600:]}\n{told[:1500]}")
    print(f"{FORM}: {count} cases on oclgrind, {failed} failed")
    return 1 if failed or not count else 0


if __name__ == "__main__":
    sys.exit(main())
