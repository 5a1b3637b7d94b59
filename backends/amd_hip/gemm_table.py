#!/usr/bin/env python3
"""What the matrix units' products (kernels/gemm.hip) do on the virtual MI300X: prints the table of
docs/amd.md, and fails where a count is past its limit. Counts are exact: another run gives the same.

usage: gemm_table.py MOEHAL     (environment as for `moehal --virtual`)

Of the main loop alone: vector and LDS instructions for one MFMA, at most 5. It is what is left of
four runs with two numbers of outputs and two of columns: what is done once a workgroup grows with
the outputs only, the rounding of inputs with the columns only. f16, which no model here has, has no
limit. Of the whole op: passes over the banks of LDS over the least, at most 1.1; the fewest 64-byte
segments that each access's bytes fit in, over those touched, at least 0.95 for linear with bf16 and
FP8 (f32 is loaded by two halves, pairs and heads have their rows apart).
"""
import json
import subprocess
import sys

# op, case with {rows} of weights and {columns} of inputs
CASES = [
    ("gemm_64", "linear", "T64.O{rows}.I{columns}"),
    ("gemm_128", "linear", "T128.O{rows}.I{columns}"),
    ("gemm_64, experts", "experts_gate_up", "T64.J2.D{columns}.I{rows}.S4.E4"),
    ("gemm_columns", "mla_query", "T128.H2.L{rows}.N{columns}.R64.U128.X4096"),
]


def counted(moehal, op, case):
    run = subprocess.run([moehal, "bench", "op", op, "--shape", f"{op}/{case}/dense/random/plain",
                          "--device", "amd:0", "--virtual", "--profile", "fast", "--counters",
                          "--rounds", "1", "--json"], capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"{op}/{case}: {run.stderr}")
    return json.loads(run.stdout)["counters"]


def main():
    moehal, bad = sys.argv[1], []
    print("| kernel | weights | vector + LDS for an MFMA | LDS passes / least "
          "| 64-byte efficiency |")
    print("|---|---|---|---|---|")
    for kernel, op, shape in CASES:
        for weights in ("bf16", "fp8", "f16", "f32") if op == "linear" else ("bf16", "fp8"):
            runs = [counted(moehal, op, f"{weights}/" + shape.format(rows=rows, columns=columns))
                    for rows, columns in ((512, 512), (256, 512), (512, 256), (256, 256))]

            def loop(*names):
                a, b, c, d = (sum(run["instructions_" + name] for name in names) for run in runs)
                return a - b - c + d

            if not loop("mfma"):
                sys.exit(f"{kernel}, {weights}: no MFMA in {op}")
            beside = loop("valu", "lds") / loop("mfma")
            passes = 128 * runs[0]["lds_passes"] / runs[0]["lds_bytes"]
            efficiency = min(1, runs[0]["ideal64"] / runs[0]["segments64"])
            print(f"| {kernel} | {weights} | {beside:.2f} | {passes:.3f} | {efficiency:.3f} |",
                  flush=True)
            close = op == "linear" and weights in ("bf16", "fp8")
            if (beside > 5 and weights != "f16") or passes > 1.1 or (close and efficiency < 0.95):
                bad.append(f"{kernel}, {weights}: past a limit")
    print("\n".join(bad), file=sys.stderr)
    sys.exit(1 if bad else 0)


main()
