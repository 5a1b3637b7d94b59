"""What the scripts that make tables of counts share."""
import json
import re
import subprocess
import sys

# The ops of one decoded token in one layer, at the real shapes: part of the layer, op, case, its variant.
ONE_LAYER = {
    "v2-lite": [
        ("q and kv", "norm_linear", "bf16/T1.O3072.U576.I2048", "pair"),
        ("q, latents", "mla_qkv", "bf16-bf16/T1.H16.L512.R64.P64.Q1.M64.N128.U128", None),
        ("attention", "attention", "bf16/T1.H16.L512.R64.P64.Q1.M64", None),
        ("values", "head_linear", "bf16/T1.H16.B512.C128.F256", "rows"),
        ("o", "linear_add", "bf16/T1.O2048.I2048", None),
        ("router", "norm_router", "bf16/T1.E64.I2048.J6.G1.W1", "softmax"),
        ("experts up", "moe_gate_up", "bf16/T1.J6.D2048.I1408.N2816.S6.E6", None),
        ("experts down", "moe_down_combine", "bf16/T1.J6.D2048.I1408.N2816.S6.E6", None),
    ],
    "v3": [
        ("q_a and kv_a", "norm_linear", "fp8/T1.O1536.U576.I7168", "pair"),
        ("q_b", "norm_linear", "fp8/T1.O24576.U1.I1536", None),
        ("q, latents", "mla_qkv", "fp8-bf16/T1.H128.L512.R64.P64.Q1.M64.N128.U128", None),
        ("attention", "attention", "bf16/T1.H128.L512.R64.P64.Q1.M64", None),
        ("values", "head_linear", "fp8/T1.H128.B512.C128.F256", "rows"),
        ("o", "linear_add", "fp8/T1.O7168.I16384", None),
        ("router", "norm_router", "bf16/T1.E256.I7168.J8.G8.W4", "sigmoid-bias-groups"),
        ("experts up", "moe_gate_up", "fp8/T1.J8.D7168.I2048.N2048.S8.E8", None),
        ("experts down", "moe_down_combine", "fp8/T1.J8.D7168.I2048.N2048.S8.E8", None),
    ],
}


def measured(moehal, device, op, shape, variant, profile):
    """What `moehal bench op` says of a case on a virtual device."""
    case = f"{op}/{shape}/dense/random/{variant or 'plain'}"
    run = subprocess.run([moehal, "bench", "op", op, "--shape", case, "--device", device, "--virtual",
                          "--profile", profile, "--counters", "--rounds", "1", "--json"],
                         capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"{case}: {run.stderr}")
    return json.loads(run.stdout)


def sizes(shape):
    return {letter: int(number) for letter, number in re.findall(r"([A-Z])(\d+)", shape)}


def head(columns):
    print(f"| {columns} |\n|{'---|' * (columns.count('|') + 1)}")


def leave(bad):
    print("\n".join(bad), file=sys.stderr)
    sys.exit(1 if bad else 0)
