#!/usr/bin/env python3
"""eval --text: the perplexity is that of transformers, and the fast profile keeps it."""
import os
import unittest

from command import FAIRY, GOLDEN, check_perplexity, json, main, moehal, read_json


class Perplexity(unittest.TestCase):
    def test_perplexity_is_that_of_transformers(self):
        self.assertEqual(read_json(GOLDEN, "fairy/golden.json")["eval"]["tokens"], 4266)
        check_perplexity(self, FAIRY, os.path.join(GOLDEN, "fairy"))

    def test_fast_keeps_the_perplexity(self):
        want = read_json(GOLDEN, "fairy/golden.json")["eval"]["perplexity"]
        for unit in ("amx", "avx512bf16"):
            status, out, err = moehal("eval", "--model", FAIRY, "--profile", "fast", "--json",
                                      "--text", os.path.join(GOLDEN, "fairy", "eval.txt"),
                                      env={"MOEHAL_HOST_FAST": unit})
            if "this processor has no" in err:
                continue
            got = json.loads(out)["perplexity"]
            self.assertLessEqual(abs(got / want - 1), 0.005, unit)
            self.assertNotEqual(round(got / want - 1, 9), 0, unit)  # it did something else


if __name__ == "__main__":
    main()
