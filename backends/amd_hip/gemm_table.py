#!/usr/bin/env python3
"""What the matrix units' products (kernels/gemm.hip) do on the virtual MI300X: prints the tables of
docs/amd.md, and fails where a count is past its limit. Counts are exact: another run gives the same.

usage: gemm_table.py MOEHAL [v2-lite] [v3]     (environment as for `moehal --virtual`)

Without a model, of the main loop alone: vector and LDS instructions for one MFMA, at most 5. It is
what is left of four runs with two numbers of outputs and two of columns: what is done once a
workgroup grows with the outputs only, the rounding of inputs with the columns only. Of the whole op:
passes over the banks of LDS over the least, at most 1.1; the fewest 64-byte segments that each
access's bytes fit in, over those touched, at least 0.95 for linear with bf16 and FP8 (f32 is loaded
by two halves, pairs and heads have their rows apart).

With a model, the products of one of its layers for 64 tokens, the whole op: unique segments of 64
bytes over what weights, inputs, outputs and rounded inputs come to, at most 1.05; weights asked for:
what loads ask for, less the inputs, over the weights, 1 where each byte is asked for once, at most
1.04; 64-byte efficiency, at least 0.95; LDS passes over the least, at most 1.1; vector and LDS
instructions for one MFMA, here with the rounding of inputs and what is done once a workgroup.
"""
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from decode_layers import ONE_LAYER, head, leave, measured, sizes

# op, case with {rows} of weights and {columns} of inputs
CASES = [
    ("gemm_64", "linear", "T64.O{rows}.I{columns}"),
    ("gemm_128", "linear", "T128.O{rows}.I{columns}"),
    ("gemm_64, experts", "experts_gate_up", "T64.J2.D{columns}.I{rows}.S4.E4"),
    ("gemm_columns", "mla_query", "T128.H2.L{rows}.N{columns}.R64.U128.X4096"),
]

TOKENS = 64


def product(size, rows, columns, count=1, tokens=TOKENS, outputs=128):
    """Bytes of inputs that the workgroups of `count` products load: each its tokens' rows, and with FP8
    each of four waves 64 rows' scales a step."""
    groups = count * -(-rows // outputs)
    return groups * (tokens * columns * size + (4 * 64 * 4 * columns // 128 if size == 1 else 0))


def inputs(op, fp8, d):
    """Bytes that loads ask for beside the weights, and bytes of rounded inputs."""
    size, t = 1 if fp8 else 2, TOKENS
    if op == "norm_linear":  # x twice, and the norm; then q and latents, which u is 1 of where there is one
        i = d["I"]
        return 12 * t * i + product(size, d["O"], i) + (d["U"] > 1 and product(size, d["U"], i)), t * i * size
    if op == "mla_qkv":  # the rotated part and the rows of the cache: x, the angles, the norm
        beside = 4 * t * (d["H"] * d["R"] * 2 + 2 * (d["L"] + d["R"]) + d["L"])
        if fp8:  # a scale a work-item for each 64 of K
            beside += d["H"] * -(-d["L"] // 128) * -(-d["N"] // 64) * 1024
        return (4 * t * d["H"] * d["N"] + product(2, d["L"], d["N"], d["H"], 128) + beside,
                2 * t * d["H"] * d["N"])
    if op == "head_linear":
        return 4 * t * d["H"] * d["B"] + product(size, d["C"], d["B"], d["H"]), t * d["H"] * d["B"] * size
    if op == "linear_add":
        return (4 * t * (d["I"] + d["O"]) + product(size, d["O"], d["I"]), t * d["I"] * size)
    if op == "moe_gate_up":
        x = t * d["D"]
        return (4 * x + product(size, d["I"], d["D"], d["J"], outputs=64)
                + product(size, d["N"], d["D"], outputs=64), x * size)
    x = t * (d["J"] * d["I"] + d["N"])  # moe_down_combine: its last kernel adds up what the products wrote
    return (4 * x + product(size, d["D"], d["I"], d["J"]) + product(size, d["D"], d["N"])
            + 4 * t * d["D"] * (2 * d["J"] + 2), x * size + 4 * t * d["D"] * (d["J"] + 1))


def layer(moehal, models):
    bad = []
    head("part of a layer, 64 tokens | op | case | launches | unique segments / least "
         "| weights asked for | 64-byte efficiency | LDS passes / least | vector + LDS for an MFMA")
    for model in models:
        for part, op, shape, variant in ONE_LAYER[model]:
            if op in ("attention", "norm_router"):
                continue
            shape = shape.replace("/T1.", f"/T{TOKENS}.").replace(".Q1.M64", f".Q{TOKENS}.M{TOKENS}")
            r = measured(moehal, "amd:0", op, shape, variant, "fast")
            c = r["counters"]
            d = sizes(shape)
            beside, rounded = inputs(op, shape.startswith("fp8"), d)
            unique = 64 * c["unique64"] / (r["bytes"] + 2 * rounded)
            once = (c["load_bytes"] - beside) / r["weight_bytes"]
            efficiency = min(1, c["ideal64"] / c["segments64"])
            if not c["instructions_mfma"]:
                sys.exit(f"{op} {shape}: no MFMA")
            passes = 128 * c["lds_passes"] / c["lds_bytes"]
            vector = (c["instructions_valu"] + c["instructions_lds"]) / c["instructions_mfma"]
            print(f"| {model}: {part} | {op} | {shape} | {c['launches']} | {unique:.4f} | {once:.4f} "
                  f"| {efficiency:.3f} | {passes:.3f} | {vector:.2f} |", flush=True)
            if unique > 1.05 or not 0.99 < once < 1.04 or efficiency < 0.95 or passes > 1.1:
                bad.append(f"{op} {shape}: past a limit")
    return bad


def main():
    moehal, bad = sys.argv[1], []
    if sys.argv[2:]:
        leave(layer(moehal, sys.argv[2:]))
    head("kernel | weights | vector + LDS for an MFMA | LDS passes / least | 64-byte efficiency")
    for kernel, op, shape in CASES:
        for weights in ("bf16", "fp8", "f16", "f32") if op == "linear" else ("bf16", "fp8"):
            runs = [measured(moehal, "amd:0", op, f"{weights}/" + shape.format(rows=rows, columns=columns),
                             None, "fast")["counters"]
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
            if beside > 5 or passes > 1.1 or (close and efficiency < 0.95):
                bad.append(f"{kernel}, {weights}: past a limit")
    leave(bad)


main()
