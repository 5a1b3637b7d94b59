#!/usr/bin/env python3
"""Breaks kernels/exchange.ptx and dispatch.ptx, by which GPUs write into each other's memory, and what they
share, in small ways, one at a time, and sees whether tests/spread/test_native.c notices on virtual GPUs.

usage: scripts/mutants_exchange.py --build BUILD [--count 60] [--seed 1] [--pick N] [--keep]

First what must not be missed: every release and acquire that is none, every scope that does not reach other
devices, every wait and barrier left out, flags of another chunk or of a number one off; then, up to --count,
other changes as mutants_nvidia.py makes them, at sites sampled by seed. A mutant is caught
if a result differs from the one by way of the host, if a check of the virtual GPU (races between devices
among them) reports something, or if a wait does not end. tests/mutants/exchange-equivalents.txt lists changes
that change nothing, each with a proof. exchange-caught.txt, written with --keep, those that were seen caught;
--pick tries N of these again, chosen by what the sources are.

Exit status: 0 at least 95 % were caught (with --pick: all); 1 fewer; 2 the test fails without a mutant.
"""
import argparse
import hashlib
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile

import mutants as base
import mutants_nvidia as nvidia

EQUIVALENTS = base.ROOT / "tests/mutants/exchange-equivalents.txt"
CAUGHT = base.ROOT / "tests/mutants/exchange-caught.txt"
# What to look for, and what it becomes. In PTX's macros a line goes on behind a backslash.
PTX = [(r"\.(release|acquire|acq_rel)\.", ".relaxed."), (r"(?<=\.(?:release|acquire))\.sys\b", ".gpu"),
       (r"(?<=^    )(SYNC|SIGNAL|AWAIT|MEET)\b", ""), (r"\bbar\.red\.or\.pred dead, 0, dead;", ""),
       (r"\bEXCHANGE_FLAGS(?=\])", "EXCHANGE_FLAGS + 4"), (r"(?<=\], )epoch(?=;)", "turn"),
       (r"(?<=POLL\(READ_FLAG, )epoch(?=,)", "turn"), (r"\bEXCHANGE_CHUNKS, c\b", "EXCHANGE_CHUNKS, turn")]


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
    vendor, driver = "nvidia", "virtual/nvidia/libcuda.so.1"
    names = ["exchange.ptx", "dispatch.ptx", "exchange_steps.inc"]
    where = nvidia.KERNELS
    setting = "MOEHAL_NVIDIA_DRIVER"
    broken = r"cuModuleLoadDataEx|no log from the driver"

    @classmethod
    def sites(cls, name, text):
        file = str((cls.where / name).relative_to(base.ROOT))
        return special(file, text, PTX, r"\.entry (\w+)|^#define (\w+)"), nvidia.sites(name, text)


CPU = 60  # seconds of it that are too many: some 8 in the tree as it is


def run(shop, ranks, **settings):
    """None, or how it was noticed. A wait that does not end is known by the processor time it takes,
    whatever else the machine has to do."""
    driver = str(shop.build / shop.driver)
    env = dict(os.environ, MOEHAL_BACKENDS=str(shop.folder / "module"), MOEHAL_TEST_DRIVER=driver,
               MOEHAL_TEST_VENDOR=shop.vendor, MOEHAL_TEST_RANKS=str(ranks), MOEHAL_TEST_TIMEOUT_MS="3600000",
               MOEHAL_VIRTUAL_TIME_LIMIT_MS="3600000", **{shop.setting: driver}, **settings)
    test = subprocess.Popen([shop.build / "tests/spread/test_native"], env=env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU + 5)))
    try:
        for line in test.stderr:
            if re.search(shop.broken, line):
                raise LookupError(line)
            if found := re.match(r"virtual \w+: ([\w-]+)|\[\s*ERROR\s*\] --- (.*)|ERROR: (.*)", line):
                return (found[1] or found[2] or found[3])[:90]
        status = test.wait()
        return "hangs" if status == -signal.SIGXCPU else f"it fails: {status}" if status else None
    finally:
        test.kill()
        test.wait()
        test.stderr.close()


def tried(shop):
    """Tests of ranks that do not come have limits of time, which a busy machine may not keep once."""
    def late():
        return run(shop, 2, MOEHAL_TEST_ONLY="a_*")
    return (run(shop, 3, MOEHAL_TEST_ONLY="schedules", MOEHAL_TEST_SCHEDULES="3") or
            run(shop, 2, MOEHAL_TEST_ROUNDS="4", MOEHAL_TEST_SKIP="a_*") or
            run(shop, 3, MOEHAL_TEST_ONLY="schedules", MOEHAL_TEST_SCHEDULES="8", MOEHAL_TEST_SEED="20") or
            (late() and late()))


def noticed(shop, mutant):
    path = shop.kernels / pathlib.Path(mutant.file).name
    text = path.read_text()
    assert text[mutant.offset:].startswith(mutant.old)
    path.write_text(text[:mutant.offset] + mutant.new + text[mutant.offset + len(mutant.old):])
    try:
        shop.make(path.name, "0")
        return tried(shop)
    finally:
        path.write_text(text)


def chosen(shop, seed, pick, equivalents):
    texts = [(shop.where / name).read_text(encoding="utf-8") for name in shop.names]
    first, rest = [sum(sites, []) for sites in zip(*map(shop.sites, shop.names, texts))]
    pool = [m for m in first + rest if not equivalents.hold(m)]
    if pick:
        names = set(CAUGHT.read_text(encoding="utf-8").splitlines())
        there = [m for m in pool if m.name() in names]
        return random.Random(hashlib.sha256("".join(texts).encode()).hexdigest()).sample(there, pick)
    rest = [m for m in pool if m not in first]
    random.Random(seed).shuffle(rest)
    return [m for m in pool if m in first] + rest


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True, type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pick", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    equivalents = base.Equivalents(EQUIVALENTS.read_text(encoding="utf-8"))
    pool = chosen(Nvidia, options.seed, options.pick, equivalents)
    caught, count = [], options.pick or options.count
    done = 0
    with tempfile.TemporaryDirectory(prefix="moehal-mutants-") as folder:
        shop = Nvidia(folder, options.build)
        shop.make("exchange_steps.inc", "0")
        if not options.pick and (by := tried(shop)):
            print(f"without a mutant: {by}")
            sys.exit(2)
        for mutant in pool:
            if done == count:
                break
            try:
                by = noticed(shop, mutant)
            except (LookupError, subprocess.CalledProcessError):
                continue  # no program
            done += 1
            print(f"{'caught  ' if by else 'SURVIVES'} {mutant.name()}{': ' + by if by else ''}", flush=True)
            if by:
                caught.append(mutant.name())
    if options.keep:
        old = set(CAUGHT.read_text(encoding="utf-8").splitlines()) if CAUGHT.exists() else set()
        CAUGHT.write_text("".join(f"{name}\n" for name in sorted(old | set(caught))), encoding="utf-8")
    print(f"{len(caught)} of {done} mutants of exchanges caught, seed {options.seed}")
    sys.exit(0 if len(caught) >= (done if options.pick else 0.95 * done) else 1)


if __name__ == "__main__":
    main()
