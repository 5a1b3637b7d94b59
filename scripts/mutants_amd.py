#!/usr/bin/env python3
"""Breaks the HIP kernels of the AMD backend in small ways, one at a time, and sees whether conformance
notices on the virtual MI300X.

usage: scripts/mutants_amd.py --build BUILD [--each 9] [--seed 1] [--pick N] [--part I/N] [--keep]
                              [--results FILE]

A mutant is one operator, constant or index of kernels/*.hip and *.hiph changed, or one barrier removed:
--each of them for every file, at sites sampled by seed. It is caught if a small case of an op that uses the
file fails, or if the virtual GPU's checks (bounds, uninitialised reads, races, barriers, waits) report
something. One that does not compile, or that clang makes the same code of, is none. Only the file
that is changed is compiled, at -O1; of a header, one that includes it and comes out otherwise.
tests/mutants/amd-equivalents.txt lists changes that change nothing, each with a proof. amd-caught.txt,
written with --keep, those that were seen caught; --pick tries N of these again, chosen by what the sources
are. --part I/N tries a part; --results FILE keeps what came out, and tries only what survived again.

Exit status: 0 at least 95 % were caught (with --pick: all); 1 fewer; 2 a case fails without a mutant; 77 no
clang.
"""
import argparse
import hashlib
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

import mutants as base

ROOT = base.ROOT
BACKEND = ROOT / "backends/amd_hip"
KERNELS = BACKEND / "kernels"
EQUIVALENTS = ROOT / "tests/mutants/amd-equivalents.txt"
CAUGHT = ROOT / "tests/mutants/amd-caught.txt"
CLANG = "clang-19"
LEFT_OUT = {"dispatch", "exchange"}  # of several GPUs, which conformance does not use
FLAGS = ["-x", "hip", "--offload-arch=gfx942", "--cuda-device-only", "--no-gpu-bundle-output", "-nogpulib",
         "-nogpuinc", "-std=c++17", "-O1", "-ffp-contract=off", "-fuse-cuid=none"]

# The cases that show what a file does, those soonest compiled first. {} is each weight format; @1: on a GPU
# of one compute unit, where work is spread otherwise.
CASES = {
    "move": ["copy/u32/A2.B3.C5.D7/gaps/random/transposed", "copy/u32/A2.B3.C50.D7/gaps/random/rank4",
             "copy/u32/A9.B7.C3.D7/gaps/random/rank4", "copy/u32/A2.B4.C16.D16/gaps/random/rank4",
             "cast/f32-f16/A2.B3.C5.D70/gaps/special/rank4", "cast/bf16-f32/A2.B3.C5.D7/gaps/wide/rank2",
             "cast/f32-bf16/A2.B3.C5.D70/gaps/special/rank4",
             "cast/f16-bf16/A2.B3.C5.D70/gaps/special/rank2", "fill/bf16/A2.B3.C5.D70/gaps/random/rank2",
             "fill/u32/A2.B3.C5.D70/gaps/random/rank4"],
    "rows": ["rmsnorm/f32/T3.D129/inplace/random/residual", "rmsnorm/f32/T2.D1100/gaps/random/plain",
             "rmsnorm/f32/T2.D600/inplace/random/residual",
             "add/f32/T3.N129/gaps/random/plain", "swiglu/f32/T3.N129/gaps/wide/plain",
             "swiglu/f32/T3.N129/gaps/special/plain", "embed/{}/T5.D70.V9/gaps/random/bad",
             "embed/fp8/T9.D170.V600/gaps/random/plain", "embed/bf16/T3.D1100.V9/gaps/random/bad",
             "add/f32/T2.N600/inplace/random/plain", "add/f32/T65600.N1/inplace/random/plain",
             "swiglu/f32/T60.N900/dense/random/plain"],
    "attention_mma": ["fast/attention", "fast/attention @1"],
    "gemm": ["fast/products {}", "fast/fused {}", "fast/fp8*"],
    "sample": ["argmax/f32/T3.V70/gaps/ties/plain", "argmax/f32/T2.V1500/gaps/random/plain",
               "sample/f32/T3.V70/gaps/random/top-k", "sample/f32/T3.V70/gaps/ties/all",
               "sample/f32/T3.V1500/gaps/wide/top-p", "sample/f32/T4.V70/gaps/special/temperature",
               "sample/f32/T3.V2500/gaps/ties/top-k", "sample/f32/T60.V300/gaps/random/top-p",
               "sample/f32/T60.V300/gaps/ties/top-p", "sample/f32/T60.V40/dense/ties/temperature"],
    "router": ["router/f32/T3.E40.J4.G8.W3/gaps/ties/sigmoid-bias-groups",
               "router/f32/T3.E40.J4.G8.W3/gaps/random/softmax-groups",
               "router/f32/T3.E66.J4.G1.W1/gaps/special/softmax-norm",
               "router/f32/T3.E67.J4.G1.W1/gaps/random/softmax-norm",
               "router/f32/T3.E9.J2.G9.W3/gaps/random/sigmoid-bias-groups",
               "router/f32/T60.E160.J6.G40.W3/gaps/random/softmax-groups",
               "router/f32/T9.E40.J4.G8.W3/gaps/wide/sigmoid-bias-groups",
               "router/f32/T9.E40.J4.G8.W3/gaps/wide/sigmoid-norm",
               "norm_router/{}/T9.E40.I520.J4.G8.W3/gaps/random/sigmoid-bias-groups",
               "norm_router/{}/T3.E40.I520.J4.G8.W3/gaps/random/sigmoid-bias-groups",
               "norm_router/bf16/T2.E70.I66.J4.G1.W1/gaps/random/softmax"],
    "mla": ["rope/f32/T3.H2.R6.X9/inplace/random/bad", "rope/f32/T3.H40.R8.X9/gaps/random/plain",
            "kv_write/f32/T30.L9.R4.P1.Q2.M40/gaps/random/bad",
            "kv_write/f32/T9.L200.R4.P8.Q2.M2/gaps/random/bad",
            "kv_write/f32/T30.L9.R4.P1.Q2.M40/dense/random/bad",
            "kv_write/bf16/T4.L9.R4.P8.Q2.M2/gaps/special/padding",
            "mla_kv/f32/T4.L66.R4.P8.Q2.M2/gaps/random/bad",
            "mla_kv/bf16/T4.L66.R4.P8.Q2.M2/gaps/random/padding",
            "head_linear/{}/T2.H2.B70.C66.F67/gaps/random/transposed",
            "head_linear/{}/T3.H2.B72.C128.F150/gaps/random/transposed",
            "mla_query/{}/T2.H2.L66.N5.R4.U7.X16/gaps/random/bad",
            "mla_query/bf16/T3.H2.L66.N5.R4.U7.X16/gaps/random/plain",
            "mla_qkv/{}-bf16/T2.H2.L66.R4.P8.Q2.M2.N5.U7/gaps/random/bad",
            "mla_qkv/bf16-bf16/T3.H2.L66.R4.P8.Q2.M2.N5.U7/gaps/random/plain",
            "mla_qkv/{}-bf16/T1.H1.L128.R8.P64.Q1.M9.N128.U128/gaps/random/plain"],
    "linear": ["linear/{}/T2.O9.I130/gaps/random/plain", "linear_swiglu/{}/T1.N9.I1000/gaps/random/plain",
               "linear/{}/T2.O9.I488/gaps/random/plain", "linear/{}/T4.O9.I488/gaps/random/plain",
               "linear_add/{}/T7.O9.I584/inplace/random/plain", "linear/{}/T1.O130.I264/dense/wide/plain",
               "linear/{}/T2.O200.I136/dense/special/plain",
               "head_linear/{}/T5.H2.B66.C5.F7/gaps/random/rows",
               "norm_linear/{}/T2.O9.U7.I130/gaps/random/pair",
               "norm_linear/{}/T7.O9.U1.I72/gaps/random/plain",
               "norm_linear/bf16/T2.O9.U7.I129/gaps/random/pair",
               "norm_linear/bf16/T2.O90.U7.I600/gaps/random/pair @1",
               "norm_linear/bf16/T2.O9.U7.I128/gaps/random/pair"],
    "attention": ["attention_part/bf16/T5.H3.L66.R4.P16.Q2.M40.S2.F2.N2/gaps/random/bad",
                  "attention_merge/f32/T9.H2.L66.S3.N2/gaps/random/bad",
                  "attention/f32/T2.H2.L66.R4.P16.Q2.M3/gaps/random/bad",
                  "attention/f32/T2.H2.L66.R4.P16.Q2.M3/gaps/tiny/plain",
                  "attention/bf16/T2.H1.L64.R8.P64.Q1.M9/gaps/random/plain",
                  "attention/bf16/T1.H5.L520.R8.P64.Q1.M2/gaps/random/plain",
                  "attention/bf16/T1.H9.L64.R8.P64.Q1.M9/dense/random/plain @1",
                  "attention/f32/T1.H4.L64.R8.P64.Q1.M9/dense/random/plain @1",
                  "attention/bf16/T1.H4.L64.R8.P64.Q1.M9/gaps/random/plain @1",
                  "attention/bf16/T9.H1.L16.R8.P64.Q9.M600/gaps/random/plain",
                  "attention/bf16/T12.H1.L64.R8.P1.Q1.M700/gaps/random/bad"],
    "experts": ["experts_gate_up/{}/T9.J3.D72.I5.S4.E6/gaps/random/map",
                "experts_gate_up/{}/T24.J3.D70.I5.S4.E6/dense/random/bad",
                "experts_gate_up/{}/T3.J2.D72.I9.S4.E6/gaps/random/map",
                "experts_gate_up/bf16/T21.J3.D70.I5.S4.E6/dense/random/bad",
                "experts_gate_up/bf16/T110.J2.D16.I5.S2.E2/dense/random/plain",
                "experts_down/{}/T1.J2.D9.I130.S4.E4/gaps/random/absent",
                "moe_gate_up/{}/T3.J2.D136.I9.N17.S3.E4/gaps/random/absent",
                "experts_down_combine/{}/T1.J18.D9.I16.S20.E20/gaps/random/plain",
                "experts_down_combine/{}/T2.J2.D9.I70.S4.E4/inplace/random/plain",
                "experts_down_combine/{}/T2.J2.D9.I70.S4.E6/gaps/random/absent",
                "moe_down_combine/{}/T16.J2.D9.I136.N72.S4.E6/gaps/random/bad",
                "combine/f32/T3.J2.D70.S4.E6/inplace/random/absent",
                "combine/f32/T3.J2.D70.S4.E6/gaps/random/shared",
                "combine/f32/T12.J3.D70.S4.E6/dense/random/bad",
                "combine/f32/T3.J2.D600.S4.E6/gaps/random/shared"],
}


def sites(name, text):
    """Mutants of a file, barriers that are left out included."""
    # KERNEL(256) name(: the function is what follows. Of equal length: offsets hold.
    plain = re.sub(r"\b(KERNEL|aligned)\((\w+)\)", lambda m: " " * len(m[0]), text)
    found = []
    for m in base.sites(f"backends/amd_hip/kernels/{name}", plain):
        around = plain[m.offset - 1], plain[m.offset + len(m.old)]
        # What clang-format puts no space around: brackets of templates, declarators of pointers.
        if (m.old in ("<", ">", "*", "&", "&&") and around[1] not in " \n") or (
                m.old in "<>" and around[0] != " "):
            continue
        if re.match(r"\s*(template|enum)\b", m.line) or around == ("<", ">"):
            continue
        found.append(m)
    for match in re.finditer(r"^ +((?:barrier|wave_sync)\(\));", plain, re.M):
        function = re.findall(r"^[\w <>*,&]*?\b(\w+)\([^;{]*\)\s*\{", plain[:match.start()], re.M)[-1]
        nth = 1 + sum(m.function == function and m.line == match[0].strip() for m in found)
        found.append(base.Mutant(f"backends/amd_hip/kernels/{name}", function, match[0].strip(), nth,
                                 match[1], "(void)0", match.start(1)))
    return found


def every_site():
    return {path.name: sites(path.name, path.read_text()) for path in sorted(KERNELS.iterdir())
            if path.suffix in (".hip", ".hiph")}


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
    """The backend's objects as they were built, and one file of kernels made again with a mutant."""

    def __init__(self, folder, build):
        self.folder, self.build = pathlib.Path(folder), build
        self.kernels = self.folder / "kernels"
        shutil.copytree(KERNELS, self.kernels)
        (self.folder / "module").mkdir()
        self.objects = [*sorted((build / "backends/amd_hip/moehal_amd.so.p").glob("*.o")),
                        *sorted((build / "backends/support").glob("*.a"))]
        self.plain = {}  # code objects without a mutant; None: not compared with

    def compiled(self, file):
        to = self.folder / f"{file}.co"
        done = subprocess.run([CLANG, *FLAGS, self.kernels / f"{file}.hip", "-o", to], check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise LookupError(done.stdout)
        return to.read_bytes()

    def link(self, *files):
        others, sources = self.objects, []
        for file in files:
            sources.append(self.folder / f"{file}.c")
            with open(sources[-1], "w", encoding="utf-8") as out:
                subprocess.run([sys.executable, ROOT / "backends/support/embed.py",
                                f"amd_code_{file}={self.folder / file}.co"], check=True, stdout=out)
            left = [path for path in others if not path.name.endswith(f"_{file}.co.c.o")
                    and path.name != f"meson-generated_.._{file}.co.c.o"]
            assert len(left) == len(others) - 1
            others = left
        subprocess.run(["cc", "-shared", "-fPIC", "-O0", *sources, *others, "-o",
                        self.folder / "module/moehal_amd.so", "-ldl", "-lpthread"], check=True)

    def check(self, case):
        """None, or how it was noticed."""
        case, _, units = case.partition(" @")
        env = dict(os.environ, MOEHAL_BACKENDS=str(self.folder / "module"), MOEHAL_VIRTUAL_DEVICES="1",
                   MOEHAL_AMD_RUNTIME=str(self.build / "virtual/amd/libamdhip64.so.5"),
                   MOEHAL_VIRTUAL_COUNT="off",
                   MOEHAL_VIRTUAL_SCHEDULE="adversarial",
                   # Not those of registers: that -O1 writes some by an index is not seen.
                   MOEHAL_VIRTUAL_CHECKS="bounds,uninitialised,lds-races,barriers,waits",
                   **({"MOEHAL_VIRTUAL_CUS": units} if units else {}))
        command = [self.build / "tools/moehal", "check", "--device", "amd:0", "--filter", case]
        if case.startswith("fast/"):
            command += ["--profile", "fast"]
        # Of the processor's time: the machine may be stopped meanwhile.
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (60, 65)))
        if done.returncode == -signal.SIGXCPU:
            return "hangs"
        if report := re.search(r"^virtual AMD: ([\w-]+)", done.stdout, re.M):
            return f"{case}: {report[1]}"
        ran = re.search(r": (\d+) cases", done.stdout)
        if done.returncode == 2 or not ran or ran[1] == "0":
            print(done.stdout)
            sys.exit(2)
        return case if done.returncode else None

    def cases(self, file):
        for case in CASES[file]:
            for form in ("bf16", "fp8", "f32", "f16") if "{}" in case else ("",):
                yield case.format(form)

    def try_file(self, file):
        """None, or how a case noticed what is in its sources now."""
        self.link(file)
        return next((by for case in self.cases(file) if (by := self.check(case))), None)

    def noticed(self, mutant):
        """By what; LookupError: it is no other program."""
        name = pathlib.Path(mutant.file).name
        users = [file for file in CASES if name in included(f"{file}.hip")]
        path = self.kernels / name
        text = path.read_text()
        assert text[mutant.offset:].startswith(mutant.old)
        changed = text[:mutant.offset] + mutant.new + text[mutant.offset + len(mutant.old):]
        other = False
        for file in users:
            if self.plain is not None and file not in self.plain:
                self.plain[file] = self.compiled(file)
            path.write_text(changed)
            try:
                if self.compiled(file) == (self.plain or {}).get(file):
                    continue
            finally:
                path.write_text(text)
            other = True
            if by := self.try_file(file):
                return by
        if not other:
            raise LookupError("the same code")
        return None

    def whole(self):
        """Every case without a mutant."""
        for file in CASES:
            self.compiled(file)
            if by := self.try_file(file):
                print(f"without a mutant: {by}")
                sys.exit(2)


def sample(seed, equivalents):
    """For each file its mutants in the order of trying. A mutant's place is its own: it does not change
    when others come or go."""
    def place(mutant):
        return hashlib.sha256(f"{seed} {mutant.name()}".encode()).digest()

    return [sorted((m for m in found if not equivalents.hold(m)), key=place)
            for found in every_site().values()]


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
    parser.add_argument("--each", type=int, default=9)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pick", type=int, default=0)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--whole", action="store_true", help="every case without a mutant, first")
    options = parser.parse_args()
    if not shutil.which(CLANG):
        print(f"SKIP: {CLANG} is not installed")
        sys.exit(77)
    equivalents = base.Equivalents(EQUIVALENTS.read_text(encoding="utf-8"))
    if options.pick:
        pools = picked(options.pick)
    else:
        pools = sample(options.seed, equivalents)
        if stale := equivalents.stale():
            print(f"{EQUIVALENTS}: no site for line {', '.join(map(str, stale))}")
            sys.exit(1)
    part, parts = map(int, options.part.split("/"))
    with tempfile.TemporaryDirectory(prefix="moehal-mutants-") as folder:
        shop = Workshop(folder, options.build)
        if options.whole:
            shop.whole()
        if options.pick:  # these were seen caught: they are other programs
            shop.plain = None
        caught, tried = base.try_pools(pools[part - 1::parts], 1 if options.pick else options.each,
                                       shop.noticed, options.results)
    base.conclude(caught, tried, options, CAUGHT, f"HIP kernels, part {options.part},")


if __name__ == "__main__":
    main()
