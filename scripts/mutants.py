#!/usr/bin/env python3
"""Breaks the host's ops and the core in small ways, one at a time, and sees who notices.

usage: scripts/mutants.py [--count 150] [--seed 1] [--pick N] [--json FILE] [--keep]

A mutant is one operator or constant changed: at least three for every op of ops.def, in the scalar
form of its kernel, the rest in hal/. It is caught if `moehal check` fails (on the host, and on the
null device for hal/), or a test of the suites hal, host, model or conformance does, or if it hangs:
takes five times the processor time that it takes in the tree as it is, whatever else is running.
What they all let pass is tried once more under the address sanitizer, as ./check does with every
test. tests/mutants/equivalents.txt lists changes that change nothing, each with a proof; caught.txt,
written with --keep, those that a whole run saw caught. --pick tries N of the latter again, chosen by
what the sources are: every CI run tries other ones as the code moves, and one that gets away is a
step back. --json is written as the run goes on. What such a file says is caught is not tried again
while the source file is the same: so a run goes on that was ended, and what survived meets new tests.

Works on a copy of the tree. Exit status: 0 at least 95 % were caught (with --pick: all); 1 fewer;
2 bad usage; 77 a tool is missing.
"""
import argparse
import collections
import fnmatch
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


def every_op():
    return re.findall(r"^MH_OP\(\d+, \w+, (\w+),",
                      (ROOT / "hal/include/moehal/ops.def").read_text(), re.M)


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
    """`count` mutants, {mutant: op}: three for each op, the others from the core; and where to get
    another one for an op, or for None. A mutant's place in line is its own: it does not change when
    others come or go."""
    def in_line(mutants):
        return iter(sorted((m for m in mutants if not equivalents.hold(m)), key=lambda m: (
            hashlib.sha256(f"{seed} {m.name()}".encode()).digest())))

    sources = {p: p.read_text() for p in sorted((ROOT / "backends/host").glob("*.[ch]"))}
    places = {p: sites(str(p.relative_to(ROOT)), source) for p, source in sources.items()}
    core = [m for p in sorted((ROOT / "hal").glob("*.c"))
            for m in sites(str(p.relative_to(ROOT)), p.read_text())]
    for path, found in places.items():
        if path.name in ("numerics.h", "decode.h", "cache.h", "product.c", "scalar.c"):
            core += found
        for mutant in found:  # for stale entries
            equivalents.hold(mutant)
    lines, chosen = {None: in_line(core)}, {}

    def another(op):
        mutant = next(m for m in lines[op] if m not in chosen)
        chosen[mutant] = op
        return mutant

    ops = every_op()
    for op in ops:
        path = next(p for p, source in sources.items()
                    if re.search(rf"^void K\({op}\)", source, re.M))
        behind = functions_behind(sources[path], op)
        lines[op] = in_line(m for m in places[path] if m.function in behind)
    for op in [op for op in ops for _ in range(3)] + [None] * (count - 3 * len(ops)):
        another(op)
    return ops, dict(chosen), another


@dataclass
class Check:
    name: str
    command: list
    env: dict
    good: tuple
    cpu: float  # seconds that it takes in the tree as it is

    def fails(self, folder):
        """None, or how it does."""
        limit = int(max(10, 5 * self.cpu))
        process = subprocess.Popen(
            self.command, env=self.env, cwd=folder, start_new_session=True, text=True,
            errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5)))
        try:
            # For what waits for ever, at no cost.
            output, _ = process.communicate(timeout=120 + 15 * self.cpu)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                return f"{self.name}: hangs"
            raise
        if process.returncode in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
            return f"{self.name}: hangs"
        if failure := re.search(r"^FAIL (\S+)", output, re.M):
            return f"{self.name}: {failure[1]}"
        return None if process.returncode in self.good else f"{self.name}: {process.returncode}"


class Workshop:
    """A copy of the tree, built once, broken and mended."""

    def __init__(self, folder, origin, sanitizer, calibrate):
        self.tree = pathlib.Path(folder, sanitizer, "tree")
        self.build = pathlib.Path(folder, sanitizer, "build")
        self.env = dict(os.environ, MOEHAL_BACKENDS=str(self.build / "backends/null"))
        self.hits = collections.Counter()  # of (file, check)
        shutil.copytree(origin, self.tree, ignore=lambda folder, names: [
            name for name in names if name in (".git", "__pycache__", ".cache")
            or os.path.exists(os.path.join(folder, name, "meson-private"))])
        # Only the scalar form: the others are held against it by the tests. The same C, the same
        # bits, but an fma that is no call where the processor has one.
        meson = self.tree / "backends/host/meson.build"
        text = meson.read_text().replace("if host_machine.cpu_family() == 'x86_64'", "if false")
        if {"avx2", "fma", "f16c"} <= set(pathlib.Path("/proc/cpuinfo").read_text().split()):
            text = text.replace("'scalar': []", "'scalar': ['-mavx2', '-mfma', '-mf16c']")
        meson.write_text(text)
        self.run(["meson", "setup", str(self.build), str(self.tree), "-Dbuildtype=plain", "-Dc_args="
                  "-O1 -g1", f"-Db_sanitize={sanitizer}", "-Db_lundef=false"]).check_returncode()
        wanted = ("hal", "host", "model", "conformance")
        tests = [t for t in self.introspect("tests")
                 if any(s.split(":")[-1] in wanted for s in t["suite"])
                 and not any(s.endswith("slow") for s in t["suite"])
                 and not t["cmd"][0].endswith("/run_check.sh") and "check" not in t["cmd"][1:2]]
        needed = {target for test in tests for target in test["depends"]}
        built = [t["filename"][0] for t in self.introspect("targets")
                 if t["id"] in needed or t["name"] == "moehal_null" or
                 (t["name"], t["type"]) == ("moehal", "executable")]
        self.ninja = ["ninja", "-j2", "-C", str(self.build)] + [os.path.relpath(path, self.build)
                                                                for path in built]
        self.run(self.ninja).check_returncode()
        self.checks = [Check(f"test {test['name']}", test["cmd"], dict(os.environ, **test["env"]),
                             (0, 77), 12 if sanitizer == "none" else 60) for test in tests]
        self.of_op = {}
        if sanitizer == "none":
            self.checks += [self.conformance("host", 60), self.conformance("null", 12)]
            self.of_op = {op: self.conformance("host", 12, f"{op}/*") for op in every_op()}
        else:
            self.checks += [self.conformance("host", 60, "[fgmsw]*s/*")]
        for check in self.checks + list(self.of_op.values()) if calibrate else []:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            if failure := check.fails(self.build):
                sys.exit(f"{failure} in the tree as it is: nothing can be said of mutants")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            check.cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    def introspect(self, what):
        return json.loads(self.run(["meson", "introspect", "--" + what, str(self.build)]).stdout)

    def run(self, command):
        return subprocess.run(command, cwd=self.build if self.build.exists() else None,
                              env=self.env, text=True, errors="replace", stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def conformance(self, device, cpu, pattern=None):
        command = [str(self.build / "tools/moehal"), "check", "--device", device, "--quick",
                   "--threads", "2"] + (["--filter", pattern] if pattern else [])
        return Check(f"check {device}", command, dict(self.env, MOEHAL_HOST_ISA="scalar"),
                     (1,) if device == "null" else (0,), cpu)

    def noticed(self, mutant, op):
        """By what the mutant is caught; None: by nothing. LookupError: it does not compile."""
        path = self.tree / mutant.file
        source = path.read_text()
        assert source[mutant.offset:].startswith(mutant.old)
        path.write_text(source[:mutant.offset] + mutant.new +
                        source[mutant.offset + len(mutant.old):])
        try:
            if self.run(self.ninja).returncode:
                raise LookupError(mutant.name())
            checks = [check for check in self.checks
                      if check.name != "check null" or mutant.file.startswith("hal/")]
            checks.sort(key=lambda c: (c.cpu > 3, -self.hits[mutant.file, c.name], c.cpu))
            for check in ([self.of_op[op]] if op in self.of_op else []) + checks:
                if by := check.fails(self.build):
                    self.hits[mutant.file, check.name] += 1
                    return by
            return None
        finally:
            path.write_text(source)


def progress(text):
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)


def digest(files):
    everything = b"".join((ROOT / file).read_bytes() for file in sorted(files))
    return hashlib.sha256(everything).hexdigest()


def picked(number):
    """`number` of those once caught that are still there, by what the sources are: {mutant: op}"""
    lines = [line.split(" ", 1) for line in CAUGHT.read_text(encoding="utf-8").splitlines()]
    ops = {name: None if op == "-" else op for op, name in lines}
    there = [m for m in every_site() if m.name() in ops]
    if len(there) < len(ops) / 2:
        print(f"{CAUGHT}: only {len(there)} of {len(ops)} are still sites: run it with --keep")
        sys.exit(1)
    chosen = random.Random(digest({m.file for m in there})).sample(there, number)
    return {m: ops[m.name()] for m in chosen}


class Results:
    """{name: result}, kept in a file if there is one."""

    def __init__(self, path):
        self.path, self.of = path, {}
        self.sources = {file: digest([file]) for file in {m.file for m in every_site()}}
        if path and path.exists():
            self.of = {r["mutant"]: r for r in json.loads(path.read_text())
                       if r["source"] == self.sources.get(r["mutant"].split()[0])}

    def caught(self, mutant):
        return self.of.get(mutant.name(), {}).get("caught")

    def put(self, mutant, op, by, seconds):
        self.of[mutant.name()] = {"mutant": mutant.name(), "op": op, "caught": by,
                                  "seconds": round(seconds, 1), "source": self.sources[mutant.file]}
        if self.path:
            new = self.path.with_name(self.path.name + ".new")
            new.write_text(json.dumps(list(self.of.values()), indent=1) + "\n")
            new.replace(self.path)


def try_all(folder, wanted, another, results, calibrate):
    """With `calibrate` every check runs in the whole tree first: it must pass, and how long it
    takes says what hangs. Returns those tried: {mutant: op}."""
    shop = Workshop(folder, ROOT, "none", calibrate)
    queue, tried = list(wanted.items()), {}
    while queue:
        mutant, op = queue.pop(0)
        progress(f"{len(tried)} of {len(wanted)}: {mutant.name()[:100]}")
        began = time.monotonic()
        try:
            if not results.caught(mutant):
                results.put(mutant, op, shop.noticed(mutant, op), time.monotonic() - began)
            tried[mutant] = op
        except LookupError:
            queue.insert(0, (another(op), op))
    second = None
    for mutant, op in tried.items():
        if not results.caught(mutant):
            progress(f"once more: {mutant.name()[:100]}")
            began = time.monotonic()
            second = second or Workshop(folder, shop.tree, "address", calibrate)
            by = second.noticed(mutant, None)
            results.put(mutant, op, by and f"address sanitizer: {by}", time.monotonic() - began)
            if not by:
                progress("")
                print(f"SURVIVES {mutant.name()}", flush=True)
    progress("")
    return tried


NO_MUTANT = "the same code, or none"  # in results


def try_pools(pools, each, noticed, results=None):
    """The mutants caught and how many were tried: of each pool the first `each` that are other programs.
    A file of results keeps what came out; what it says is caught, or none, is not tried again."""
    known, caught, tried = {}, [], 0
    if results and results.exists():
        known = json.loads(results.read_text(encoding="utf-8"))
    for pool in pools:
        done = 0
        for mutant in pool:
            if done == each:
                break
            try:
                by = known.get(mutant.name()) or noticed(mutant)
            except LookupError:
                by = NO_MUTANT
            if by:
                known[mutant.name()] = by
                if results:
                    results.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            if by == NO_MUTANT:
                continue
            done += 1
            print(f"{'caught  ' if by else 'SURVIVES'} {mutant.name()}{': ' + by if by else ''}", flush=True)
            if by:
                caught.append(mutant)
        tried += done
    return caught, tried


def conclude(caught, tried, options, path, what):
    """Keeps their names, if asked, says how many there are, and ends."""
    if options.keep:
        old = set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()
        path.write_text("".join(f"{name}\n" for name in sorted(old | {m.name() for m in caught})),
                        encoding="utf-8")
    print(f"{len(caught)} of {tried} mutants of {what} caught, seed {options.seed}")
    sys.exit(0 if tried and len(caught) >= (tried if options.pick else 0.95 * tried) else 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pick", type=int, default=0)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for tool in ("meson", "ninja", "cc"):
        if not shutil.which(tool):
            print(f"SKIP: {tool} is not installed")
            sys.exit(77)
    equivalents = Equivalents(EQUIVALENTS.read_text(encoding="utf-8"))
    ops, wanted, another = sample(options.count, options.seed, equivalents)
    if stale := equivalents.stale():
        print(f"{EQUIVALENTS}: no site for line {', '.join(map(str, stale))}")
        sys.exit(1)
    if options.pick:
        wanted = picked(options.pick)
    results = Results(options.json)
    with tempfile.TemporaryDirectory(prefix="moehal-mutants-") as folder:
        tried = try_all(folder, wanted, another, results, not options.pick)
    caught = {m: results.caught(m) for m in tried if results.caught(m)}
    by_check = sum(by.startswith("check") for by in caught.values())
    if options.keep:
        CAUGHT.write_text("".join(f"{tried[m] or '-'} {m.name()}\n" for m in caught),
                          encoding="utf-8")
    print(f"{len(caught)} of {len(tried)} mutants caught ({by_check} by moehal check), "
          f"{len(ops)} ops, seed {options.seed}")
    sys.exit(0 if len(caught) >= (len(tried) if options.pick else 0.95 * len(tried)) else 1)


if __name__ == "__main__":
    main()
