#!/usr/bin/env python3
"""Breaks the kernels by which GPUs write into each other's memory, exchange and dispatch of PTX or HIP and what
they share, in small ways, one at a time, and sees whether tests/spread/test_native.c notices on virtual GPUs.

usage: scripts/mutants_exchange.py --build BUILD [--vendor nvidia|amd] [--count 60] [--seed 1] [--pick N]
                                   [--results FILE] [--keep]

First what must not be missed: every release, acquire and fence that is none, every scope that does not reach
other devices, every wait and barrier left out, flags of another chunk or of a number one off; then, up to
--count, other changes as mutants_nvidia.py and mutants_amd.py make them, at sites sampled by seed. A mutant is
caught if a result differs from the one by way of the host, if a check of the virtual GPU (races between
devices among them) reports something, or if a wait does not end. tests/mutants/exchange-equivalents.txt lists
changes that change nothing, each with a proof. exchange-caught.txt, written with --keep, those that were seen
caught; --pick tries N of these again, chosen by what the sources are. --results FILE keeps what came out, and
tries only what survived again.

Exit status: 0 at least 95 % were caught (with --pick: all); 1 fewer; 2 the test fails without a mutant; 77 no
clang.
"""
import argparse
import hashlib
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import mutants as base
import mutants_amd as amd
import mutants_nvidia as nvidia

EQUIVALENTS = base.ROOT / "tests/mutants/exchange-equivalents.txt"
CAUGHT = base.ROOT / "tests/mutants/exchange-caught.txt"
# What to look for, and what it becomes. In PTX's macros a line goes on behind a backslash.
PTX = [(r"\.(release|acquire|acq_rel)\.", ".relaxed."), (r"(?<=\.(?:release|acquire))\.sys\b", ".gpu"),
       (r"(?<=^    )(SYNC|SIGNAL|AWAIT|MEET)\b", ""), (r"\bbar\.red\.or\.pred dead, 0, dead;", ""),
       (r"\bEXCHANGE_FLAGS(?=\])", "EXCHANGE_FLAGS + 4"), (r"(?<=\], )epoch(?=;)", "turn"),
       (r"(?<=POLL\(READ_FLAG, )epoch(?=,)", "turn"), (r"\bEXCHANGE_CHUNKS, c\b", "EXCHANGE_CHUNKS, turn")]

# In HIP a fence has the system's scope as "", and polls and signals name theirs.
HIP = [(r"__builtin_amdgcn_fence\([^;]*\)(?=;)", "(void)0"), (r'(?<=__ATOMIC_RELEASE, )""', '"agent"'),
       (r'(?<=__ATOMIC_ACQUIRE, )""', '"agent"'), (r"\bSYSTEM(?=\)|$)", "AGENT"),
       (r"\bo\.signal\(\w+\)", "(void)0"), (r"!o\.await\(.*?\)\)(?= *(?:\|\||$))", "false"),
       (r"\bbarrier\(\)(?=;)", "(void)0"), (r"(?<=flags\[a\.rank\]\[)c(?=\])", "c + 1"),
       (r"(?<=flags\[rank\]\[)c(?=\])", "c + 1"), (r"(?<=\[c\], )epoch(?=,)", "epoch - 1"),
       (r"(?<=comes\(rank, )epoch(?=,)", "epoch - 1")]


def special(file, text, patterns, entry):
    """The changes of the first kind."""
    found, counts, function, at = [], {}, pathlib.Path(file).stem, 0
    for line in text.splitlines(keepends=True):
        code = line.split("//")[0]
        if match := re.search(entry, code):
            function = next(name for name in match.groups() if name)
        for pattern, new in patterns if not re.match(r"\s*(/?\*|#include)", code) else []:
            for match in re.finditer(pattern, code):
                key = (function, line.strip(), match[0], new)
                counts[key] = counts.get(key, 0) + 1
                found.append(base.Mutant(file, function, line.strip(), counts[key], match[0], new,
                                         at + match.start()))
        at += len(line)
    return found


class Nvidia(nvidia.Workshop):
    vendor, driver, setting = "nvidia", "virtual/nvidia/libcuda.so.1", "MOEHAL_NVIDIA_DRIVER"
    names = ["exchange.ptx", "dispatch.ptx", "exchange_steps.inc"]
    where = nvidia.KERNELS
    broken = r"cuModuleLoadDataEx|no log from the driver"

    @classmethod
    def sites(cls, name, text):
        file = str((cls.where / name).relative_to(base.ROOT))
        return special(file, text, PTX, r"\.entry (\w+)|^#define (\w+)"), nvidia.sites(name, text)

    def build_with(self, name):
        """Raises LookupError if it is no other program."""
        try:
            self.make(name or "exchange_steps.inc", "0")
        except subprocess.CalledProcessError as error:
            raise LookupError(name) from error


class Amd(amd.Workshop):
    vendor, driver, setting = "amd", "virtual/amd/libamdhip64.so.5", "MOEHAL_AMD_RUNTIME"
    names = ["exchange.hip", "dispatch.hip", "exchange.hiph"]
    where = amd.KERNELS
    broken = r"hipModuleLoad"

    @classmethod
    def sites(cls, name, text):
        file = str((cls.where / name).relative_to(base.ROOT))
        return (special(file, text, HIP, r"^(?:KERNEL\(\d+\)|    METHOD [\w ]+?|template <.*> DEVICE \w+|"
                        r"DEVICE \w+) (\w+)\("), amd.sites(name, text))

    def build_with(self, name):
        files = ["exchange", "dispatch"] if not name or name.endswith("h") else [name[:-4]]
        codes = {file: self.compiled(file) for file in files}
        if name and all(self.plain.get(file) == code for file, code in codes.items()):
            raise LookupError(name)
        if not name:
            self.plain = codes
        self.link(*files)


CPU = 40  # seconds of it that are too many: some 8 in the tree as it is


def watch(process, over):
    """Ends a process that takes too much of the processor's time, whatever else the machine has to do."""
    while not over.wait(1):
        try:
            fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1]
        except OSError:
            return
        if sum(map(int, fields.split()[11:13])) > CPU * os.sysconf("SC_CLK_TCK"):
            process.send_signal(signal.SIGXCPU)
            return


def run(shop, ranks, timeout_ms, **settings):
    """None, or how it was noticed."""
    driver = str(shop.build / shop.driver)
    env = dict(os.environ, MOEHAL_BACKENDS=str(shop.folder / "module"), MOEHAL_TEST_DRIVER=driver,
               MOEHAL_TEST_VENDOR=shop.vendor, MOEHAL_TEST_RANKS=str(ranks),
               MOEHAL_TEST_TIMEOUT_MS=str(timeout_ms), MOEHAL_VIRTUAL_TIME_LIMIT_MS="3600000",
               **{shop.setting: driver}, **settings)
    test = subprocess.Popen([shop.build / "tests/spread/test_native"], env=env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
    over = threading.Event()
    threading.Thread(target=watch, args=(test, over)).start()
    try:
        for line in test.stderr:
            if re.search(shop.broken, line):
                raise LookupError(line)
            if found := re.match(r"virtual \w+: ([\w-]+)|\[\s*ERROR\s*\] --- (.*)|ERROR: (.*)", line):
                return (found[1] or found[2] or found[3])[:90]
        status = test.wait()
        return "hangs" if status == -signal.SIGXCPU else f"it fails: {status}" if status else None
    finally:
        over.set()
        test.kill()
        test.wait()
        test.stderr.close()


def tried(shop):
    """Under schedules time is counted in turns of the devices. Tests of ranks that do not come have limits
    of time, which a busy machine may not keep once."""
    def schedules(count, seed):
        return run(shop, 3, 1000, MOEHAL_TEST_ONLY="schedules", MOEHAL_TEST_SCHEDULES=str(count),
                   MOEHAL_TEST_SEED=str(seed))

    def late():
        return run(shop, 2, 0, MOEHAL_TEST_ONLY="a_*")
    return (schedules(3, 1) or run(shop, 2, 3600000, MOEHAL_TEST_ROUNDS="4", MOEHAL_TEST_SKIP="a_*") or
            schedules(8, 20) or (late() and late()))


def noticed(shop, mutant):
    path = shop.kernels / pathlib.Path(mutant.file).name
    text = path.read_text()
    assert text[mutant.offset:].startswith(mutant.old)
    path.write_text(text[:mutant.offset] + mutant.new + text[mutant.offset + len(mutant.old):])
    try:
        shop.build_with(path.name)
        return tried(shop)
    finally:
        path.write_text(text)


def every_site(shop):
    texts = [(shop.where / name).read_text(encoding="utf-8") for name in shop.names]
    first, rest = [sum(sites, []) for sites in zip(*map(shop.sites, shop.names, texts))]
    places = {(m.file, m.offset, m.new) for m in first}
    return first, [m for m in rest if (m.file, m.offset, m.new) not in places], "".join(texts)


def chosen(shop, seed, pick, equivalents):
    first, rest, text = every_site(shop)
    first, rest = [[m for m in part if not equivalents.hold(m)] for part in (first, rest)]
    if pick:
        names = set(CAUGHT.read_text(encoding="utf-8").splitlines())
        there = [m for m in first + rest if m.name() in names]
        return random.Random(hashlib.sha256(text.encode()).hexdigest()).sample(there, pick)
    random.Random(seed).shuffle(rest)
    return first + rest


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True, type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--vendor", choices=["nvidia", "amd"], default="nvidia")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pick", type=int, default=0)
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    kind = Amd if options.vendor == "amd" else Nvidia
    if kind is Amd and not shutil.which(amd.CLANG):
        print(f"SKIP: {amd.CLANG} is not installed")
        sys.exit(77)
    equivalents = base.Equivalents(EQUIVALENTS.read_text(encoding="utf-8"))
    pool = chosen(kind, options.seed, options.pick, equivalents)
    with tempfile.TemporaryDirectory(prefix="moehal-mutants-") as folder:
        shop = kind(folder, options.build)
        shop.build_with(None)
        resumed = options.results and options.results.exists()
        if not options.pick and not resumed and (by := tried(shop)):
            print(f"without a mutant: {by}")
            sys.exit(2)
        caught, done = base.try_pools([pool], options.pick or options.count,
                                      lambda mutant: noticed(shop, mutant), options.results)
    base.conclude(caught, done, options, CAUGHT, f"exchanges of {options.vendor}")


if __name__ == "__main__":
    main()
