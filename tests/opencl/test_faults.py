#!/usr/bin/env python3
"""Every function of OpenCL fails: at its first, middle and last call (what tells of the device: at every
one), or with --all at every one. The command ends with an error that names the call, or, where the
result is not needed, as if nothing had happened; it never crashes, hangs or says something else.

usage: test_faults.py MOEHAL ROOT NULL-DIR OPENCL-DIR FAULTY-LIBRARY [--all]
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor

TOOL, ROOT, _, MODULES, FAULTY = sys.argv[1:6]
EVERY = "--all" in sys.argv
COMMAND = (TOOL, "generate", "--device", "opencl:0", "--strict", "--model",
           os.path.join(ROOT, "models/fairy"), "--json", "--max-tokens", "2", "--ids", "1 2 3 4 5")
FEW_KERNELS = COMMAND[:-3] + ("1", "--ids", "1")
# Only given back; a binary that is not taken is built again; a wait that is refused becomes naps; a graph that is no
# command buffer is launched kernel by kernel: work goes on without, always.
UNNEEDED = re.compile("cl(Release|RetainEvent|Finish|WaitForEvents|CreateProgramWithBinary|BuildProgram|GetExtension)"
                      "|.*KHR$")
# Work may go on without the answer, without a kernel that the model does not need, or without the queue that a
# command buffer is recorded with.
ASKED = re.compile("clGet")
SPARE = re.compile("clGet|clCreateKernel|clCreateCommandQueue")
LAST = ("clEnqueueMarkerWithWaitList", "clFlush")  # the last ones when all results are there
VARY = re.compile("cl(WaitForEvents|(Get|Retain|Release)Event)")  # as often as it takes


def run(folder, fault="", cache="warm", command=COMMAND):
    log = os.path.join(folder, "log " + fault)
    env = dict(os.environ, MOEHAL_BACKENDS=MODULES, MOEHAL_OPENCL=FAULTY, FAULTY=fault,
               FAULTY_LOG=log, MOEHAL_CACHE=os.path.join(folder, cache))
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=120, stdin=subprocess.DEVNULL)
    with open(log, encoding="utf-8") as file:
        lines = file.read().split("\n")
    return done, lines


def words(out):
    return re.sub(r'"[a-z_]*(_ms|_per_s)": [\d.e+-]+,?', "", out)


class Faults(unittest.TestCase):
    def test_every_function(self):
        with tempfile.TemporaryDirectory() as folder:
            run(folder)  # fills the cache
            good, lines = run(folder)
            self.assertEqual(good.returncode, 0, good.stderr)
            calls = {name: int(count) for name, count in (line.split() for line in lines if " " in line)}
            self.assertGreater(len(calls), 20, calls)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                runs = []
                for name, count in sorted(calls.items()):
                    every = EVERY or name == "clGetDeviceInfo"  # each asks something else
                    some = range(1, count + 1) if every else sorted({1, (count + 1) // 2, count})
                    runs += [(name, nth, count, pool.submit(run, folder, f"{name} {nth}")) for nth in some]
                for name, nth, count, running in runs:
                    with self.subTest(function=name, nth=nth, of=count):
                        self.check(good, *running.result(), name, nth, count)
            print(f"{len(runs)} calls of {len(calls)} functions failed, one a run")

    def test_a_kernel_that_could_not_be_had_is_not_kept_as_broken(self):
        """Other kernels of its program are checked in the same run, and their verdicts kept."""
        with tempfile.TemporaryDirectory() as folder:
            good, _ = run(folder)
            run(folder, cache="few", command=FEW_KERNELS)
            for call in ("clCreateKernel", "clGetKernelWorkGroupInfo"):
                with self.subTest(function=call):
                    self.check_what_is_kept(folder, good, call)

    def check_what_is_kept(self, folder, good, call):
        for nth in range(1, 100):
            cache = f"{call}-{nth}"
            shutil.copytree(os.path.join(folder, "few"), os.path.join(folder, cache))
            expanded, lines = run(folder, f"{call} {nth}", cache)
            self.assertIn("fired", lines)
            if expanded.returncode == 0 and words(expanded.stdout) != words(good.stdout):
                break  # its op ran as several others
        else:
            self.fail("the model runs with every kernel, or not at all")
        self.assertEqual(words(run(folder, cache=cache)[0].stdout), words(good.stdout))

    def check(self, good, done, lines, name, nth, count):
        if not VARY.match(name):
            self.assertIn("fired", lines)
        self.assertIn(done.returncode, (0, 1, 2), done.stderr)
        self.assertNotIn("Sanitizer", done.stderr)
        if UNNEEDED.match(name):
            self.assertEqual(done.returncode, 0, done.stderr)
        if done.returncode:
            self.assertTrue(done.stderr.startswith("moehal: "), done.stderr)
            if not ASKED.match(name):
                self.assertIn(name, done.stderr)
                self.assertIn("CL_OUT_OF_RESOURCES", done.stderr)
        else:
            self.assertTrue(UNNEEDED.match(name) or SPARE.match(name) or (name in LAST and nth == count),
                            f"{name} failed, and nobody was told")
            got, want = words(done.stdout), words(good.stdout)
            if SPARE.match(name):  # an op whose kernel is not known to run is expanded
                got, want = (re.sub('"launches_per_token": [^,]*', "", text) for text in (got, want))
            self.assertEqual(got, want)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        probe = subprocess.run([TOOL, "devices"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=dict(os.environ, MOEHAL_BACKENDS=MODULES), text=True)
    if "PASS  opencl:0" not in probe.stdout:
        print("SKIP: no OpenCL device here:\n" + probe.stdout)
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
