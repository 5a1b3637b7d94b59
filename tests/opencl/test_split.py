#!/usr/bin/env python3
"""Weights larger than a buffer of the device may be (MOEHAL_OPENCL_MOST says how large here, 2 MiB): a
linear layer, an embedding and a bank of experts that lie in two to four pieces, in both forms and in all
formats' row lengths; what needs more pieces, and what is no weight, is refused with its size.

usage: test_split.py MOEHAL ROOT NULL-DIR OPENCL-DIR
"""
import os
import subprocess
import sys
import unittest

TOOL, MODULES = sys.argv[1], sys.argv[4]
CASES = {  # bytes of the weight
    "linear/bf16/T1.O900.I1500/dense/random/plain": 2700000,
    "linear/f32/T5.O900.I1100/dense/random/plain": 3960000,
    "linear_swiglu/fp8/T1.N1500.I2100/dense/random/plain": 3150000,
    "embed/f16/T9.D700.V2500/dense/random/plain": 3500000,
    "mla_query/bf16/T2.H4.L600.N128.R4.U400.X16/dense/random/plain": 2534400,
    "experts_gate_up/fp8/T2.J3.D500.I700.S8.E8/dense/random/plain": 2800000,
    "experts_down_combine/bf16/T5.J3.D300.I500.S8.E8/dense/random/plain": 2400000,
    "experts_down/fp8/T5.J3.D700.I600.S8.E8/dense/random/map": 3360000,
}


def check(case, form, most="2097152"):
    env = dict(os.environ, MOEHAL_BACKENDS=MODULES, MOEHAL_OPENCL_FORM=form, MOEHAL_OPENCL_MOST=most)
    done = subprocess.run([TOOL, "check", "--device", "opencl:0", "--filter", case], env=env, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


class Split(unittest.TestCase):
    def test_weights_of_pieces(self):
        for case, size in CASES.items():
            self.assertGreater(size, 2 << 20, case)
            for form in ("cpu", "gpu"):
                with self.subTest(case=case, form=form):
                    status, words = check(case, form)
                    self.assertEqual(status, 0, words)
                    self.assertIn("1 passed", words)

    def test_too_many_pieces(self):
        status, words = check("linear/f32/T1.O1500.I1100/dense/random/plain", "cpu")
        self.assertEqual(status, 1)
        self.assertIn("a weight of 6600", words)
        self.assertIn("at most 4 pieces of 1048576", words)

    def test_no_weight_is_split(self):
        status, words = check("add/f32/T100.N1500/dense/random/plain", "cpu")
        self.assertEqual(status, 0, words)  # 1.8 MB in one buffer
        status, words = check("add/f32/T400.N1500/dense/random/plain", "cpu")
        self.assertEqual(status, 1)
        self.assertIn("the most in one buffer is 2097152", words)

    def test_what_it_refuses(self):
        status, words = check("add/*", "cpu", most="17")
        self.assertEqual(status, 2, words)
        self.assertIn("MOEHAL_OPENCL_MOST is '17'", words)


if __name__ == "__main__":
    probe = subprocess.run([TOOL, "devices"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           env=dict(os.environ, MOEHAL_BACKENDS=MODULES))
    if "PASS  opencl:0" not in probe.stdout:
        print("SKIP: no OpenCL device here:\n" + probe.stdout)
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
