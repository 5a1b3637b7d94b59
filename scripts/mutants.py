#!/usr/bin/env python3
"""Breaks the host's ops and the core in small ways, one at a time, and sees who notices.

usage: scripts/mutants.py [--count 150] [--seed 1] [--pick N] [--json FILE] [--again FILE] [--keep]

A mutant is one operator or constant changed: at least three for every op of ops.def, in the scalar
form of its kernel, the rest in hal/. It is caught if `moehal check` fails (on the host, and on the
null device for hal/), or a test of the suites hal, host, model or conformance does, or if it hangs; what
they let pass is tried once more under the address sanitizer, as ./check does with every test.
tests/mutants/equivalents.txt lists changes that change nothing, each with a proof; caught.txt, written
with --keep, those that a whole run saw caught. --pick tries N of the latter again, chosen by what the
sources are: every CI run tries other ones as the code moves, and one that gets away is a step back.
--again tries what survived in the JSON of an earlier run.

Works on a copy of the tree. Exit status: 0 at least 95 % were caught (with --pick: all); 1 fewer;
2 bad usage; 77 a tool is missing.
"""
import argparse
import fnmatch
import functools
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
EQUIVALENTS = ROOT / "tests/mutants/equivalents.txt"
CAUGHT = ROOT / "tests/mutants/caught.txt"
TOKEN = re.compile(r"""
    (?P<skip>\s+|//[^\n]*|/\*.*?\*/|^[ \t]*\#(?:\\\n|[^\n])*)
  | (?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
  | (?P<number>\.?\d(?:[eEpP][+-]|[\w.])*)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<operator><<=|>>=|\+\+|--|->|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[-+*/%&|^<>=!~?:;,.(){}\[\]])
""", re.X | re.S | re.M)
OTHER = {"+": "-", "-": "+", "*": "/", "/": "*", "%": "/", "<": "<=", "<=": "<", ">": ">=",
         ">=": ">", "==": "!=", "!=": "==", "&&": "||", "||": "&&", "<<": ">>", ">>": "<<",
         "&": "|", "|": "&", "+=": "-=", "-=": "+="}
BOTH_SIDES = set("+-*&")  # may have one operand; then they are no sites
TELLERS = re.compile(r"fail|FAIL|^BAD$|^bad$|printf|_Static_assert|log$")  # words, not work


@dataclass(frozen=True)
class Mutant:
    file: str
    function: str
    line: str  # its text: numbers move
    nth: int  # of the sites of equal text in the function
    old: str
    new: str
    offset: int

    def name(self):
        return f"{self.file} {self.function} [{self.line}] #{self.nth} {self.old} -> {self.new}"


def changed(kind, text):
    """What a token may become."""
    if kind == "operator":
        return [OTHER[text]] if text in OTHER else []
    if re.fullmatch(r"0[xX][0-9a-fA-F]+[uUlL]*|\d+[uUlL]*", text):
        suffix = text[len(text.rstrip("uUlL")):]
        value = int(text.rstrip("uUlL"), 0)
        return [f"{value + 1}{suffix}"] + ([f"{value - 1}{suffix}"] if value else [])
    if re.fullmatch(r"[\d.]+([eE][+-]?\d+)?[fF]?|0[xX][\da-fA-F.]+[pP][+-]?\d+[fF]?", text):
        zero = re.fullmatch(r"0*\.?0*[fF]?", text)
        return ["1.0f"] if zero else [f"(2 * {text})"]
    return []


def sites(path, source):
    """Every mutant of a file, in order."""
    found, counts = [], {}
    depth, function, before = 0, "", None
    names, calls = [], []  # the name before each open parenthesis; [is a teller, has seen text]
    for match in TOKEN.finditer(source):
        kind, text = match.lastgroup, match.group()
        if kind == "skip":
            continue
        if text == "(":
            calls.append([bool(before and TELLERS.search(before)), False])
            if depth == 0 and before:
                names.append(before)
        elif text == ")" and calls:
            calls.pop()
        elif text == "{":
            if depth == 0 and names:
                # K(linear)(...) is the kernel of linear.
                function = re.search(r"K\((\w+)\)[^;{]*$", source[:match.start()])
                function = function[1] if "K" in names and function else names[0]
            depth += 1
        elif text == "}":
            depth -= 1
        if depth == 0 and text in (";", "}"):
            names = []
        if kind == "text" and calls:
            calls[-1][1] = True
        quiet = any(teller or told for teller, told in calls)
        binary = before is not None and re.search(r"[\w)\]]$", before) and before not in (
            "return", "case", "sizeof")
        if depth and not quiet and kind in ("operator", "number") and (
                text not in BOTH_SIDES or binary):
            start = source.rfind("\n", 0, match.start()) + 1
            line = source[start:source.find("\n", match.start())].strip()
            for new in changed(kind, text):
                key = (function, line, text, new)
                counts[key] = counts.get(key, 0) + 1
                found.append(Mutant(path, function, line, counts[key], text, new, match.start()))
        before = text
    return found


class Equivalents:
    """Lines `FILE | FUNCTION | LINE | CHANGE | PROOF`; the first four are globs."""

    def __init__(self, text):
        self.entries = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            parts = [part.strip() for part in line.split(" | ")]
            if len(parts) != 5 or not parts[4]:
                raise ValueError(f"line {number}: must be FILE | FUNCTION | LINE | CHANGE | PROOF")
            self.entries.append((number, parts[:4]))
        self.used = set()

    def hold(self, mutant):
        for number, (file, function, line, change) in self.entries:
            if (fnmatch.fnmatchcase(mutant.file, file)
                    and fnmatch.fnmatchcase(mutant.function, function)
                    and fnmatch.fnmatchcase(mutant.line, line.replace("[", "[[]"))
                    and any(fnmatch.fnmatchcase(text, change) for text in (
                        f"{mutant.old} -> {mutant.new}",
                        f"#{mutant.nth} {mutant.old} -> {mutant.new}"))):
                self.used.add(number)
                return True
        return False

    def stale(self):
        return [number for number, _ in self.entries if number not in self.used]


def every_site():
    """All mutants of the host's ops and the core."""
    paths = sorted((ROOT / "backends/host").glob("*.[ch]")) + sorted((ROOT / "hal").glob("*.c"))
    return [m for path in paths for m in sites(str(path.relative_to(ROOT)), path.read_text())]


def functions_behind(source, kernel):
    """The kernel and the functions of its file it uses, however deep."""
    bodies = {}
    for m in re.finditer(r"^[\w \*]*?\b(?:K\((\w+)\)|(\w+))\([^;{]*\)\s*\{(.*?)^\}", source,
                         re.S | re.M):
        bodies[m[1] or m[2]] = m[3]
    reached, queue = set(), [kernel]
    while queue:
        name = queue.pop()
        if name in reached or name not in bodies:
            continue
        reached.add(name)
        queue += [other for other in bodies if re.search(rf"\b{other}\b", bodies[name])]
    return reached


def sample(count, seed, equivalents):
    """`count` mutants: three for each op, the others from the core."""
    rng = random.Random(seed)
    kernels, core = {}, []
    sources = {p: p.read_text() for p in sorted((ROOT / "backends/host").glob("*.[ch]"))}
    ops = re.findall(r"^MH_OP\(\d+, \w+, (\w+),", (ROOT / "hal/include/moehal/ops.def").read_text(),
                     re.M)
    for op in ops:
        for path, source in sources.items():
            if re.search(rf"^void K\({op}\)", source, re.M):
                behind = functions_behind(source, op)
                kernels[op] = [m for m in sites(str(path.relative_to(ROOT)), source)
                               if m.function in behind and not equivalents.hold(m)]
    for path in sorted((ROOT / "hal").glob("*.c")):
        core += [m for m in sites(str(path.relative_to(ROOT)), path.read_text())
                 if not equivalents.hold(m)]
    for path, source in sources.items():  # shared headers, and for stale entries
        shared = [m for m in sites(str(path.relative_to(ROOT)), source) if not equivalents.hold(m)]
        if path.name in ("numerics.h", "decode.h", "cache.h", "product.c", "scalar.c"):
            core += shared
    chosen = {}
    for op in ops:
        pool = kernels[op][:]
        rng.shuffle(pool)
        for mutant in [m for m in pool if m not in chosen][:3]:
            chosen[mutant] = op
    rng.shuffle(core)
    spare = iter([m for m in core if m not in chosen])
    return ops, chosen, spare, count


class Workshop:
    """A copy of the tree, built once, broken and mended."""

    def __init__(self, folder, sanitizer="none"):
        self.sanitizer = sanitizer
        self.tree = pathlib.Path(folder, sanitizer, "tree")
        self.build = pathlib.Path(folder, sanitizer, "build")
        self.env = dict(os.environ, MOEHAL_HOST_ISA="scalar",
                        MOEHAL_BACKENDS=str(self.build / "backends/null"))
        shutil.copytree(ROOT, self.tree, ignore=lambda folder, names: [
            name for name in names if name in (".git", "__pycache__", ".cache")
            or os.path.exists(os.path.join(folder, name, "meson-private"))])
        # Only the scalar form: the others are held against it by the tests. The same C, the same
        # bits, but an fma that is no call where the processor has one.
        meson = self.tree / "backends/host/meson.build"
        text = meson.read_text().replace("if host_machine.cpu_family() == 'x86_64'", "if false")
        if {"avx2", "fma", "f16c"} <= set(pathlib.Path("/proc/cpuinfo").read_text().split()):
            text = text.replace("'scalar': []", "'scalar': ['-mavx2', '-mfma', '-mf16c']")
        meson.write_text(text)
        self.run(["meson", "setup", str(self.build), str(self.tree), "-Dbuildtype=plain",
                  "-Dc_args=-O1 -g1", f"-Db_sanitize={sanitizer}", "-Db_lundef=false"], 300,
                 check=True)
        tests = self.introspect("tests")
        wanted = ("hal", "host", "model", "conformance")
        self.tests = [t for t in tests if any(s.split(":")[-1] in wanted for s in t["suite"])
                      and not any(s.endswith("slow") for s in t["suite"])
                      and "check" not in t["cmd"][0] and "check" not in t["cmd"][1:2]]
        self.normal = {}
        needed = {target for test in self.tests for target in test["depends"]}
        built = [t["filename"][0] for t in self.introspect("targets")
                 if t["id"] in needed or t["name"] == "moehal_null" or
                 (t["name"], t["type"]) == ("moehal", "executable")]
        self.ninja = ["ninja", "-C", str(self.build)] + [os.path.relpath(path, self.build)
                                                         for path in built]
        self.run(self.ninja, 1200, check=True)

    def introspect(self, what):
        return json.loads(self.run(["meson", "introspect", "--" + what, str(self.build)], 60).stdout)

    def run(self, command, timeout, check=False):
        return subprocess.run(command, cwd=self.build if self.build.exists() else None,
                              env=self.env, timeout=timeout, check=check, text=True,
                              errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)

    def conformance(self, device, pattern):
        """None, or how `moehal check` noticed."""
        key = (device, pattern)
        command = [str(self.build / "tools/moehal"), "check", "--device", device, "--quick",
                   "--threads", "2"] + (["--filter", pattern] if pattern else [])
        try:
            began = time.monotonic()
            done = self.run(command, max(10, 5 * self.normal.get(key, 60)))
        except subprocess.TimeoutExpired:
            return "hangs"
        self.normal.setdefault(key, time.monotonic() - began)
        if failure := re.search(r"^FAIL (\S+)", done.stdout, re.M):
            return failure[1]
        expected = 1 if device == "null" else 0
        return None if done.returncode == expected else f"exit status {done.returncode}"

    def unit_tests(self):
        for test in sorted(self.tests, key=lambda t: self.normal.get(t["name"], 0)):  # soon told
            env = dict(self.env, **test["env"])
            env.pop("MOEHAL_HOST_ISA", None)
            began = time.monotonic()
            try:
                done = subprocess.run(test["cmd"], env=env, cwd=self.build,
                                      timeout=max(60, 5 * self.normal.get(test["name"], 12)),
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)
            except subprocess.TimeoutExpired:
                return f"{test['name']} (hangs)"
            self.normal.setdefault(test["name"], time.monotonic() - began)
            if done.returncode not in (0, 77):
                return test["name"]
        return None

    def noticed(self, mutant, op):
        """By what the mutant is caught; None: by nothing. LookupError: it does not compile."""
        path = self.tree / mutant.file
        source = path.read_text()
        assert source[mutant.offset:].startswith(mutant.old)
        path.write_text(source[:mutant.offset] + mutant.new +
                        source[mutant.offset + len(mutant.old):])
        try:
            if self.run(self.ninja, 600).returncode:
                raise LookupError(mutant.name())
            if self.sanitizer != "none":
                by = self.conformance("host", "[fgmsw]*s/*") or self.unit_tests()
                return f"address sanitizer: {by}" if by else None
            checks = [("host", f"{op}/*")] if op else []
            checks += [("host", None)] + ([("null", None)] if mutant.file.startswith("hal/") else [])
            for device, pattern in checks:
                if by := self.conformance(device, pattern):
                    return f"check --device {device}: {by}"
            by = self.unit_tests()
            return f"test {by}" if by else None
        finally:
            path.write_text(source)


def progress(text):
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)


def picked(number):
    """`number` of those once caught that are still there, by what the sources are: {mutant: op}"""
    lines = [line.split(" ", 1) for line in CAUGHT.read_text(encoding="utf-8").splitlines()]
    ops = {name: None if op == "-" else op for op, name in lines}
    there = [m for m in every_site() if m.name() in ops]
    if len(there) < len(ops) / 2:
        print(f"{CAUGHT}: only {len(there)} of {len(ops)} are still sites: run it with --keep")
        sys.exit(1)
    digest = hashlib.sha256(b"".join((ROOT / file).read_bytes()
                                     for file in sorted({m.file for m in there})))
    return {m: ops[m.name()] for m in random.Random(digest.hexdigest()).sample(there, number)}


def try_all(folder, wanted, spare, count, calibrate):
    """With `calibrate` the tests run in the whole tree first: they must pass, and how long they take
    says what hangs."""
    shop, second = Workshop(folder), functools.cache(lambda: Workshop(folder, "address"))
    if calibrate and (by := shop.unit_tests()):
        sys.exit(f"test {by} fails in the tree as it is: nothing can be said of mutants")
    queue = list(wanted.items())
    while len(queue) < count:
        queue.append((next(spare), None))
    results = []
    while queue and len(results) < count:
        mutant, op = queue.pop(0)
        progress(f"{len(results)} of {count}: {mutant.name()[:100]}")
        began = time.monotonic()
        try:
            by = shop.noticed(mutant, op)
            if by is None:
                by = second().noticed(mutant, op)
        except LookupError:
            queue.append((next(spare), None))
            continue
        results.append({"mutant": mutant.name(), "op": op, "caught": by,
                        "seconds": round(time.monotonic() - began, 1)})
        if by is None:
            progress("")
            print(f"SURVIVES {mutant.name()}", flush=True)
    progress("")
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pick", type=int, default=0)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--again", type=pathlib.Path)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    for tool in ("meson", "ninja", "cc"):
        if not shutil.which(tool):
            print(f"SKIP: {tool} is not installed")
            sys.exit(77)
    equivalents = Equivalents(EQUIVALENTS.read_text(encoding="utf-8"))
    ops, wanted, spare, count = sample(options.count, options.seed, equivalents)
    if stale := equivalents.stale():
        print(f"{EQUIVALENTS}: no site for line {', '.join(map(str, stale))}")
        sys.exit(1)
    if options.pick:
        wanted, count = picked(options.pick), options.pick
    if options.again:
        survivors = {r["mutant"]: r["op"] for r in json.loads(options.again.read_text())
                     if r["caught"] is None}
        wanted = {m: survivors[m.name()] for m in every_site() if m.name() in survivors
                  and not equivalents.hold(m)}
        count = len(wanted)
    with tempfile.TemporaryDirectory(prefix="moehal-mutants-") as folder:
        results = try_all(folder, wanted, spare, count, not options.pick)
    caught = sum(r["caught"] is not None for r in results)
    by_check = sum((r["caught"] or "").startswith("check") for r in results)
    if options.keep:
        CAUGHT.write_text("".join(f"{r['op'] or '-'} {r['mutant']}\n" for r in results
                                  if r["caught"]), encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{caught} of {len(results)} mutants caught ({by_check} by moehal check), "
          f"{len(ops)} ops, seed {options.seed}")
    sys.exit(0 if caught >= (len(results) if options.pick else 0.95 * len(results)) else 1)


if __name__ == "__main__":
    main()
