#!/usr/bin/env python3
"""devices, inspect, synth, chat, help."""
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import unittest

from command import (EXTRA, FAIRY, GOLDEN, ON_NULL, ROOT, TOOL, Folder, generate, good, json, main,
                     moehal, read_json)

COMMANDS = ("devices", "generate", "chat", "eval", "inspect", "synth")


class Commands(Folder):
    def test_help_and_version(self):
        out = good("--help")
        for name in COMMANDS:
            self.assertIn(f"\n  {name} ", out)
            page = good(name, "--help")
            self.assertIn("usage: moehal " + name, page)
            self.assertIn("examples:\n  ", page)
        self.assertRegex(good("--version"), r"^moehal \d+\.\d+\.\d+ \(MH_ABI \d+\)\n$")

    def test_the_man_page_names_every_option(self):
        page = pathlib.Path(ROOT, "tools/moehal.1").read_text(encoding="utf-8").replace("\\-", "-")
        for name in COMMANDS:
            for word in good(name, "--help").split():
                option = word.rstrip(":;,.")
                if option.startswith("--") and option != "--help":
                    self.assertIn(option, page, name)

    def test_devices(self):
        out = good("devices", env=ON_NULL)
        self.assertRegex(out, r"(?m)^PASS  host:0 ")
        self.assertRegex(out, r"(?m)^PASS  null:0 ")
        listed = {d["uri"]: d for d in json.loads(good("devices", "--json", env=ON_NULL))}
        self.assertTrue(listed["host:0"]["pass"])
        self.assertEqual(listed["host:0"]["reason"], "computes")
        self.assertIn("fall back", listed["null:0"]["reason"])
        self.assertFalse(listed["null:0"]["virtual"])

    def test_inspect_counts_what_the_header_says(self):
        for name in ("v3", "v3-fp8", "v2-lite", "v2", "moonlight", ""):
            folder = os.path.join(GOLDEN, name) if name else FAIRY
            layers = read_json(folder, "config.json")["num_hidden_layers"]
            parameters = tensors = mtp = 0
            for file in pathlib.Path(folder).glob("model*.safetensors"):
                data = file.read_bytes()
                length, = struct.unpack("<Q", data[:8])
                for tensor, entry in json.loads(data[8:8 + length]).items():
                    if tensor == "__metadata__":
                        continue
                    tensors += 1
                    parts = tensor.split(".")
                    if parts[1] == "layers" and int(parts[2]) >= layers:
                        mtp += 1
                    elif not tensor.endswith("_scale_inv"):
                        count = 1
                        for size in entry["shape"]:
                            count *= size
                        parameters += count
            got = json.loads(good("inspect", folder, "--device", "host", "--json"))
            self.assertEqual((got["parameters"], got["tensors"], got["mtp_tensors"],
                              got["unknown_tensors"]), (parameters, tensors, mtp, 0), folder)
            self.assertTrue(got["devices"][0]["fits"])
            self.assertIn("parameters", good("inspect", folder))

    def test_synth_makes_a_model_that_runs(self):
        for dtype in ("bf16", "fp8"):
            out = self.path(dtype)
            config = os.path.join(GOLDEN, "v3/config.json")
            good("synth", config, "--out", out, "--layers", 2, "--dtype", dtype, "--seed", 5)
            got = json.loads(good("inspect", out, "--json"))
            self.assertEqual((got["layers"], "F8_E4M3" in got["dtypes"]), (2, dtype == "fp8"))
            self.assertEqual(len(generate("--ids", "0 1 2", "--max-tokens", 3, model=out)["token_ids"]),
                             3)

    def test_chat(self):
        case = read_json(GOLDEN, "fairy/golden.json")
        want = case["prompts"][3]["text"].split("<｜Assistant｜>")[1]
        question = b"Tell me the story of The Golden Goose.\n"
        status, out, err = moehal("chat", "--model", FAIRY, "--temperature", 0, "--max-tokens", 64,
                                  stdin=question + b"And then?\n")
        self.assertEqual(status, 0, err)
        self.assertTrue(out.startswith(want + "\n"), out)
        self.assertEqual(err.count("tokens/s,"), 2)
        self.assertEqual(moehal("chat", "--model", FAIRY, stdin=b"")[0], 0)

    @unittest.skipUnless(EXTRA, "a 4.5 GB checkpoint is made in the extra suite only")
    def test_memory_is_the_weights_and_little_more(self):
        if shutil.disk_usage(self.folder).free < 8e9:
            self.skipTest("less than 8 GB of disk are free")
        out = self.path("lite4")
        good("synth", "v2-lite", "--layers", 4, "--out", out)
        weights = os.path.getsize(os.path.join(out, "model.safetensors"))
        code = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
                "stdout=subprocess.DEVNULL); "
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
        done = subprocess.run([sys.executable, "-c", code, TOOL, "generate", "--model", out,
                               "--ids", "0 1 2 3 4 5 6 7", "--max-tokens", "8"], check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        resident = int(done.stdout) * 1024
        print(f"resident {resident / 1e6:.0f} MB, weights {weights / 1e6:.0f} MB", file=sys.stderr)
        self.assertLess(resident, weights + (64 << 20))


if __name__ == "__main__":
    main()
