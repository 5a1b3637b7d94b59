#!/usr/bin/env python3
"""eval: the files it writes hold the exact profile's bits."""
import os

from command import (FAIRY, GOLDEN, ON_NULL, Folder, good, ints, json, main, moehal, read_json,
                     read_safetensors)


def bits(raw):
    """The f32 words, every NaN made one: any NaN equals any NaN."""
    words = memoryview(raw).cast("I").tolist()
    return [0x7FC00000 if w & 0x7FFFFFFF > 0x7F800000 else w for w in words]


class Eval(Folder):
    def equal_bits(self, got, want, what):
        if got != want and bits(got) != bits(want):
            first = next(i for i, (a, b) in enumerate(zip(bits(got), bits(want))) if a != b)
            self.fail(f"{what}: value {first} is {bits(got)[first]:#x}, not {bits(want)[first]:#x}")

    def check_prompt(self, name, model, golden, exact, prompt, *options):
        what = f"{name}, prompt {prompt}, {options}"
        config = read_json(model, "config.json")
        ids = ints(golden[f"prompt.{prompt}"][2])
        path = self.path("out.safetensors")
        good("eval", "--model", model, "--ids", " ".join(map(str, ids)), "--out", path, "--hidden",
             *options)
        got = read_safetensors(path)
        layers = config["num_hidden_layers"] + 1
        self.assertEqual(set(got), {"logits"} | {f"hidden.{i}" for i in range(layers)}, what)
        sizes = {"logits": config["vocab_size"]}
        for tensor, (dtype, shape, raw) in got.items():
            size = sizes.get(tensor, config["hidden_size"])
            self.assertEqual((dtype, shape, len(raw)), ("F32", [len(ids), size], 4 * len(ids) * size),
                             f"{what}: {tensor}")
        # Golden has the last rows of the logits and the last position of the hidden states.
        want = exact[f"logits.{prompt}"][2]
        self.assertGreater(len(want), 0)
        self.equal_bits(got["logits"][2][-len(want):], want, what + ": logits")
        for layer in range(layers):
            want = exact[f"hidden.{prompt}.{layer}"][2]
            self.assertEqual(len(want), 4 * config["hidden_size"])
            self.equal_bits(got[f"hidden.{layer}"][2][-len(want):], want, f"{what}: hidden.{layer}")

    def check_exact(self, name, model, *ways):
        golden = read_safetensors(os.path.join(GOLDEN, name, "golden.safetensors"))
        exact = read_safetensors(os.path.join(GOLDEN, name, "exact.safetensors"))
        prompts = [n.split(".")[1] for n in exact if n.startswith("logits.")]
        self.assertGreater(len(prompts), 1)
        for prompt in prompts:
            for way in ways:
                self.check_prompt(name, model, golden, exact, prompt, *way)

    def test_files_hold_the_exact_bits(self):
        for name in ("v3", "v3-fp8", "v2-lite", "v2", "moonlight"):
            self.check_exact(name, os.path.join(GOLDEN, name), (), ("--chunk", 3))

    def test_files_hold_the_exact_bits_of_the_bundled_model(self):
        self.check_exact("fairy", FAIRY, ())

    def test_a_fallback_writes_the_same_file(self):
        arguments = ("eval", "--model", os.path.join(GOLDEN, "v3"), "--ids", "0 17 4 9", "--hidden")
        good(*arguments, "--out", self.path("host"))
        good(*arguments, "--out", self.path("null"), "--device", "null", env=ON_NULL)
        self.assertEqual(read_safetensors(self.path("host")), read_safetensors(self.path("null")))

    def test_without_hidden_there_are_logits_alone(self):
        out = good("eval", "--model", FAIRY, "--ids", "0 17", "--out", self.path("x"), "--json")
        self.assertEqual(list(read_safetensors(self.path("x"))), ["logits"])
        self.assertEqual(json.loads(out)["tokens"], 2)
        self.assertEqual(os.listdir(self.folder), ["x"])

    def test_a_text_without_a_token_is_refused(self):
        with open(self.path("empty.txt"), "wb"):
            pass
        status, out, err = moehal("eval", "--model", FAIRY, "--text", self.path("empty.txt"))
        self.assertEqual((status, out, err.count("\n")), (2, "", 1), err)
        self.assertIn("empty.txt", err)


if __name__ == "__main__":
    main()
