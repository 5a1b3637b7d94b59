#!/usr/bin/env python3
"""Breaks the OpenCL kernels in small ways, one at a time, and sees whether conformance notices.

usage: scripts/mutants_opencl.py --moehal FILE [--each 4] [--seed 1] [--pick N] [--again FILE]
                                 [--results FILE] [--minutes M] [--keep]

A mutant is one operator, constant or index of kernels/*.cl changed, or one barrier removed: --each of
them for every kernel (the function itself or one that it uses), at sites sampled by seed. It is caught
if a quick conformance case on PoCL fails, of an op that uses the kernel and in a form of the kernels
that has the site; what that lets pass, and barriers, meet small cases on oclgrind with its watch for
races. The backend's own check of fresh kernels is left out: conformance must do without it.
For reciprocals and roots made of integers the device's own are said to be wrong, for what only a device
that is not exact has (UNFIT) that it is not: bits are the same. tests/mutants/
opencl-equivalents.txt lists changes that change nothing, each with a proof.
opencl-caught.txt, written with --keep, those that were seen caught quickly; --pick tries N of these again,
chosen by what the sources are. --results FILE keeps what was found and goes on from there; --minutes
ends in between; --again FILE tries what survived in such a file.

Exit status: 0 at least 95 % were caught (with --pick or --again: all); 1 fewer; 2 --minutes ended it; 77 a tool is
missing.
"""
import argparse
import hashlib
import json
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
import time

import mutants as base

ROOT = base.ROOT
KERNELS = ROOT / "backends/opencl/kernels"
EQUIVALENTS = ROOT / "tests/mutants/opencl-equivalents.txt"
CAUGHT = ROOT / "tests/mutants/opencl-caught.txt"
OCLGRIND = "/usr/lib/oclgrind/liboclgrind-rt.so"
QUICK = 12  # seconds that a mutant of opencl-caught.txt may take
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
    "attention": ["attention_part/bf16/T5.H3.L66.R4.P16.Q2.M40.S2.F2.N2/gaps/random/bad",
                  "attention_merge/f32/T3.H2.L66.S3.N2/gaps/random/bad",
                  "attention/f32/T3.H2.L66.R4.P16.Q2.M40/gaps/random/bad",
                  "attention/f32/T3.H2.L66.R4.P16.Q2.M40/gaps/random/padding",
                  "attention/bf16/T2.H1.L66.R4.P64.Q1.M9/gaps/random/plain",
                  "attention/f32/T1.H2.L200.R64.P16.Q1.M20/dense/random/plain",
                  "attention/bf16/T1.H2.L520.R64.P16.Q1.M20/dense/random/plain"],
    "router": ["router/f32/T3.E40.J4.G8.W3/gaps/ties/sigmoid-bias-groups",
               "router/f32/T3.E40.J4.G8.W3/gaps/random/softmax-groups",
               "router/f32/T3.E66.J4.G1.W1/gaps/special/softmax-norm"],
    "best": ["argmax/f32/T3.V70/gaps/ties/plain", "sample/f32/T3.V70/gaps/random/top-k"],
    "argmax": ["argmax/f32/T3.V70/gaps/ties/plain"],
    "sample_weights": ["sample/f32/T3.V70/gaps/ties/all", "sample/f32/T4.V70/gaps/special/temperature"],
    "sample": ["sample/f32/T3.V70/gaps/random/top-k", "sample/f32/T3.V70/gaps/ties/all",
               "sample/f32/T3.V70/gaps/wide/top-p", "sample/f32/T2.V1100/gaps/random/all"],
    "linear": ["linear/{}/T2.O9.I130/gaps/random/plain", "linear_swiglu/{}/T2.N9.I66/gaps/random/plain",
               "head_linear/{}/T2.H2.B66.C5.F7/gaps/random/rows", "linear_add/{}/T2.O9.I66/gaps/random/plain",
               "norm_linear/{}/T2.O64.U5.I66/gaps/random/pair", "linear/{}/T2.O9.I714/dense/random/plain"],
    "embed": ["embed/{}/T5.D70.V9/gaps/random/bad"],
    "head_columns": ["head_linear/{}/T2.H2.B70.C66.F67/gaps/random/transposed",
                     "mla_query/{}/T2.H2.L66.N5.R4.U7.X16/gaps/random/bad",
                     "head_linear/{}/T1.H2.B80.C66.F67/dense/random/transposed"],
    "experts_linear": ["experts_gate_up/{}/T2.J2.D70.I9.S4.E6/gaps/random/map",
                       "experts_down/{}/T2.J2.D9.I70.S4.E4/gaps/random/bad",
                       "moe_gate_up/{}/T2.J2.D70.I9.N70.S4.E4/gaps/random/plain"],
    "experts_down_combine": ["experts_down_combine/{}/T2.J2.D9.I70.S4.E4/dense/random/plain",
                             "experts_down_combine/{}/T2.J2.D9.I70.S4.E6/gaps/random/absent",
                             "moe_down_combine/{}/T2.J2.D9.I70.N66.S4.E4/gaps/random/plain",
                             "moe_down_combine/{}/T1.J8.D9.I72.N72.S9.E9/dense/random/plain"],
    "group_slots": ["experts_gate_up/{}/T5.J3.D70.I5.S4.E6/gaps/random/bad",
                    "experts_gate_up/{}/T5.J3.D70.I5.S4.E6/gaps/random/map"],
    "order": ["linear/{}/T7.O9.I130/gaps/random/plain", "experts_down/{}/T5.J2.D9.I70.S4.E4/gaps/random/map"],
    "many": ["linear_add/{}/T7.O9.I130/inplace/random/plain",
             "head_linear/{}/T5.H2.B66.C5.F7/gaps/random/rows",
             "mla_query/{}/T5.H2.L66.N5.R4.U7.X16/gaps/random/bad",
             "experts_gate_up/{}/T9.J3.D70.I5.S4.E6/gaps/random/absent",
             "experts_down/{}/T5.J2.D9.I70.S4.E4/gaps/random/map"],
}


def sites(name, text):
    """Mutants of a file, barriers that are left out included."""
    plain = text.replace(INLINE, "_" * len(INLINE))
    found = [m for m in base.sites(f"backends/opencl/kernels/{name}", plain)
             if not (m.old == "*" and re.search(r"\b(float|int|uint|uchar|ushort|ulong|histogram) $",
                                                plain[:m.offset]))  # a pointer's
             and not re.search(r"FETCH|ahead|PAGE|here\[", m.line)]  # a prefetch changes no result
    for match in re.finditer(r"^ +(SYNC(?:_GLOBAL)?\(\));", plain, re.M):
        names = re.findall(r"^(?:KERNEL )?\w[\w ]*\b(\w+)\(", plain[:match.start()], re.M)
        if plain[match.end():].split("\n", 1)[0].endswith("\\"):  # a macro's: who uses it first
            macro = re.findall(r"^#define (\w+)", plain[:match.start()], re.M)[-1]
            user = re.search(rf"^    {macro}\(", plain[match.end():], re.M)
            names = re.findall(r"^\w[\w ]*\b(\w+)\(", plain[:match.end() + user.start()], re.M)
        line = match[0].strip()
        function = names[-1] if names else ""
        nth = 1 + sum(m.function == function and m.line == line for m in found)
        found.append(base.Mutant(f"backends/opencl/kernels/{name}", function, line, nth, match[1],
                                 "(void)0", match.start(1)))
    return found


def forms_of(text, offset):
    """In which forms a place is compiled."""
    forms = []
    for line in re.finditer(r"^#(ifdef|ifndef|else|endif|if)\b(.*)$", text[:offset], re.M):
        if line[1] in ("ifdef", "ifndef", "if"):
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
    names = {"F32": "f32", "F16": "f16", "BF16": "bf16", "FP8": "fp8"}
    for line in re.finditer(r"^#(ifdef|ifndef|if|elif|else|endif)\b(.*)$", text[:offset], re.M):
        told = re.search(r"FORMAT == (\w+)", line[2])
        if line[1] in ("ifdef", "ifndef", "if"):
            formats.append(names[told[1]] if told else None)
        elif line[1] == "elif":
            formats[-1] = names[told[1]]
        elif line[1] == "else" and formats[-1]:
            formats[-1] = "bf16" if formats[-1] == "fp8" else "fp8"
        elif line[1] == "endif":
            formats.pop()
    line = text[text.rfind("\n", 0, offset) + 1:text.find("\n", offset)]
    return next((f for f in reversed(formats) if f), "fp8" if "scale" in line else "bf16")


def program_of(kernel):
    """The sources that are compiled with a kernel."""
    text = (ROOT / "backends/opencl/kernels.def").read_text()
    program = re.search(rf"^KERNEL\((\w+), {kernel}\)", text, re.M)[1]
    listed = re.search(rf"^PROGRAM\({program},(.*?)\)\n(?=KERNEL)", text, re.M | re.S)[1]
    return re.findall(r"SOURCE\((\w+)\)", listed)


def functions_behind(kernel):
    """The kernel and what it calls, by way of macros too, in its program, in either form: {(file, function)}."""
    bodies = {}
    for name in program_of(kernel):
        text = (KERNELS / f"{name}.cl").read_text().replace(INLINE, "_" * len(INLINE))
        for m in re.finditer(r"^(?:KERNEL )?\w[\w ]*\b(\w+)\([^;{]*?\)\s*\{(.*?)^\}"
                             r"|^#define (\w+)\(((?:[^\n]*\\\n)*[^\n]*)", text, re.M | re.S):
            bodies.setdefault(m[1] or m[3], []).append((name, m[2] or m[4]))
    reached, queue = {kernel}, [kernel]
    for function in queue:
        for _, body in bodies.get(function, []):
            called = {other for other in bodies if re.search(rf"\b{other}\(", body)} - reached
            reached |= called
            queue += sorted(called)
    return {(name, function) for function in reached for name, _ in bodies.get(function, [])}


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


# In the place of selfcheck.c.
NO_SELF_CHECK = """#include "opencl.h"
mh_status opencl_check_kernel(struct device *d, enum kernel_id k, mh_format f, char reason[BROKEN])
{
    (void)d, (void)k, (void)f;
    reason[0] = 0;
    return MH_OK;
}
"""


def limit_processor():
    """What takes longer hangs; the processor's seconds, since others may use the machine too."""
    resource.setrlimit(resource.RLIMIT_CPU, (30, 60))


class Workshop:
    def __init__(self, folder, moehal):
        self.folder, self.moehal = pathlib.Path(folder), moehal
        opencl, support = ROOT / "backends/opencl", ROOT / "backends/support"
        with open(self.folder / "probe_cases.h", "w", encoding="utf-8") as file:
            subprocess.run([sys.executable, opencl / "probe_cases.py"], check=True, stdout=file)
        (self.folder / "selfcheck.c").write_text(NO_SELF_CHECK)
        self.objects = []
        paths = [path for path in opencl.glob("*.c") if path.name != "selfcheck.c"]
        for path in [self.folder / "selfcheck.c", *sorted(paths), *sorted(support.glob("*.c"))]:
            to = self.folder / f"{path.stem}.o"
            subprocess.run(["cc", "-std=gnu11", "-O1", "-D_GNU_SOURCE", "-ffp-contract=off", "-fPIC",
                            "-fvisibility=hidden", f"-I{ROOT}/hal/include", f"-I{support}",
                            f"-I{opencl}", f"-I{self.folder}", "-c", path, "-o", to], check=True)
            self.objects.append(to)
        for name in ("module", "pocl"):
            (self.folder / name).mkdir()

    def build(self, mutant):
        kernels = []
        for path in sorted(KERNELS.glob("*.cl")):
            text = path.read_text()
            if mutant and mutant.file.endswith("/" + path.name):
                assert text[mutant.offset:].startswith(mutant.old)
                unfit = re.search(r"#ifdef UNFIT\n((?!#else).)*\Z", text[:mutant.offset], re.S)
                text = text[:mutant.offset] + mutant.new + text[mutant.offset + len(mutant.old):]
                text = "#define UNFIT\n" * bool(unfit) + text
            if mutant and mutant.function.startswith("soft_") and path.name == "probe.cl":
                text = text.replace("1.0f / a", "a").replace("sqrt(a);", "a;", 1)
            changed = self.folder / path.name
            changed.write_text(text)
            kernels.append(f"opencl_source_{path.stem}={changed}")
        with open(self.folder / "kernels.c", "w", encoding="utf-8") as file:
            subprocess.run([sys.executable, ROOT / "backends/support/embed.py", *kernels], check=True,
                           stdout=file)
        subprocess.run(["cc", "-shared", "-fPIC", "-O0", self.folder / "kernels.c", *self.objects, "-o",
                        self.folder / "module/moehal_opencl.so", "-ldl", "-lpthread"], check=True)

    def run(self, command, form, **more):
        """Exit status and words; the status is None if it hangs."""
        # What is not broken, the probe, comes from the driver's own cache.
        env = dict(os.environ, MOEHAL_BACKENDS=str(self.folder / "module"), MOEHAL_OPENCL_FORM=form,
                   MOEHAL_CACHE="off", POCL_CACHE_DIR=str(self.folder / "pocl"), **more)
        try:
            done = subprocess.run(command, env=env, timeout=600, stdin=subprocess.DEVNULL, text=True,
                                  errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  preexec_fn=limit_processor)
        except subprocess.TimeoutExpired:
            return None, ""
        if done.returncode == -signal.SIGXCPU:
            return None, ""
        if re.search("does not (compile|build)", done.stdout):
            raise LookupError(done.stdout)
        return done.returncode, done.stdout

    def pocl(self, pattern, form):
        """None, or how it was noticed."""
        status, words = self.run([self.moehal, "check", "--device", "opencl:0", "--quick", "--filter",
                                  pattern], form)
        failed = re.search(r"^FAIL (\S+)", words, re.M)
        return (f"PoCL, {form}: {failed[1] if failed else pattern} "
                f"{'hangs' if status is None else '' if failed else f'status {status}'}"
                if status != 0 else None)

    def oclgrind(self, case, form):
        log = self.folder / "log"
        log.write_text("")
        status, _ = self.run(["oclgrind", "--data-races", "--log", str(log), self.moehal, "check",
                              "--device", "opencl:0", "--filter", case], form, MOEHAL_OPENCL=OCLGRIND)
        told = log.read_text().strip().splitlines()
        return f"oclgrind, {form}: {told[0] if told else case}" if told or status != 0 else None

    def ways(self, mutant, kernels):
        """(function, case or pattern, form), the cheapest first."""
        text = (ROOT / mutant.file).read_text()
        forms, weights = forms_of(text, mutant.offset), formats_of(text, mutant.offset)
        cases = [case.format(weights) for kernel in kernels[:3] for case in CASES[kernel]]
        small = [(self.oclgrind, case, form) for form in forms for case in cases]
        if mutant.old.startswith("SYNC"):
            yield from small
        of_formats = {case.format(weights).split("/")[0] for kernel in kernels for case in CASES[kernel]
                      if "{}" in case}
        for form in reversed(forms):
            for op in dict.fromkeys(case.split("/")[0] for case in cases):
                yield self.pocl, f"{op}/{weights if op in of_formats else '*'}/*", form
        if not mutant.old.startswith("SYNC"):
            for form in forms:
                yield self.pocl, "vectors/*", form
            yield from small

    def noticed(self, mutant, kernels):
        self.build(mutant)
        return next((by for how, what, form in self.ways(mutant, kernels) if (by := how(what, form))),
                    None)


def sample(each, seed, equivalents):
    """For every kernel `each` mutants: one of a function that it uses, one barrier, where it has such,
    the others of its own lines. A kernel's draw does not depend on what the others are."""
    found = every_site()
    chosen = {}
    for kernel in CASES:
        rng = random.Random(f"{seed} {kernel}")
        pool = [m for m, users in found.items() if kernel in users and m not in chosen
                and not equivalents.hold(m)]
        rng.shuffle(pool)
        barriers = [m for m in pool if m.old.startswith("SYNC")][:1]
        used = [m for m in pool if m.function != kernel and m not in barriers][:1]
        own = [m for m in pool if m.function == kernel and m not in barriers]
        for mutant in (barriers + used + own)[:each]:
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


def survivors(path):
    """What survived an earlier run, by its --results, and is still a site."""
    old = json.loads(path.read_text(encoding="utf-8"))
    names = {name for name, (word, *_) in old.items() if word == "SURVIVES"}
    return {m: users for m, users in every_site().items() if m.name() in names}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--moehal", required=True)
    parser.add_argument("--each", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pick", type=int, default=0)
    parser.add_argument("--again", type=pathlib.Path)
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    for tool in ("cc", "oclgrind"):
        if not shutil.which(tool):
            print(f"SKIP: {tool} is not installed")
            sys.exit(77)
    began = time.monotonic()
    equivalents = base.Equivalents(EQUIVALENTS.read_text(encoding="utf-8"))
    if options.again:
        chosen = survivors(options.again)
    else:
        chosen = (picked(options.pick) if options.pick
                  else sample(options.each, options.seed, equivalents))
    if not options.pick and not options.again and (stale := equivalents.stale()):
        print(f"{EQUIVALENTS}: no site for line {', '.join(map(str, stale))}")
        sys.exit(1)
    results = {}
    if options.results and options.results.exists():
        results = json.loads(options.results.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="moehal-mutants-") as folder:
        shop = Workshop(folder, os.path.abspath(options.moehal))
        shop.build(None)
        if by := shop.pocl("add/*", "cpu"):
            print(f"SKIP: no OpenCL device that keeps exact: {by}")
            sys.exit(77)
        for mutant, kernels in chosen.items():
            if mutant.name() in results:
                continue
            if time.monotonic() - began > 60 * options.minutes:
                print(f"{len(results)} of {len(chosen)} so far")
                sys.exit(2)
            start = time.monotonic()
            try:
                by = shop.noticed(mutant, kernels)
                word = "caught" if by else "SURVIVES"
            except LookupError:
                by, word = None, "no program"
            print(f"{word:10} {time.monotonic() - start:5.1f} s  {mutant.name()}: {by}", flush=True)
            results[mutant.name()] = [word, by, round(time.monotonic() - start, 1)]
            if options.results:
                options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    words = [results[m.name()][0] for m in chosen]
    caught, tried = words.count("caught"), len(words) - words.count("no program")
    if options.keep:
        CAUGHT.write_text("".join(f"{m.name()}\n" for m in chosen if results[m.name()][0] == "caught"
                                  and results[m.name()][2] < QUICK), encoding="utf-8")
    print(f"{caught} of {tried} mutants of kernels caught, {len(CASES)} kernels, seed {options.seed}")
    sys.exit(0 if caught >= (tried if options.pick or options.again else 0.95 * tried) else 1)


if __name__ == "__main__":
    main()
