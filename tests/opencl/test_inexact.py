#!/usr/bin/env python3
"""Drivers whose arithmetic is not exact's: one flushes denormals, as the probe finds, one reorders sums, as
the first check of a kernel finds. Exact is refused with the reason, the fast profile runs within its
bounds. One that makes something else of exp is refused in both.

usage: test_inexact.py MOEHAL ROOT NULL-DIR OPENCL-DIR FAULTY-LIBRARY FORM
"""
import os
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))
from command import FAIRY, GOLDEN, MODULES, Folder, generate, good, ints, moehal, read_safetensors

FAULTY, FORM = sys.argv[5:7]
FLUSHES = {"FAULTY_OPTIONS": "-cl-denorms-are-zero"}
REORDERS = {"FAULTY_OPTIONS": "-cl-fast-relaxed-math"}
DOUBLES_EXP = {"FAULTY_SOURCE": "0x4B400000 0x4B3FFFFF"}
HERE = ("--device", "opencl:0", "--strict")
FEW = ("--model", FAIRY, "--ids", "0 17 4", "--max-tokens", "2", *HERE)


class Inexact(Folder):
    def driver(self, how):
        return {"MOEHAL_BACKENDS": MODULES, "MOEHAL_OPENCL": FAULTY, "MOEHAL_OPENCL_FORM": FORM,
                "MOEHAL_CACHE": self.path("cache" + "".join(how.values())), **how}

    def refused(self, how, *arguments):
        status, _, err = moehal("generate", *FEW, *arguments, env=self.driver(how))
        self.assertEqual(status, 1, err)
        return err

    def logits(self, model, ids, how, *arguments):
        good("eval", "--model", model, "--ids", ids, "--out", self.path("out"), *HERE, *arguments,
             env=self.driver(how))
        raw = read_safetensors(self.path("out"))["logits"][2]
        return struct.unpack(f"<{len(raw) // 4}f", raw)

    def test_exact_is_refused(self):
        self.assertIn("exact cannot be kept: a product of 00000001", self.refused(FLUSHES))
        shown = good("devices", env=self.driver(FLUSHES))
        self.assertIn("computes with --profile fast; exact cannot be kept: a product of 00000001", shown)

    def test_a_kernel_that_is_not_exact_is_named(self):
        for _ in ("checked", "its verdict read from the cache"):
            self.assertRegex(self.refused(REORDERS), "opencl:0: kernel [a-z_]+: not exact: y, byte")

    def test_a_kernel_that_is_wrong_is_refused_in_fast_too(self):
        for _ in ("checked", "its verdict read from the cache"):
            self.assertRegex(self.refused(DOUBLES_EXP, "--profile", "fast"), "opencl:0: kernel [a-z_]+: y, byte")

    def test_fast_is_within_its_bounds(self):
        for how in (FLUSHES, REORDERS):
            with self.subTest(**how):
                shown = good("check", "--quick", "--profile", "fast", "--device", "opencl:0",
                             env=self.driver(how))
                self.assertRegex(shown, r"fast: (\d+) cases, \1 passed, 0 failed, 0 fallback, 0 missing, 0 excluded")

    def test_models_in_fast(self):
        for name in ("v3-fp8", "v2-lite"):
            folder = os.path.join(GOLDEN, name)
            golden = read_safetensors(os.path.join(folder, "golden.safetensors"))
            prompt = sorted(n for n in golden if n.startswith("prompt."))[0]
            ids = " ".join(map(str, ints(golden[prompt][2])))
            want = self.logits(folder, ids, {})
            for how in (FLUSHES, REORDERS):
                with self.subTest(model=name, **how):
                    got = self.logits(folder, ids, how, "--profile", "fast")
                    self.assertEqual(len(got), len(want))
                    error = sum((a - b) ** 2 for a, b in zip(got, want)) / sum(b * b for b in want)
                    self.assertLess(error, 1e-8)

    def test_an_exact_driver_has_the_same_bits_in_fast(self):
        exact, fast = (generate(*FEW[2:], "--profile", profile, env=self.driver({}))
                       for profile in ("exact", "fast"))
        self.assertEqual((fast["profile"], fast["fallbacks"]), ("fast", {}))
        self.assertEqual(fast["logit_hash"], exact["logit_hash"])


if __name__ == "__main__":
    done = moehal("devices", env={"MOEHAL_BACKENDS": MODULES})
    if "PASS  opencl:0 " not in done[1]:
        print("SKIP: opencl:0 cannot be used:\n" + done[1])
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
