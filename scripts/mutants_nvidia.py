#!/usr/bin/env python3
"""Breaks the PTX of the NVIDIA backend in small ways, one at a time, and sees whether conformance
notices on the virtual GPU.

usage: scripts/mutants_nvidia.py --build BUILD [--each 5] [--seed 1] [--pick N] [--part I/N] [--keep]

A mutant is one opcode, comparison, guard or constant of kernels/* changed, or one barrier of the block
made one of the warp: --each of them for every file, at sites sampled by seed. It is caught if a small
case of an op that uses the file fails, or if the virtual GPU's checks (bounds, uninitialised reads, races,
barriers) report something. tests/mutants/nvidia-equivalents.txt lists changes that change nothing,
each with a proof. nvidia-caught.txt, written with --keep, those that were seen caught; --pick tries N of
these again, chosen by what the sources are. --part I/N tries a part.

Exit status: 0 at least 95 % were caught (with --pick: all); 1 fewer; 2 a case fails without a mutant.
"""
import argparse
import hashlib
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

import mutants as base

ROOT = base.ROOT
KERNELS = ROOT / "backends/nvidia_ptx/kernels"
EQUIVALENTS = ROOT / "tests/mutants/nvidia-equivalents.txt"
CAUGHT = ROOT / "tests/mutants/nvidia-caught.txt"
FORMATS = {"1": "f32", "2": "f16", "3": "bf16", "4": "fp8"}

def some(case, *sizes):
    """A case of several sizes. Those that end in "bad" have indices that are none in one operand or in all,
    which ones depends on the name."""
    return [case.replace("?", str(size)) for size in sizes]


LINEAR = [*some("linear/{}/T2.O9.I?/gaps/random/plain", 130, 131),
          "linear_swiglu/{}/T1.N9.I1000/gaps/random/plain",
          "linear/{}/T2.O9.I488/gaps/random/plain", "linear/{}/T4.O9.I488/gaps/random/plain",
          "linear/{}/T2.O9.I96/dense/random/plain", "linear/{}/T2.O9.I256/dense/random/plain",
          *some("linear/{}/T1.O9.I?/dense/random/plain", 512, 132, 256, 384),
          "linear_add/{}/T7.O9.I584/inplace/random/plain", "linear/{}/T1.O130.I16/dense/random/plain"]
CACHE = ["kv_write/f32/T30.L9.R4.P1.Q2.M40/gaps/random/bad", "kv_write/f32/T9.L200.R4.P8.Q2.M2/gaps/random/bad",
         "kv_write/bf16/T4.L9.R4.P8.Q2.M2/gaps/special/padding",
         "attention/f32/T12.H2.L66.R4.P16.Q2.M3/gaps/random/bad",
         "attention/bf16/T12.H1.L64.R8.P1.Q1.M700/gaps/random/bad",
         "attention/f32/T9.H2.L66.R4.P16.Q2.M5/gaps/random/bad",
         *some("kv_write/f32/T9.L20.R4.P8.Q2.M?/gaps/random/bad", 2, 4, 5)]
KV = ["mla_kv/f32/T2.L520.R1034.P2.Q1.M2/gaps/random/plain", "mla_kv/f32/T4.L66.R4.P8.Q2.M2/gaps/random/bad",
      "mla_kv/bf16/T4.L66.R4.P8.Q2.M2/gaps/random/padding"]
NORM = ["rmsnorm/f32/T3.D129/inplace/random/residual",
        *some("rmsnorm/f32/T2.D?/gaps/random/plain", 448, 1100)]
GROUPED = ["experts_gate_up/{}/T9.J3.D72.I5.S4.E6/gaps/random/map",
           "experts_gate_up/{}/T24.J3.D70.I5.S4.E6/dense/random/bad",
           *some("experts_gate_up/{}/T?.J3.D70.I5.S4.E6/gaps/random/bad", 14, 15),
           "experts_down/{}/T1.J2.D9.I130.S4.E4/gaps/random/absent",
           "moe_gate_up/{}/T3.J2.D136.I9.N17.S3.E4/gaps/random/absent"]
COMBINED = ["experts_down_combine/{}/T1.J18.D9.I16.S20.E20/gaps/random/plain",
            "experts_down_combine/{}/T2.J2.D9.I70.S4.E4/inplace/random/plain",
            "experts_down_combine/{}/T1.J2.D70.I70.S4.E4/dense/random/plain @1",
            "experts_down_combine/{}/T2.J2.D9.I70.S4.E6/gaps/random/absent",
            *some("moe_down_combine/{}/T?.J2.D9.I136.N72.S4.E6/gaps/random/bad", 14, 15, 16)]
CHOICE = ["router/f32/T2.E66.J40.G1.W1/gaps/random/softmax-norm",
          "router/f32/T3.E40.J4.G8.W3/gaps/ties/sigmoid-bias-groups",
          "router/f32/T3.E16.J4.G8.W3/gaps/random/sigmoid-bias-groups",
          "router/f32/T3.E40.J4.G8.W3/gaps/random/softmax-groups",
          "router/f32/T3.E66.J4.G1.W1/gaps/special/softmax-norm",
          "router/f32/T3.E66.J40.G1.W1/gaps/wide/softmax-norm",
          "router/f32/T2000.E1.J1.G1.W1/gaps/special/softmax",  # all logits of a row are very negative
          "router/f32/T60.E2.J2.G1.W1/gaps/wide/softmax",  # some rows' two logits are 43 to 87 apart
          "router/f32/T60.E160.J6.G40.W3/gaps/random/softmax-groups",
          "router/f32/T9.E48.J6.G8.W3/gaps/ties/softmax-groups"]
FAST = ["fast/products {}", "fast/fused {}"]
# The cases that show what a file does; {} is a weight format; @1: on a GPU of one multiprocessor, which
# gets the kernels of many rows.
CASES = {
    "attention_decode.ptx": ["fast/attention"],
    "attention_merge.ptx": ["attention_merge/f32/T3.H2.L66.S3.N2/gaps/random/bad",
                            "attention_merge/f32/T2.H2.L130.S2.N3/gaps/wide/plain"],
    "attention_mma.ptx": ["fast/attention @1"],
    "attention_body.inc": ["attention_part/bf16/T5.H3.L66.R4.P16.Q2.M40.S2.F2.N2/gaps/random/bad",
                           "attention/f32/T2.H2.L66.R4.P16.Q2.M3/gaps/random/bad",
                           "attention/bf16/T2.H1.L64.R8.P64.Q1.M9/gaps/random/plain",
                           "attention/bf16/T1.H5.L520.R8.P64.Q1.M2/gaps/random/plain",
                           "attention/bf16/T3.H1.L64.R8.P64.Q1.M20/dense/random/plain",
                           "attention/bf16/T2.H1.L64.R8.P64.Q1.M9/dense/random/plain",
                           "attention/bf16/T1.H9.L64.R8.P64.Q1.M9/dense/random/plain @1",
                           "attention/f32/T1.H4.L64.R8.P64.Q1.M9/dense/random/plain @1",
                           "attention/bf16/T1.H4.L64.R8.P64.Q1.M9/gaps/random/plain @1",
                           "attention/bf16/T1.H9.L64.R8.P64.Q1.M9/gaps/random/plain @1"],
    "cache.inc": CACHE,
    "combine.ptx": ["combine/f32/T3.J2.D70.S4.E6/inplace/random/absent",
                    "combine/f32/T3.J2.D70.S4.E6/gaps/random/shared",
                    "combine/f32/T3.J2.D70.S4.E6/gaps/random/experts",
                    "combine/f32/T12.J3.D70.S4.E6/gaps/random/absent",
                    *some("combine/f32/T?.J3.D70.S4.E6/dense/random/bad", 12, 15, 16)],
    "common.inc": ["swiglu/f32/T3.N129/gaps/wide/plain", "swiglu/f32/T3.N129/gaps/special/plain",
                   "cast/f32-bf16/A2.B3.C5.D70/gaps/special/rank4",
                   "rope/f32/T3.H2.R6.X9/inplace/random/plain",
                   "argmax/f32/T3.V70/gaps/ties/plain"] + CHOICE + LINEAR[:1],
    "dot.inc": LINEAR,
    "embed.ptx": ["embed/{}/T5.D70.V9/gaps/random/bad", "embed/fp8/T9.D170.V600/gaps/random/plain"],
    "expert_slot.inc": GROUPED + COMBINED,
    "experts.ptx": COMBINED,
    "experts_body.inc": GROUPED,
    "format.inc": LINEAR,
    "gemm.ptx": FAST[::-1],
    "gemm_body.inc": FAST,
    "gemm_columns.ptx": FAST,
    "heads.ptx": ["head_linear/{}/T2.H2.B70.C66.F67/gaps/random/transposed",
                  *some("head_linear/{}/T1.H2.B70.C?.F129/dense/random/transposed", 128, 129),
                  "head_linear/{}/T1.H1.B130.C9.F9/dense/random/transposed",
                  "mla_query/{}/T2.H2.L66.N5.R4.U7.X16/gaps/random/bad",
                  "mla_qkv/{}-bf16/T2.H2.L66.R4.P8.Q2.M2.N5.U7/gaps/random/bad",
                  "mla_qkv/{}-bf16/T2.H1.L66.R4.P8.Q2.M2.N5.U7/gaps/random/plain"],
    "linear_body.inc": LINEAR + ["head_linear/{}/T5.H2.B66.C5.F7/gaps/random/rows"],
    "mla.ptx": KV + CACHE[:2] + ["rope/f32/T3.H2.R6.X9/inplace/random/bad"],
    "mla_kv.inc": KV,
    "move.ptx": ["copy/u32/A2.B3.C5.D7/gaps/random/transposed", "fill/bf16/A2.B3.C5.D70/gaps/random/rank2",
                 "copy/u32/A2.B3.C5.D200/gaps/random/rank2", "cast/f32-f16/A2.B3.C5.D200/gaps/special/rank4",
                 "cast/bf16-f32/A2.B3.C5.D7/gaps/wide/rank2",
                 "cast/f16-bf16/A2.B3.C5.D70/gaps/special/rank2"],
    "norm.inc": NORM,
    "norm.ptx": NORM + ["add/f32/T3.N129/gaps/random/plain", "swiglu/f32/T3.N129/gaps/wide/plain",
                        "add/f32/T65540.N1/dense/random/plain"],
    "norm_linear_body.inc": ["norm_linear/{}/T2.O9.U7.I130/gaps/random/pair",
                             "norm_linear/{}/T7.O9.U1.I72/gaps/random/plain",
                             "norm_linear/{}/T1.O130.U1.I16/dense/random/plain",
                             "norm_router/{}/T9.E40.I520.J4.G8.W3/gaps/random/sigmoid-bias-groups"],
    "norm_stage.inc": ["norm_linear/{}/T2.O9.U7.I130/gaps/random/pair",
                       "norm_linear/{}/T2.O9.U7.I130/shifted/random/pair",
                       "norm_linear/{}/T1.O9.U1.I64/shifted/random/plain",
                       "norm_linear/{}/T1.O9.U1.I71/gaps/random/plain",
                       "norm_linear/{}/T7.O9.U1.I1352/gaps/random/plain"],
    "router_body.inc": CHOICE,
    "sample.ptx": ["argmax/f32/T3.V70/gaps/ties/plain",
                   *some("argmax/f32/T2.V?/gaps/random/plain", 1500, 5000),
                   "sample/f32/T3.V70/gaps/random/top-k", "sample/f32/T33.V7/gaps/wide/top-k",
                   "sample/f32/T3.V70/gaps/ties/all",
                   "sample/f32/T3.V1500/gaps/wide/top-p", "sample/f32/T33.V200/gaps/special/temperature"],
    "stage.inc": LINEAR + ["norm_linear/{}/T2.O9.U7.I130/gaps/random/pair"],
}
MIXED = {"embed.ptx", "attention_body.inc", "cache.inc"}  # their cases are of more than one format
# Files that only name what they include, and what only asks caches: nothing to break.
LEFT_OUT = {"attention.ptx", "linear.ptx", "norm_linear.ptx", "router.ptx", "router.inc", "tokens.inc",
            "warm.inc",
            # of several GPUs, which conformance does not use:
            "dispatch.ptx", "exchange.inc", "exchange.ptx", "exchange_steps.inc"}

SWAPS = {"add": "sub", "sub": "add", "min": "max", "max": "min", "shl": "shr", "shr": "shl",
         "and": "or", "or": "and"}
COMPARE = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt", "eq": "ne", "ne": "eq"}
SITE = re.compile(r"""
    (?P<guard>@!?)(?=\w)
  | \b(?P<swap>add|sub|min|max|shl|shr|and|or)(?=\.)
  | \b(?:setp)\.(?P<compare>lt|le|gt|ge|eq|ne)\b
  | \b(?P<mul>mul(?=\.rn\.f32))
  | \b(?P<float>0[fF][0-9A-Fa-f]{8})\b
  | (?<![\w.%#])(?P<number>0x[0-9A-Fa-f]+|\d+)(?![\w.])
  | \b(?P<barrier>SYNC)\b
""", re.X)


def changed(kind, text):
    if kind == "guard":
        return "@" if text == "@!" else "@!"
    if kind == "swap":
        return SWAPS[text]
    if kind == "compare":
        return COMPARE[text]
    if kind == "mul":
        return "add"
    if kind == "float":
        bits = int(text[2:], 16)
        return "0f3F800000" if bits & 0x7FFFFFFF == 0 else f"0f{bits ^ 0x00800000:08X}"
    if kind == "number":
        return str(int(text, 0) + 1)
    return "bar.warp.sync 0xFFFFFFFF;"


def sites(name, text):
    """Mutants of a file, in order."""
    found, counts, function, at, define = [], {}, name.split(".")[0], 0, False
    for line in text.splitlines(keepends=True):
        code = line.split("//")[0]
        entry = re.search(r"\.entry (?:CAT\()?(\w+)", code)
        if entry:
            function = entry[1].rstrip("_")
        macro = re.match(r"#define (\w+)(\([^)]*\))?", code)
        skip = re.match(r"\s*(\.reg|\.param|\.shared|\.extern|\.visible|\.maxntid|\.minnctapersm|\.version"
                        r"|\.target|\.address_size|#(?!define))", code)
        body = code[macro.end():] if macro else code
        if macro and not re.search(r"[;\\]", body):
            skip = True  # a constant or a name
        for match in [] if skip else SITE.finditer(code, macro.end() if macro else 0):
            kind = match.lastgroup
            old = match[kind]
            if kind == "number" and re.match(r"\s*(ARG|STEPS|EACH)", code):
                continue
            key = (function, line.strip(), old)
            counts[key] = counts.get(key, 0) + 1
            found.append(base.Mutant(f"backends/nvidia_ptx/kernels/{name}", function, line.strip(),
                                     counts[key], old, changed(kind, old), at + match.start(kind)))
        at += len(line)
    return found


def form_of(text, offset):
    """The weight format, by number, and compute capability whose branch a place is in; None: any."""
    stack = [(None, None)]
    for line in re.finditer(r"^#\s*(ifdef|ifndef|if|elif|else|endif)\b(.*)$", text[:offset], re.M):
        word, told = line[1], line[2]
        number = re.search(r"FORMAT == (\d)", told)
        form = (number[1], None) if number else (None, None)
        if re.search(r"E4M3|PREFETCH", told):
            form = ("4", None)
        elif "ROUNDED" in told:
            form = ("2", None)
        elif re.search(r"SM >= (89|90)|SLOTS == 2", told):
            form = (None, "90")
        if word == "endif":
            stack.pop()
        elif word == "ifndef":
            stack.append((None, None))
        elif word in ("ifdef", "if"):
            stack.append(form)
        elif word == "elif":
            stack[-1] = form
        else:  # what the other branch leaves: format.inc's last is FP8, the others' bf16
            was, sm = stack[-1]
            stack[-1] = ("4" if was == "2" else "3" if was else None, "80" if sm else None)
    return (next((form for form, _ in reversed(stack) if form), None),
            next((sm for _, sm in reversed(stack) if sm), None))


def every_site():
    return {path.name: sites(path.name, path.read_text()) for path in sorted(KERNELS.iterdir())
            if path.name not in LEFT_OUT}


def included(name):
    """The file and what it includes, however deep."""
    found, queue = set(), [name]
    while queue:
        file = queue.pop()
        if file not in found:
            found.add(file)
            queue += re.findall(r'^#include "(.+)"', (KERNELS / file).read_text(), re.M)
    return found


class Workshop:
    """The backend's objects as they were built, and its texts made again with a mutant."""

    def __init__(self, folder, build):
        self.folder, self.build = pathlib.Path(folder), build
        self.kernels = self.folder / "kernels"
        self.kernels.mkdir()
        (self.folder / "module").mkdir()
        for path in KERNELS.iterdir():
            (self.kernels / path.name).write_text(path.read_text())
        made = build / "backends/nvidia_ptx"
        self.whole_texts = {re.search(r"_\.\._(\w+)\.S", path.name)[1]: path for path in
                            (made / "moehal_nvidia.so.p").glob("*.S.o")}
        self.others = [*sorted((made / "moehal_nvidia.so.p").glob("*.c.o")),
                       *sorted((build / "backends/support").glob("*.a"))]

    def make(self, file, forms):
        """The module, with those texts new that include a file, of some formats."""
        objects = dict(self.whole_texts)
        for name in sorted(self.whole_texts):
            family, form, sm = name.rsplit("_", 2)
            if form not in forms or file not in included(family + ".ptx"):
                continue
            text = self.folder / name
            subprocess.run([sys.executable, ROOT / "backends/nvidia_ptx/preprocess.py", f"nv_{name}",
                            self.kernels / f"{family}.ptx", f"{text}.ptx", f"{text}.S", f"{text}.d", "cc",
                            "--", f"-DFORMAT={form}", f"-DSM={sm}"], check=True)
            subprocess.run(["cc", "-c", f"{text}.S", "-o", f"{text}.o"], check=True)
            objects[name] = f"{text}.o"
        subprocess.run(["cc", "-shared", *objects.values(), *self.others, "-o",
                        self.folder / "module/moehal_nvidia.so", "-ldl", "-lpthread"], check=True)

    def check(self, case, sm="90"):
        """None, or how it was noticed."""
        env = dict(os.environ, MOEHAL_BACKENDS=str(self.folder / "module"), MOEHAL_VIRTUAL_DEVICES="1",
                   MOEHAL_VIRTUAL_SM=sm,
                   MOEHAL_NVIDIA_DRIVER=str(self.build / "virtual/nvidia/libcuda.so.1"),
                   MOEHAL_VIRTUAL_TIME_LIMIT_MS="20000", MOEHAL_VIRTUAL_COUNT="off",
                   MOEHAL_VIRTUAL_CHECKS="default,global-races",
                   MOEHAL_VIRTUAL_SCHEDULE="adversarial")
        case, _, small = case.partition(" @")
        if small:
            env["MOEHAL_VIRTUAL_SMS"] = small
        command = [self.build / "tools/moehal", "check", "--device", "nvidia:0", "--filter", case]
        if case.startswith("fast/"):
            command += ["--profile", "fast"]
        try:
            done = subprocess.run(command, env=env, timeout=120, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  errors="replace")
        except subprocess.TimeoutExpired:
            return "hangs"
        if re.search(r"cuModuleLoadDataEx|no log from the driver|kernels/\w+\.ptx, format", done.stdout):
            raise LookupError(case)
        report = re.search(r"^virtual NVIDIA: ([\w-]+)", done.stdout, re.M)
        if report:
            return f"{case}: {report[1]}"
        ran = re.search(r": (\d+) cases", done.stdout)
        if done.returncode == 2 or not ran or ran[1] == "0":
            print(done.stdout)
            sys.exit(2)
        return case if done.returncode else None

    def noticed(self, mutant):
        name = pathlib.Path(mutant.file).name
        path = self.kernels / name
        text = path.read_text()
        assert text[mutant.offset:].startswith(mutant.old)
        path.write_text(text[:mutant.offset] + mutant.new + text[mutant.offset + len(mutant.old):])
        try:
            form, sm = form_of(text, mutant.offset)
            numbers = [form] if form else ["3", "4"]
            self.make(name, "01" + "".join(numbers) + ("3" if name in MIXED else ""))
            for number in numbers:
                for case in CASES[name]:
                    if number == "4" and not form and "{}" not in case:
                        continue  # tried
                    if by := self.check(case.format(FORMATS[number]), sm or "90"):
                        return by
            return None
        finally:
            path.write_text(text)

    def whole(self):
        """Every case without a mutant."""
        self.make(None, "")
        for case in sorted({case.format(form) for cases in CASES.values() for case in cases
                            for form in FORMATS.values()}):
            if by := self.check(case):
                print(f"without a mutant: {by}")
                sys.exit(2)


def sample(each, seed, equivalents):
    rng = random.Random(seed)
    chosen = []
    for name, found in every_site().items():
        pool = [m for m in found if not equivalents.hold(m)]
        rng.shuffle(pool)
        chosen.append(pool)
    return chosen, each


def picked(number):
    names = set(CAUGHT.read_text(encoding="utf-8").splitlines())
    there = [m for found in every_site().values() for m in found if m.name() in names]
    if len(there) < len(names) / 2:
        print(f"{CAUGHT}: only {len(there)} of {len(names)} are still sites: run it with --keep")
        sys.exit(1)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(KERNELS.iterdir())))
    return [[m] for m in random.Random(digest.hexdigest()).sample(there, number)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True, type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--each", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pick", type=int, default=0)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--whole", action="store_true", help="every case without a mutant, first")
    options = parser.parse_args()
    equivalents = base.Equivalents(EQUIVALENTS.read_text(encoding="utf-8"))
    if options.pick:
        pools, each = picked(options.pick), 1
    else:
        pools, each = sample(options.each, options.seed, equivalents)
        if stale := equivalents.stale():
            print(f"{EQUIVALENTS}: no site for line {', '.join(map(str, stale))}")
            sys.exit(1)
    part, parts = map(int, options.part.split("/"))
    with tempfile.TemporaryDirectory(prefix="moehal-mutants-") as folder:
        shop = Workshop(folder, options.build)
        if options.whole:
            shop.whole()
        caught, tried = base.try_pools(pools[part - 1::parts], each, shop.noticed)
    base.conclude(caught, tried, options, CAUGHT, f"PTX, part {options.part},")


if __name__ == "__main__":
    main()
