#!/usr/bin/env python3
"""devices, inspect, synth, chat, help."""
import os
import pathlib
import pty
import shutil
import struct
import subprocess

from command import (FAIRY, GOLDEN, MODULES, NULL_DIR, ON_NULL, ROOT, TOOL, Folder, generate, good,
                     json, main, moehal, read_json, read_safetensors)

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

    def test_inspect_plans_for_devices(self):
        for folder in (FAIRY, os.path.join(GOLDEN, "v2")):
            config = read_json(folder, "config.json")
            sizes = {True: 0, False: 0}
            head = 0
            for file in pathlib.Path(folder).glob("model*.safetensors"):
                for name, (_, shape, data) in read_safetensors(file).items():
                    if f".layers.{config['num_hidden_layers']}." in name:
                        continue  # the MTP layer stays behind
                    size = len(data)
                    if len(shape) == 1:  # f32 there, at places of 256 bytes
                        size = (4 * shape[0] + 255) // 256 * 256
                    sizes[".experts." in name] += size
                    head += size if name == "lm_head.weight" else 0
            got = json.loads(good("inspect", folder, "--device", "host,null,host", "--context", 100,
                                  "--json", env=ON_NULL))
            ranks = got["devices"]
            count, chosen = config["n_routed_experts"], config["num_experts_per_tok"]
            self.assertEqual([rank["experts"] for rank in ranks],
                             [count // 3 + (i < count % 3) for i in range(3)])
            self.assertEqual(got["missing_experts"], 0)
            for i, rank in enumerate(ranks):
                self.assertEqual(rank["weight_bytes"], sizes[False] - (head if i else 0))
                self.assertEqual(rank["expert_bytes"], sizes[True] // count * rank["experts"])
            layers = config["num_hidden_layers"] - config["first_k_dense_replace"]
            total = layers * chosen * 4 * config["hidden_size"]
            self.assertAlmostEqual(sum(rank["bytes_in_per_token"] for rank in ranks), 2 * total, delta=3)
            text = good("inspect", folder, "--device", "host,null,host", env=ON_NULL)
            self.assertIn("exchange", text)

    def test_inspect_of_a_config_alone(self):
        name = os.path.join(GOLDEN, "v3/config.json")
        out = self.path("made")
        good("synth", name, "--out", out, "--dtype", "fp8")
        for folder in (os.path.join(GOLDEN, "v3"), out):
            options = ("--json", "--device", "host,host")
            want = json.loads(good("inspect", folder, *options))
            got = json.loads(good("inspect", name, *options, *(("--dtype", "fp8") if folder == out else ())))
            self.assertEqual(got["parameters"], want["parameters"])
            if folder == out:  # the golden checkpoint itself is of several dtypes
                self.assertEqual([dict(rank, memory_bytes=0, context_tokens=0) for rank in got["devices"]],
                                 [dict(rank, memory_bytes=0, context_tokens=0) for rank in want["devices"]])
        self.assertIn("671026.419 M", good("inspect", "v3", "--dtype", "fp8"))

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

    def test_a_conversation_goes_on_where_it_was(self):
        # What a fresh process makes of the whole conversation is what the second turn must say,
        # although the session there keeps what it has read.
        first, second = "Tell me the story of The Golden Goose.", "Tell me the story of Aladdin."
        greedy = ("--temperature", 0, "--max-tokens")
        start = f"<｜User｜>{first}<｜Assistant｜>"
        one = generate("--prompt", start, *greedy, 40)
        two = generate("--prompt", start + one["text"] + "<｜end▁of▁sentence｜>"
                       f"<｜User｜>{second}<｜Assistant｜>", *greedy, 40)
        status, out, err = moehal("chat", "--model", FAIRY, *greedy, 40,
                                  stdin=f"{first}\n{second}".encode())
        self.assertEqual(status, 0, err)
        self.assertEqual(out, one["text"] + "\n" + two["text"] + "\n")

    def test_an_empty_line_or_the_end_ends_a_chat(self):
        for stdin in (b"", b"\n", b"\nHello\n"):
            status, out, err = moehal("chat", "--model", FAIRY, stdin=stdin)
            self.assertEqual((status, out, err), (0, "", ""), stdin)

    def test_everything_is_listed_with_pass_or_a_reason(self):
        env = {"MOEHAL_BACKENDS": f"{MODULES}:{NULL_DIR}"}
        listed = json.loads(good("devices", "--json", env=env))
        self.assertGreater(len(listed), 2)
        for entry in listed:
            self.assertEqual(set(entry), {"uri", "backend", "id", "name", "virtual", "pass",
                                          "memory_bytes", "reason"})
            self.assertNotEqual(entry["reason"], "", entry)
        text = good("devices", env=env)
        for entry in listed:
            self.assertIn(("PASS" if entry["pass"] else "FAIL") + "  " + entry["uri"], text)
        self.assertIn(False, [entry["pass"] for entry in listed])

    def test_output_that_cannot_be_written_is_told(self):
        for arguments in (["--help"], ["--version"], ["devices"], ["inspect", FAIRY],
                          ["generate", "--help"], ["inspect", FAIRY, "--json"],
                          ["generate", "--model", FAIRY, "--prompt", "x", "--max-tokens", "2"]):
            with open("/dev/full", "wb") as full:
                done = subprocess.run([TOOL, *arguments], stdout=full, stderr=subprocess.PIPE,
                                      stdin=subprocess.DEVNULL, timeout=60)
            self.assertEqual(done.returncode, 1, (arguments, done.stderr))
            self.assertIn(b"stdout", done.stderr, arguments)

    def test_a_directory_whose_name_is_no_utf8(self):
        folder = os.fsencode(self.folder) + b"/m\xff"
        shutil.copytree(os.fsencode(FAIRY), folder)
        got = json.loads(good("inspect", os.fsdecode(folder), "--json"))
        self.assertEqual(got["layers"], 6)
        got = generate("--prompt", "Once", "--max-tokens", 2, model=os.fsdecode(folder))
        self.assertEqual(len(got["token_ids"]), 2)

    def test_progress_is_for_terminals_only(self):
        out = self.path("synth")
        config = self.edit_json(self.copy_of(os.path.join(GOLDEN, "v2")), "config.json",
                                vocab_size=262144)
        arguments = [TOOL, "synth", os.path.join(config, "config.json"), "--out", out]
        status, _, err = moehal(*arguments[1:])
        self.assertEqual((status, err), (0, ""))
        shutil.rmtree(out)
        leader, follower = pty.openpty()
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=follower)
        os.close(follower)
        shown = b""
        try:
            while True:
                part = os.read(leader, 4096)
                if not part:
                    break
                shown += part
        except OSError:  # Linux says EIO when the last writer is gone
            pass
        process.communicate(timeout=60)
        os.close(leader)
        self.assertEqual(process.returncode, 0, shown)
        # Work shorter than a third of a second shows nothing; what is shown is wiped at the end.
        if shown:
            self.assertIn(b"\rwriting ", shown)
            self.assertTrue(shown.endswith(b"\r\x1b[K"), shown)


if __name__ == "__main__":
    main()
