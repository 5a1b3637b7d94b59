#!/usr/bin/env python3
"""Every golden model on an OpenCL device, strict: the exact vectors' logits, and the host's tokens and
hash of logits, with both dtypes of the cache.

usage: test_golden.py MOEHAL ROOT NULL-DIR OPENCL-DIR [DEVICE]
"""
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))
from command import FAIRY, GOLDEN, MODULES, TOOL, Folder, generate, good, ints, read_safetensors

DEVICE = (sys.argv[5:] + ["opencl:0"])[0]
MODELS = {"fairy": FAIRY, **{name: os.path.join(GOLDEN, name)
                             for name in ("v3", "v3-fp8", "v2-lite", "v2", "moonlight")}}
FORMS = ("cpu", "gpu")


def there_is_no_device():
    done = subprocess.run([TOOL, "devices"], env=dict(os.environ, MOEHAL_BACKENDS=MODULES),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return f"PASS  {DEVICE} " not in done.stdout and f"SKIP: {DEVICE} cannot be used:\n{done.stdout}"


class Golden(Folder):
    def test_models(self):
        for name, model in MODELS.items():
            golden = read_safetensors(os.path.join(GOLDEN, name, "golden.safetensors"))
            exact = read_safetensors(os.path.join(GOLDEN, name, "exact.safetensors"))
            prompts = sorted(n.split(".")[1] for n in exact if n.startswith("logits."))
            self.assertGreater(len(prompts), 1)
            for prompt in prompts:
                ids = " ".join(map(str, ints(golden[f"prompt.{prompt}"][2])))
                for form in FORMS:
                    with self.subTest(model=name, prompt=prompt, form=form):
                        self.check(model, ids, form, exact[f"logits.{prompt}"][2])
            ids = " ".join(map(str, ints(golden[f"prompt.{prompts[0]}"][2])))
            for form in FORMS:
                for kv in ("f32", "bf16"):
                    with self.subTest(model=name, form=form, kv=kv):
                        self.check_words(model, ids, form, kv)

    def check(self, model, ids, form, want):
        env = {"MOEHAL_BACKENDS": MODULES, "MOEHAL_OPENCL_FORM": form}
        good("eval", "--model", model, "--ids", ids, "--out", self.path("out"), "--device", DEVICE,
             "--strict", env=env)
        got = read_safetensors(self.path("out"))["logits"][2]
        self.assertGreater(len(want), 0)
        self.assertEqual(got[-len(want):], want)

    def check_words(self, model, ids, form, kv):
        env = {"MOEHAL_BACKENDS": MODULES, "MOEHAL_OPENCL_FORM": form}
        how = ("--ids", ids, "--max-tokens", 8, "--kv", kv)
        host = generate(*how, "--device", "host", model=model)
        here = generate(*how, "--device", DEVICE, "--strict", model=model, env=env)
        for field in ("token_ids", "logit_hash", "stop"):
            self.assertEqual(here[field], host[field], field)
        self.assertEqual((here["fallbacks"], here["graph_launches_per_token"]), ({}, 1))


if __name__ == "__main__":
    if reason := there_is_no_device():
        print(reason)
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
