#!/usr/bin/env python3
"""Breaks the OpenCL kernels in small ways, one at a time, and sees whether conformance notices.

usage: scripts/mutants_opencl.py --moehal FILE [--each 3] [--seed 1] [--pick N] [--part I/N] [--keep]

A mutant is one operator, constant or index of kernels/*.cl changed, or one barrier removed: --each of
them for every kernel (the function itself or one that it uses), at sites sampled by seed. It is caught
if a small case of an op that uses the kernel fails, in the form of the kernels that has the site, on
oclgrind with its watch for races, or if the kernel's check against the definition does, when it is
compiled; what that lets pass meets all quick cases of the op on PoCL. tests/mutants/opencl-equivalents.txt
lists changes that change nothing, each with a proof. opencl-caught.txt, written with --keep, those
that were seen caught; --pick tries N of these again, chosen by what the sources are. --part I/N tries
a part.

Exit status: 0 at least 95 % were caught (with --pick: all); 1 fewer; 77 a tool is missing.
"""
import argparse
import hashlib
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

import mutants as base

ROOT = base.ROOT
KERNELS = ROOT / "backends/opencl/kernels"
EQUIVALENTS = ROOT / "tests/mutants/opencl-equivalents.txt"
CAUGHT = ROOT / "tests/mutants/opencl-caught.txt"
OCLGRIND = "/usr/lib/oclgrind/liboclgrind-rt.so"
INLINE = "__attribute__((always_inline))"

# The ops that show what a kernel does, as small cases; kernels of weights with bf16 (and what a format
# does its own way with each).
CASES = {
    "add": ["add/f32/T3.N129/gaps/random/plain"],
    "swiglu": ["swiglu/f32/T3.N129/gaps/wide/plain"],
    "rmsnorm": ["rmsnorm/f32/T3.D129/inplace/random/residual", "rmsnorm/f32/T2.D66/gaps/random/plain"],
    "combine": ["combine/f32/T3.J2.D70.S4.E6/inplace/random/absent",
                "combine/f32/T3.J2.D70.S4.E6/gaps/random/shared"],
    "copy": ["copy/u32/A2.B3.C5.D7/gaps/random/transposed", "copy/u32/A2.B3.C50.D7/gaps/random/rank4"],
    "cast": ["cast/f32-f16/A2.B3.C5.D70/gaps/special/rank4", "cast/bf16-f32/A2.B3.C5.D7/gaps/wide/rank2",
             "cast/f32-f16/A2.B3.C5.D70/gaps/tiny/rank2", "cast/f16-bf16/A2.B3.C5.D70/gaps/special/rank2"],
    "fill": ["fill/u32/A2.B3.C5.D70/gaps/random/rank4", "fill/bf16/A2.B3.C5.D70/gaps/random/rank2"],
    "rope": ["rope/f32/T3.H2.R6.X9/inplace/random/bad"],
    "kv_write": ["kv_write/f32/T4.L9.R4.P8.Q2.M2/gaps/random/bad",
                 "kv_write/bf16/T4.L9.R4.P8.Q2.M2/gaps/special/padding"],
    "mla_kv": ["mla_kv/f32/T4.L66.R4.P8.Q2.M2/gaps/random/bad",
               "mla_kv/bf16/T4.L66.R4.P8.Q2.M2/gaps/random/padding"],
    "attention": ["attention/f32/T2.H2.L66.R4.P16.Q2.M3/gaps/random/bad",
                  "attention/bf16/T2.H1.L66.R4.P64.Q1.M9/gaps/random/plain"],
    "router": ["router/f32/T3.E40.J4.G8.W3/gaps/ties/sigmoid-bias-groups",
               "router/f32/T3.E40.J4.G8.W3/gaps/random/softmax-groups",
               "router/f32/T3.E66.J4.G1.W1/gaps/special/softmax-norm"],
    "argmax": ["argmax/f32/T3.V70/gaps/ties/plain"],
    "sample": ["sample/f32/T3.V70/gaps/random/top-k", "sample/f32/T3.V70/gaps/ties/all",
               "sample/f32/T3.V70/gaps/wide/top-p", "sample/f32/T4.V70/gaps/special/temperature"],
    "linear": ["linear/{}/T2.O9.I130/gaps/random/plain", "linear_swiglu/{}/T2.N9.I66/gaps/random/plain"],
    "linear_many": ["linear_add/{}/T7.O9.I130/inplace/random/plain",
                    "head_linear/{}/T5.H2.B66.C5.F7/gaps/random/rows"],
    "embed": ["embed/{}/T5.D70.V9/gaps/random/bad"],
    "head_columns": ["head_linear/{}/T2.H2.B70.C66.F67/gaps/random/transposed",
                     "mla_query/{}/T2.H2.L66.N5.R4.U7.X16/gaps/random/bad"],
    "experts_linear": ["experts_gate_up/{}/T2.J2.D70.I9.S4.E6/gaps/random/map",
                       "experts_down/{}/T2.J2.D9.I70.S4.E4/gaps/random/bad"],
    "experts_down_combine": ["experts_down_combine/{}/T2.J2.D9.I70.S4.E4/inplace/random/plain",
                             "experts_down_combine/{}/T2.J2.D9.I70.S4.E6/gaps/random/absent"],
    "group_slots": ["experts_gate_up/{}/T5.J3.D70.I5.S4.E6/gaps/random/bad"],
    "experts_many": ["experts_gate_up/{}/T9.J3.D70.I5.S4.E6/gaps/random/absent",
                     "experts_down/{}/T5.J2.D9.I70.S4.E4/gaps/random/map"],
}


def sites(name, text):
    """Mutants of a file, barriers that are left out included."""
    plain = text.replace(INLINE, " " * len(INLINE))
    found = [m for m in base.sites(f"backends/opencl/kernels/{name}", plain)
             if not (m.old == "*" and re.search(r"\b(float|int|uint|uchar|ushort|ulong|histogram) $",
                                                plain[:m.offset]))]  # a pointer's
    for match in re.finditer(r"^ +(SYNC(?:_GLOBAL)?\(\));", plain, re.M):
        before = [m for m in re.finditer(r"^(?:KERNEL )?\w[\w ]*\b(\w+)\(", plain[:match.start()], re.M)]
        line = match[0].strip()
        function = before[-1][1] if before else ""
        nth = 1 + sum(m.function == function and m.line == line for m in found)
        found.append(base.Mutant(f"backends/opencl/kernels/{name}", function, line, nth, match[1],
                                 "(void)0", match.start(1)))
    return found


def forms_of(text, offset):
    """In which forms a place is compiled."""
    forms = []
    for line in re.finditer(r"^#(ifdef|else|endif|if)\b(.*)$", text[:offset], re.M):
        if line[1] in ("ifdef", "if"):
            forms.append("cpu" if "FORM_CPU" in line[2] else None)
        elif line[1] == "else" and forms[-1]:
            forms[-1] = "gpu" if forms[-1] == "cpu" else "cpu"
        elif line[1] == "endif":
            forms.pop()
    told = [form for form in forms if form]
    return told[-1:] or ["gpu", "cpu"]


def formats_of(text, offset):
    """The weight formats whose branch a place is in."""
    formats = []
    names = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
    for line in re.finditer(r"^#(ifdef|if|elif|else|endif)\b(.*)$", text[:offset], re.M):
        told = re.search(r"FORMAT == (\w+)", line[2])
        if line[1] in ("ifdef", "if"):
            formats.append(names[told[1]] if told else None)
        elif line[1] == "elif":
            formats[-1] = names[told[1]]
        elif line[1] == "else" and formats[-1]:
            formats[-1] = "fp8"
        elif line[1] == "endif":
            formats.pop()
    return next((f for f in reversed(formats) if f), "bf16")


def program_of(kernel):
    """The sources that are compiled with a kernel."""
    text = (ROOT / "backends/opencl/kernels.def").read_text()
    program = re.search(rf"^KERNEL\((\w+), {kernel}\)", text, re.M)[1]
    listed = re.search(rf"^PROGRAM\({program},(.*?)\)\n(?=KERNEL)", text, re.M | re.S)[1]
    return re.findall(r"SOURCE\((\w+)\)", listed)


def functions_behind(kernel):
    """The kernel and what it uses, in its program: {(file, function)}"""
    bodies = {}
    for name in program_of(kernel):
        text = (KERNELS / f"{name}.cl").read_text().replace(INLINE, " " * len(INLINE))
        for m in re.finditer(r"^(?:KERNEL )?\w[\w ]*\b(\w+)\([^;{]*?\)\s*\{(.*?)^\}", text, re.M | re.S):
            bodies.setdefault(m[1], []).append((name, m[2]))
    reached, queue = set(), [kernel]
    while queue:
        function = queue.pop()
        for name, body in bodies.get(function, []):
            if (name, function) not in reached:
                reached.add((name, function))
                queue += [other for other in bodies if re.search(rf"\b{other}\b", body)]
    return reached


def every_site():
    """{mutant: kernel}, each with the first kernel that uses it."""
    all_sites = {path.stem: sites(path.name, path.read_text()) for path in sorted(KERNELS.glob("*.cl"))}
    found = {}
    for kernel in CASES:
        behind = functions_behind(kernel)
        for name, _ in sorted(behind):
            for mutant in all_sites[name]:
                if (name, mutant.function) in behind:
                    found.setdefault(mutant, []).append(kernel)
    return found


class Workshop:
    def __init__(self, folder, moehal):
        self.folder, self.moehal = pathlib.Path(folder), moehal
        opencl, support = ROOT / "backends/opencl", ROOT / "backends/support"
        with open(self.folder / "probe_cases.h", "w", encoding="utf-8") as file:
            subprocess.run([sys.executable, opencl / "probe_cases.py"], check=True, stdout=file)
        self.objects = []
        for path in [*sorted(opencl.glob("*.c")), *sorted(support.glob("*.c"))]:
            to = self.folder / f"{path.stem}.o"
            subprocess.run(["cc", "-std=gnu11", "-O1", "-D_GNU_SOURCE", "-ffp-contract=off", "-fPIC",
                            "-fvisibility=hidden", f"-I{ROOT}/hal/include", f"-I{support}",
                            f"-I{opencl}", f"-I{self.folder}", "-c", path, "-o", to], check=True)
            self.objects.append(to)
        (self.folder / "module").mkdir()

    def build(self, mutant):
        kernels = []
        for path in sorted(KERNELS.glob("*.cl")):
            text = path.read_text()
            if mutant and mutant.file.endswith("/" + path.name):
                assert text[mutant.offset:].startswith(mutant.old)
                text = text[:mutant.offset] + mutant.new + text[mutant.offset + len(mutant.old):]
            changed = self.folder / path.name
            changed.write_text(text)
            kernels.append(f"opencl_source_{path.stem}={changed}")
        with open(self.folder / "kernels.c", "w", encoding="utf-8") as file:
            subprocess.run([sys.executable, ROOT / "backends/support/embed.py", *kernels], check=True,
                           stdout=file)
        subprocess.run(["cc", "-shared", "-fPIC", "-O0", self.folder / "kernels.c", *self.objects, "-o",
                        self.folder / "module/moehal_opencl.so", "-ldl", "-lpthread"], check=True)

    def check(self, case, form, oclgrind):
        """None, or how it was noticed."""
        log = self.folder / "log"
        log.write_text("")
        env = dict(os.environ, MOEHAL_BACKENDS=str(self.folder / "module"), MOEHAL_OPENCL_FORM=form,
                   MOEHAL_CACHE="off")
        command = [self.moehal, "check", "--device", "opencl:0", "--filter", case]
        if oclgrind:
            env["MOEHAL_OPENCL"] = OCLGRIND
            command = ["oclgrind", "--data-races", "--log", str(log), *command]
        else:
            command.append("--quick")
        try:
            done = subprocess.run(command, env=env, timeout=40, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  errors="replace")
        except subprocess.TimeoutExpired:
            return "hangs"
        where = "oclgrind" if oclgrind else "PoCL"
        if re.search("does not (compile|build)", done.stdout):
            raise LookupError(case)
        if log.read_text().strip():
            return f"{where}: {log.read_text().strip().splitlines()[0]}"
        return f"{where}: {case}" if done.returncode else None

    def noticed(self, mutant, kernels):
        text = (ROOT / mutant.file).read_text()
        self.build(mutant)
        for kernel in kernels[:3]:
            for form in forms_of(text, mutant.offset):
                for case in CASES[kernel]:
                    by = self.check(case.format(formats_of(text, mutant.offset)), form, True)
                    if by:
                        return f"{form}, {by}"
        op = CASES[kernels[0]][0].split("/")[0]
        by = self.check(f"{op}/*", forms_of(text, mutant.offset)[0], False)
        return by


def sample(each, seed, equivalents):
    rng = random.Random(seed)
    found = every_site()
    chosen = {}
    for kernel in CASES:
        pool = [m for m, users in found.items() if kernel in users and m not in chosen
                and not equivalents.hold(m)]
        rng.shuffle(pool)
        own = [m for m in pool if m.function == kernel or found[m] == [kernel]]
        for mutant in (own + [m for m in pool if m not in own])[:each]:
            chosen[mutant] = [kernel] + [k for k in found[mutant] if k != kernel]
    for mutant in found:
        equivalents.hold(mutant)  # for stale entries
    return chosen


def picked(number):
    names = set(CAUGHT.read_text(encoding="utf-8").splitlines())
    there = {m: users for m, users in every_site().items() if m.name() in names}
    if len(there) < len(names) / 2:
        print(f"{CAUGHT}: only {len(there)} of {len(names)} are still sites: run it with --keep")
        sys.exit(1)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(KERNELS.glob("*.cl"))))
    return {m: there[m] for m in random.Random(digest.hexdigest()).sample(list(there), number)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--moehal", required=True)
    parser.add_argument("--each", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pick", type=int, default=0)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    for tool in ("cc", "oclgrind"):
        if not shutil.which(tool):
            print(f"SKIP: {tool} is not installed")
            sys.exit(77)
    equivalents = base.Equivalents(EQUIVALENTS.read_text(encoding="utf-8"))
    chosen = picked(options.pick) if options.pick else sample(options.each, options.seed, equivalents)
    if not options.pick and (stale := equivalents.stale()):
        print(f"{EQUIVALENTS}: no site for line {', '.join(map(str, stale))}")
        sys.exit(1)
    part, parts = map(int, options.part.split("/"))
    todo = list(chosen.items())[part - 1::parts]
    caught, invalid = [], 0
    with tempfile.TemporaryDirectory(prefix="moehal-mutants-") as folder:
        shop = Workshop(folder, os.path.abspath(options.moehal))
        shop.build(None)
        for mutant, kernels in todo:
            try:
                by = shop.noticed(mutant, kernels)
            except LookupError:
                print(f"no program {mutant.name()}", flush=True)
                invalid += 1
                continue
            print(f"{'caught  ' if by else 'SURVIVES'} {mutant.name()}{': ' + by if by else ''}", flush=True)
            if by:
                caught.append(mutant.name())
    if options.keep:
        old = set(CAUGHT.read_text(encoding="utf-8").splitlines()) if CAUGHT.exists() else set()
        CAUGHT.write_text("".join(f"{name}\n" for name in sorted(old | set(caught))), encoding="utf-8")
    tried = len(todo) - invalid
    print(f"{len(caught)} of {tried} mutants of kernels caught, {len(CASES)} kernels, "
          f"seed {options.seed}, part {options.part}")
    sys.exit(0 if len(caught) >= (tried if options.pick else 0.95 * tried) else 1)


if __name__ == "__main__":
    main()
