#!/usr/bin/env python3
"""generate: against transformers, and the same bits whatever the threads, chunk or device."""
import hashlib
import os
import resource
import signal
import struct
import subprocess
import time

from command import (FAIRY, GOLDEN, ON_NULL, TOOL, Folder, generate, good, ints, json, main,
                     moehal, read_json, read_safetensors)

KEYS = {"device": str, "virtual": bool, "profile": str, "prompt_ids": list, "token_ids": list,
        "text": str, "stop": str, "logit_hash": str, "first_token_ms": float,
        "prefill_tokens_per_s": float, "decode_tokens_per_s": float, "launches_per_token": float,
        "graph_launches_per_token": float, "fallbacks": dict, "processes": int, "experts": list,
        "offload": type(None)}
GREEDY = ("--temperature", 0)
FAIRY_GOLDEN = read_json(GOLDEN, "fairy/golden.json")


def processor_time():
    """Of the children that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Generate(Folder):
    def test_texts_are_those_of_transformers(self):
        for i, case in enumerate(FAIRY_GOLDEN["prompts"]):
            count = case["greedy_tokens"]
            got = generate("--prompt", case["prompt"], "--max-tokens", count, *GREEDY)
            tensors = read_safetensors(os.path.join(GOLDEN, "fairy/golden.safetensors"))
            self.assertEqual(got["token_ids"], ints(tensors[f"greedy.{i}"][2]))
            self.assertEqual(got["prompt_ids"], ints(tensors[f"prompt.{i}"][2]))
            self.assertEqual("<｜begin▁of▁sentence｜>" + case["prompt"] + got["text"], case["text"])
            self.assertEqual(got["stop"], "eos" if got["token_ids"][-1] == 1 else "length")

    def test_json_has_the_fixed_keys(self):
        got = generate("--prompt", "Once", "--max-tokens", 5)
        self.assertEqual(list(got), list(KEYS))
        for key, kind in KEYS.items():
            self.assertIsInstance(got[key], kind, key)
        self.assertEqual((got["device"], got["virtual"], got["profile"]), ("host:0", False, "exact"))
        self.assertEqual(got["graph_launches_per_token"], 1)
        self.assertEqual(got["fallbacks"], {})
        self.assertEqual(len(got["token_ids"]), 5)

    def test_hashes_are_equal_everywhere(self):
        prompt = FAIRY_GOLDEN["prompts"][4]["prompt"]  # longer than a step of some ways
        base = ("--prompt", prompt, "--max-tokens", 8, *GREEDY)
        want = generate(*base)
        ways = [("--threads", n) for n in (1, 2, 3)] + [("--chunk", n) for n in (1, 7, 64, 2000)]
        for way in ways:
            self.assertEqual(generate(*base, *way)["logit_hash"], want["logit_hash"], way)
        for isa in ("scalar", "avx2", "avx512"):
            status, out, err = moehal("generate", "--model", FAIRY, *base, "--json",
                                      env={"MOEHAL_HOST_ISA": isa})
            if status:
                self.assertIn("this processor has no " + isa, err)
                continue
            self.assertEqual(json.loads(out)["logit_hash"], want["logit_hash"], isa)
        null = generate(*base, "--device", "null", env=ON_NULL)
        self.assertEqual(null["logit_hash"], want["logit_hash"])
        self.assertEqual(null["device"], "null:0")
        self.assertGreater(null["fallbacks"]["linear"], 0)

    def test_hash_is_of_the_logits_that_eval_writes(self):
        got = generate("--prompt", "Once upon a time", "--max-tokens", 6, *GREEDY)
        ids = got["prompt_ids"] + got["token_ids"][:-1]
        path = self.path("logits.safetensors")
        good("eval", "--model", FAIRY, "--ids", " ".join(map(str, ids)), "--out", path)
        dtype, shape, raw = read_safetensors(path)["logits"]
        self.assertEqual((dtype, shape), ("F32", [len(ids), 4096]))
        chosen = raw[(len(got["prompt_ids"]) - 1) * 4096 * 4:]
        self.assertEqual(hashlib.sha256(chosen).hexdigest(), got["logit_hash"])
        for row, token in enumerate(got["token_ids"]):
            logits = struct.unpack("<4096f", chosen[row * 16384:(row + 1) * 16384])
            self.assertEqual(logits.index(max(logits)), token)

    def test_strict(self):
        got = generate("--prompt", "Once", "--max-tokens", 3, "--strict")
        self.assertEqual(got["fallbacks"], {})
        for strict in (("--strict",), ("--placement", "strict")):
            status, out, err = moehal("generate", "--model", FAIRY, "--prompt", "Once", "--device",
                                      "null", *strict, env=ON_NULL)
            self.assertEqual((status, out), (1, ""))
            self.assertIn("embed (embed_tokens)", err)
            self.assertEqual(err.count("\n"), 1)

    def test_ids_do_what_the_prompt_does(self):
        text = generate("--prompt", "Once upon a time", "--max-tokens", 6, *GREEDY)
        ids = generate("--ids", " ".join(map(str, text["prompt_ids"])), "--max-tokens", 6, *GREEDY)
        for key in ("token_ids", "text", "logit_hash"):
            self.assertEqual(ids[key], text[key])

    def test_a_model_without_a_tokenizer(self):
        model = os.path.join(GOLDEN, "v2-lite")
        got = generate("--ids", "0 17 4", "--max-tokens", 4, model=model)
        self.assertIsNone(got["text"])
        out = good("generate", "--model", model, "--ids", "0,17,4", "--max-tokens", 4)
        self.assertEqual(out.split(), [str(i) for i in got["token_ids"]])

    def test_sampling_depends_on_the_seed_alone(self):
        base = ("--prompt", "The wolf", "--max-tokens", 30, "--temperature", 0.8, "--top-p", 0.9,
                "--top-k", 50, "--seed")
        one = generate(*base, 1)
        self.assertEqual(generate(*base, 1, "--threads", 1, "--chunk", 1)["text"], one["text"])
        self.assertEqual(generate(*base, 1, "--device", "null", env=ON_NULL)["text"], one["text"])
        self.assertNotEqual(generate(*base, 2)["text"], one["text"])
        greedy = generate("--prompt", "The wolf", "--max-tokens", 30, *GREEDY)
        self.assertEqual(generate(*base, 7, "--top-k", 1)["text"], greedy["text"])
        # generation_config.json of the model says temperature 0.7 and top_p 0.95.
        defaults = generate("--prompt", "The wolf", "--max-tokens", 30)
        said = generate("--prompt", "The wolf", "--max-tokens", 30, "--temperature", 0.7, "--top-p",
                        0.95, "--seed", 0)
        self.assertEqual(defaults["text"], said["text"])

    def test_a_bf16_cache(self):
        base = ("--prompt", "Once upon a time", "--max-tokens", 12, *GREEDY, "--kv", "bf16")
        got = generate(*base)
        self.assertEqual(generate(*base, "--chunk", 1)["logit_hash"], got["logit_hash"])
        self.assertEqual(generate(*base, "--device", "null", env=ON_NULL)["logit_hash"],
                         got["logit_hash"])
        self.assertNotEqual(generate(*base[:-2])["logit_hash"], got["logit_hash"])

    def test_fast_without_bf16_units_is_exact(self):
        base = ("--prompt", "Once upon a time there", "--max-tokens", 3, *GREEDY)
        got = generate(*base, "--profile", "fast", env={"MOEHAL_HOST_FAST": "none"})
        self.assertEqual(got["profile"], "fast")
        self.assertEqual(got["logit_hash"], generate(*base)["logit_hash"])
        status, _, err = moehal("generate", "--model", FAIRY, *map(str, base),
                                env={"MOEHAL_HOST_FAST": "tensor"})
        self.assertEqual(status, 2)
        self.assertIn("MOEHAL_HOST_FAST: 'tensor'", err)

    def test_the_environment_chooses_the_device(self):
        got = generate("--prompt", "Once", "--max-tokens", 2, env=dict(ON_NULL, MOEHAL_DEVICE="null"))
        self.assertEqual(got["device"], "null:0")

    def test_the_context_ends_a_text(self):
        model = self.edit_json(self.copy_of(FAIRY), "config.json", max_position_embeddings=12)
        got = generate("--prompt", "Once upon a time", "--max-tokens", 100, *GREEDY, model=model)
        self.assertEqual(len(got["prompt_ids"]) + len(got["token_ids"]), 13)  # the last is never run
        self.assertEqual(got["stop"], "length")

    def test_quiet_in_a_pipe_and_text_as_it_comes(self):
        status, out, err = moehal("generate", "--model", FAIRY, "--prompt", "Once upon a time",
                                  "--max-tokens", 5, *GREEDY)
        self.assertEqual(status, 0)
        self.assertEqual(out, "Once upon a time there lived a man who\n")
        self.assertNotIn("\r", err)
        self.assertIn("host:0", err)
        self.assertIn("tokens/s", err)

    def test_an_interrupt_ends_it_cleanly(self):
        process = subprocess.Popen([TOOL, "generate", "--model", FAIRY, "--prompt", "Once",
                                    "--max-tokens", "2000", "--device", "null"],
                                   env=dict(os.environ, **ON_NULL), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        process.stdout.read(8)  # it speaks
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, err)
        self.assertIn(b"tokens/s", err)

    def test_an_interrupt_ends_a_long_prompt(self):
        command = [TOOL, "generate", "--model", FAIRY, "--ids", " ".join(["5"] * 1900), "--chunk",
                   "2000", "--threads", "1", "--max-tokens", "1", "--device", "null"]
        env = dict(os.environ, **ON_NULL)
        before = processor_time()
        subprocess.run(command, env=env, check=True, capture_output=True)
        whole = processor_time() - before
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, preexec_fn=lambda: os.nice(10))
        caught = 0
        while not caught & 1 << (signal.SIGINT - 1):  # until the command catches it
            self.assertIsNone(process.poll())
            with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
                caught = int(file.read().split("SigCgt:")[1].split()[0], 16)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out, err), (1, b"", b"moehal: interrupted\n"))
        self.assertLess(processor_time() - before - whole, 0.7 * whole)

    def test_bytes_that_are_no_utf8_still_make_json(self):
        # So hot that single bytes of the vocabulary come up, half characters among them.
        texts = [generate("--prompt", "Once", "--max-tokens", 80, "--temperature", 20, "--seed", s)
                 ["text"] for s in range(6)]
        self.assertIn("\ufffd", "".join(texts))

    def test_tokens_end_with_the_first_eos(self):
        got = generate("--prompt", FAIRY_GOLDEN["prompts"][0]["prompt"], "--max-tokens", 400,
                       *GREEDY)
        if got["stop"] == "eos":
            self.assertEqual(got["token_ids"].index(1), len(got["token_ids"]) - 1)
        else:
            self.assertEqual((got["stop"], len(got["token_ids"])), ("length", 400))
            self.assertNotIn(1, got["token_ids"])
        self.assertNotIn("<｜end▁of▁sentence｜>", got["text"])
        # A token the model does write, declared to be eos, ends the text there.
        early = got["token_ids"][5]
        first = got["token_ids"].index(early)
        model = self.copy_of(FAIRY)
        self.edit_json(model, "generation_config.json", eos_token_id=[1, early])
        self.edit_json(model, "config.json", eos_token_id=[1, early])
        short = generate("--prompt", FAIRY_GOLDEN["prompts"][0]["prompt"], "--max-tokens", 400,
                         *GREEDY, model=model)
        self.assertEqual(short["stop"], "eos")
        self.assertEqual(short["token_ids"], got["token_ids"][:first + 1])

    def test_counts_of_launches(self):
        base = ("--prompt", "Once", *GREEDY, "--max-tokens")
        for device, env in (("host", None), ("null", ON_NULL)):
            few, many = (generate(*base, n, "--device", device, env=env) for n in (3, 12))
            self.assertGreater(few["launches_per_token"], 0, device)
            self.assertEqual(few["launches_per_token"], many["launches_per_token"], device)
            self.assertEqual((few["graph_launches_per_token"], many["graph_launches_per_token"]),
                             (1, 1), device)
        self.assertEqual(set(few["fallbacks"]), set(many["fallbacks"]))
        self.assertGreater(sum(many["fallbacks"].values()), sum(few["fallbacks"].values()))

    def test_a_reader_that_goes_away(self):
        for extra in ((), ("--json",)):
            read, write = os.pipe()
            os.close(read)
            done = subprocess.run([TOOL, "generate", "--model", FAIRY, "--prompt", "Once",
                                   "--max-tokens", "20", *extra], stdout=write,
                                  stderr=subprocess.PIPE, restore_signals=True, timeout=60)
            os.close(write)
            # As other commands in a pipe: the signal, or an error that is told. Never a crash.
            self.assertIn(done.returncode, (-signal.SIGPIPE, 1), done.stderr)
            self.assertNotIn(b"Sanitizer", done.stderr)


if __name__ == "__main__":
    main()
