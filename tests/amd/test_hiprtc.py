#!/usr/bin/env python3
"""A GPU that the embedded code is not for: it refuses the first code object with hipErrorNoBinaryForGpu
(an injected failure of the virtual MI300X), and a hipRTC, a stub that calls clang 19, compiles the embedded
sources. The host's tokens and logits, and what is compiled is kept; a reason in words where there is no
hipRTC, the compiler complains, or waves have 32 lanes.

usage: test_hiprtc.py MOEHAL BACKENDS RUNTIME SOURCE STUB WAVE32
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

NO_BINARY = "fail:hipModuleLoadData:1:209"


class World:
    def __init__(self, folder):
        self.moehal, backends, self.runtime, self.source, stub, self.wave32 = sys.argv[1:]
        self.log = pathlib.Path(folder, "log")
        self.env = dict(os.environ, MOEHAL_BACKENDS=backends, MOEHAL_AMD_RUNTIME=self.runtime,
                        MOEHAL_VIRTUAL_DEVICES="1", MOEHAL_VIRTUAL_CHECKS="bounds", MOEHAL_CACHE=folder,
                        MOEHAL_VIRTUAL_FAULTS=NO_BINARY, STUB_LOG=str(self.log), STUB_OPTIONS="-O1",
                        LD_LIBRARY_PATH=os.path.dirname(stub))
        self.wrong = []

    def run(self, command, **env):
        """Status, what it said, and the files that were compiled."""
        self.log.write_text("")
        done = subprocess.run([self.moehal, *command], env=dict(self.env, **env), capture_output=True,
                              text=True, check=False)
        return done.returncode, done.stdout or done.stderr, self.log.read_text().split()

    def generate(self, device, *more, **env):
        return self.run(["generate", "--model", f"{self.source}/tests/data/golden/v2-lite", "--ids",
                         "0 17 4", "--max-tokens", "2", "--json", "--device", device, *more], **env)

    def check(self, case, **env):
        return self.run(["check", "--device", "amd:0", "--profile", "fast", "--filter", case], **env)

    def expect(self, what, true, told):
        print(f"{what}: {'yes' if true else told}", flush=True)
        if not true:
            self.wrong.append(what)

    def refused(self, what, words, **env):
        status, told, _ = self.generate("amd:0", **env)
        self.expect(what, status and all(word in told for word in words), told)


def main():
    with tempfile.TemporaryDirectory(prefix="moehal-hiprtc-") as folder:
        w = World(folder)
        files = re.findall(r"^FILE\((\w+), (\w+)\)",
                           (pathlib.Path(w.source) / "backends/amd_hip/files.def").read_text(), re.M)
        every = {f"{name}.hip" for name, _ in files}
        exact = {f"{name}.hip" for name, units in files if units == "EXACT"}
        w.refused("waves of 32", ["Virtual", "waves of 32", "RDNA"], MOEHAL_AMD_RUNTIME=w.wave32)
        # Of the virtual runtime itself, which has the functions, and compiles nothing.
        w.refused("no hipRTC", ["gfx942", "Virtual", "no hipRTC", "not supported"], LD_LIBRARY_PATH="")
        w.refused("a compiler's complaint", ["hipRTC 9.0", "move.hip", "error:", "no/such/header"],
                  STUB_OPTIONS="-include no/such/header")
        host = json.loads(w.generate("host")[1])["logit_hash"]
        for what, compiled in (("all files are compiled", every), ("and kept", {"move.hip"})):
            status, told, log = w.generate("amd:0", "--strict")
            w.expect(what, set(log) == compiled and len(log) == len(compiled), log)
            w.expect("the host's logits", not status and json.loads(told)["logit_hash"] == host, told)
        # Without matrix units: their files are left out, and the fast profile runs the exact kernels.
        status, told, log = w.generate("amd:0", "--profile", "fast", STUB_TARGET="gfx906")
        w.expect("gfx906: the exact files", set(log) == exact, log)
        w.expect("gfx906: the host's exact logits",
                 not status and json.loads(told)["logit_hash"] == host, told)
        # With matrix units and no FP8 of gfx942's form: FP8 weights are products of bf16.
        status, told, log = w.check("fast/products fp8", STUB_TARGET="gfx90a",
                                    STUB_OPTIONS="-O1 -DWITHOUT_FNUZ")
        w.expect("gfx90a: every file", set(log) == every, log)
        w.expect("gfx90a: FP8 inside the bounds", not status, told)
    sys.exit(1 if w.wrong else 0)


main()
