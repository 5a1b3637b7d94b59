#!/usr/bin/env python3
"""Bad input: exit status 2 and one line that names file, field, value and limit; never a crash."""
import os
import pathlib
import random
import struct
import tempfile

from command import FAIRY, GOLDEN, MODULES, NULL_DIR, Folder, json, main, moehal

V2 = os.path.join(GOLDEN, "v2")
V3 = os.path.join(GOLDEN, "v3")


class BadInput(Folder):
    def refused(self, arguments, *parts, status=2, lines=1, env=None):
        code, _, err = moehal(*arguments, env=env)
        self.assertEqual(code, status, f"{arguments}: {err}")
        for part in parts:
            self.assertIn(part, err, arguments)
        self.assertEqual(err.count("\n"), lines, err)

    def refused_model(self, folder, *parts):
        self.refused(("generate", "--model", folder, "--ids", "0 17", "--max-tokens", 2), *parts)

    # ---- files ----

    def test_directories_and_shards(self):
        self.refused_model(self.path("nowhere"), "nowhere/config.json", "No such file")
        self.refused_model(self.copy_of(V2, "model.safetensors"), "model.safetensors", "No such file")
        self.refused_model(self.copy_of(V3, "model-00002-of-00002.safetensors"),
                           "model-00002-of-00002.safetensors")
        index = self.copy_of(V3)
        path = pathlib.Path(index, "model.safetensors.index.json")
        content = json.loads(path.read_text())
        name = sorted(content["weight_map"])[0]
        content["weight_map"][name] = "../escape.safetensors"
        path.write_text(json.dumps(content))
        self.refused_model(index, name, "../escape.safetensors")

    def test_lying_safetensors(self):
        whole = pathlib.Path(V2, "model.safetensors").read_bytes()
        for size in (0, 7, 100, len(whole) - 1):
            folder = self.copy_of(V2, "model.safetensors")
            pathlib.Path(folder, "model.safetensors").write_bytes(whole[:size])
            self.refused_model(folder, "model.safetensors")
        folder = self.copy_of(V2)
        pathlib.Path(folder, "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + whole[8:])
        self.refused_model(folder, "header length is 1152921504606846976")

        name = "model.layers.1.mlp.experts.3.up_proj.weight"

        def change(key, value):
            def edit(header):
                header[name][key] = value
            return self.edit_header(self.copy_of(V2), edit)

        length = len(whole)
        self.refused_model(change("data_offsets", [0, length * 2]), name, str(length * 2))
        self.refused_model(change("data_offsets", [0, 40 * 128 * 2]), "overlaps")
        self.refused_model(change("data_offsets", [9, 2]), name, "data_offsets")
        self.refused_model(change("dtype", "F32"), name, "bytes")
        self.refused_model(change("dtype", "F7"), name, "'F7'")
        self.refused_model(change("shape", [128, 40]), name, "[128, 40]", "[40, 128]")
        self.refused_model(change("shape", [2**40, 2**40]), name, "2^64")
        self.refused_model(change("shape", [-40, 128]), name, "shape")
        self.refused_model(change("dtype", "I16"), name, "I16", "BF16")

        def rename(header):
            header["other"] = header.pop(name)
        self.refused_model(self.edit_header(self.copy_of(V2), rename), name, "missing")

    def test_config_values(self):
        for key, value, part in (
                ("hidden_act", "gelu", "'gelu'"), ("topk_method", "best", "'best'"),
                ("n_group", 7, "n_group is 7"), ("num_experts_per_tok", 25, "25"),
                ("hidden_size", -1, "-1"), ("hidden_size", 1e30, "hidden_size"),
                ("num_hidden_layers", "3", "num_hidden_layers"), ("vocab_size", None, "missing"),
                ("qk_rope_head_dim", 7, "must be even"), ("model_type", "llama", "'llama'"),
                ("rope_scaling", {"type": "linear", "factor": 2}, "'linear'"),
                ("tie_word_embeddings", True, "tie_word_embeddings"),
                ("quantization_config", {"quant_method": "gptq"}, "'gptq'"),
                ("num_attention_heads", 9, "shape")):
            folder = self.edit_json(self.copy_of(V2), "config.json", **{key: value})
            self.refused_model(folder, part)
        folder = self.copy_of(V2)
        pathlib.Path(folder, "config.json").write_text("{\"hidden_size\": 1,,}")
        self.refused_model(folder, "config.json", "line 1")

    def test_tokenizers(self):
        prompt = ("--prompt", "x", "--max-tokens", 2)
        broken = self.copy_of(FAIRY)
        text = pathlib.Path(FAIRY, "tokenizer.json").read_text(encoding="utf-8")
        pathlib.Path(broken, "tokenizer.json").write_text(text[:1000], encoding="utf-8")
        self.refused(("generate", "--model", broken, *prompt), "tokenizer.json")
        self.edit_json_of_model_type(broken, text)
        self.refused(("generate", "--model", broken, *prompt), "tokenizer.json", "Unigram")
        without = self.copy_of(FAIRY, "tokenizer.json")
        self.refused(("generate", "--model", without, *prompt), "tokenizer.json", "--ids")
        pathlib.Path(without, "tiktoken.model").write_text("IQ== 0\n")
        self.refused(("generate", "--model", without, *prompt), "tiktoken", "--ids")
        self.refused(("generate", "--model", FAIRY, "--prompt", os.fsdecode(b"a\xff")), "UTF-8")

    def edit_json_of_model_type(self, folder, text):
        content = json.loads(text)
        content["model"]["type"] = "Unigram"
        pathlib.Path(folder, "tokenizer.json").write_text(json.dumps(content))

    def test_json_of_the_wrong_form(self):
        for text in ("", "[]", "3", "[" * 5000, "{", "null", "{\"hidden_size\": 1e999}"):
            folder = self.copy_of(V2)
            pathlib.Path(folder, "config.json").write_text(text)
            self.refused_model(folder, "config.json")
        for text in ("", "[]", "{}", "{\"weight_map\": 3}", "{\"weight_map\": {\"a\": 1}}"):
            folder = self.copy_of(V3)
            pathlib.Path(folder, "model.safetensors.index.json").write_text(text)
            self.refused_model(folder, "model.safetensors.index.json")
        for name in ("config.json", "model.safetensors"):
            folder = self.copy_of(V2, name)
            os.mkdir(os.path.join(folder, name))
            self.refused_model(folder, name)

    def test_damage_never_crashes(self):
        """Bytes changed at random, the same ones every time: it runs, or says why not in a line."""
        rand = random.Random(1)
        files = ((V2, "config.json"), (V2, "model.safetensors"), (FAIRY, "tokenizer.json"),
                 (V3, "model.safetensors.index.json"), (FAIRY, "tokenizer_config.json"),
                 (FAIRY, "generation_config.json"),
                 (os.path.join(GOLDEN, "v3-fp8"), "model.safetensors"))
        refused = 0
        for case in range(105):
            source, name = files[case % len(files)]
            data = bytearray(pathlib.Path(source, name).read_bytes())
            header = 8 + struct.unpack("<Q", data[:8])[0] if name.endswith(".safetensors") else 0
            for _ in range(rand.choice((1, 2, 5))):
                at = rand.randrange(header or len(data))
                way = rand.random()
                if way < 0.5:
                    data[at] = rand.choice(b"0123456789{}[]\",:-eE.\0\xff")
                elif way < 0.75:
                    data[at] ^= 1 << rand.randrange(8)
                else:
                    del data[at]
            folder = self.linked(source, name, data)
            prompt = ("--prompt", "Once <x> é") if source == FAIRY else ("--ids", "0 1")
            code, _, err = moehal("generate", "--model", folder, "--max-tokens", 1, *prompt)
            self.assertIn(code, (0, 2), f"case {case}, {name}: {err}")
            if code:
                refused += 1
                self.assertEqual(err.count("\n"), 1, f"case {case}, {name}: {err}")
        self.assertGreater(refused, 50)

    def linked(self, source, name, data):
        """A folder like `source` but for one file, without copying the rest."""
        folder = tempfile.mkdtemp(dir=self.folder)
        for other in os.listdir(source):
            if other != name:
                os.symlink(os.path.join(source, other), os.path.join(folder, other))
        pathlib.Path(folder, name).write_bytes(data)
        return folder

    # ---- arguments ----

    def test_prompts_and_ids(self):
        model = ("generate", "--model", FAIRY)
        self.refused((*model, "--ids", "0 4096"), "ids[1]", "4096")
        self.refused((*model, "--ids", "-1"), "ids[0]", "-1")
        self.refused((*model, "--ids", "1 x"), "'x'", lines=2)
        self.refused((*model, "--ids", "99999999999"), "'99999999999'", lines=2)
        self.refused((*model, "--ids", "1.5"), "'1.5'", lines=2)
        self.refused((*model, "--prompt", "word " * 3000), "2048")
        self.refused(("eval", "--model", FAIRY, "--ids", " ".join(["5"] * 2049)), "2049", "2048")
        self.refused(("eval", "--model", FAIRY, "--ids", "0 4096"), "ids[1]", "4096")
        self.refused((*model, "--ids", ""), "no token", lines=2)
        self.refused((*model, "--ids", " ".join(["5"] * 2049)), "2049 tokens", "2048")
        self.refused((*model,), "--prompt", lines=2)
        self.refused((*model, "--ids", "1", "--prompt", "x"), "one of", lines=2)

    def test_options(self):
        base = ("generate", "--model", FAIRY, "--ids", "1")
        for option, value, part in (
                ("--max-tokens", "0", "out of range"), ("--temperature", "nan", "not a number"),
                ("--top-p", "2", "out of range"), ("--chunk", "0", "out of range"),
                ("--kv", "f64", "'f64'"), ("--profile", "quick", "'quick'"),
                ("--threads", "x", "'x'"), ("--seed", "-1", "out of range"),
                ("--placement", "moon", "'moon'"), ("--placement", "redundant=x", "'redundant=x'"),
                ("--placement", "strict,load=", "'load='"), ("--offload", "0", "'0'"),
                ("--offload", "some", "'some'"),
                ("--device", "host,,host", "empty"), ("--nonsense", "1", "--nonsense")):
            self.refused((*base, option, value), part, lines=2)
        self.refused((*base, "--placement", f"load={self.path('none')}"), "none")
        self.refused((*base, "--expert-load", self.path("no/file"), "--max-tokens", 1, "--json"), "no/file",
                     status=1)
        bad = pathlib.Path(self.path("load.json"))
        good_load = '{"experts": 16, "layers": [null' + f", [{', '.join('1' * 16)}]" * 5 + "]}"
        for text, part in (("[]", "object"), ('{"experts": 15, "layers": []}', "must be 16"),
                           ('{"experts": 16, "layers": []}', "list of 6"),
                           (good_load.replace("null", "[1]"), "layers[0] must be null"),
                           (good_load.replace("[1,", "[1, 1,", 1), "layers[1] must be a list of 16"),
                           (good_load.replace("[1,", "[-1,", 1), "layers[1][0]"),
                           (good_load.replace("[1,", "[1.5,", 1), "layers[1][0]")):
            bad.write_text(text)
            self.refused((*base, "--placement", f"load={bad}"), "load.json", part)
        bad.write_text(good_load)
        self.assertEqual(moehal(*base, "--max-tokens", 1, "--placement", f"load={bad}")[0], 0)
        self.refused(("eval", "--model", FAIRY), "--ids", "--text", lines=2)
        self.refused(("eval", "--model", FAIRY, "--ids", "1", "--hidden"), "--out", lines=2)
        self.refused(("synth", "v3"), "--out", lines=2)
        self.refused(("inspect",), "DIR", lines=2)
        for command in ("devices", "inspect", "synth", "chat", "eval"):
            self.refused((command, "--nonsense"), "--nonsense", lines=2)
        self.refused((*base, "--seed"), "needs a value", lines=2)
        self.refused(("generate", "--ids", "1"), "--model", lines=2)
        self.refused((*base, "extra"), "'extra'", lines=2)
        code, _, err = moehal("fly")
        self.assertEqual((code, "'fly'" in err), (2, True))
        self.assertEqual(moehal()[0], 2)

    def test_devices_and_modules(self):
        base = ("generate", "--model", V2, "--ids", "1", "--max-tokens", 1)
        self.refused((*base, "--device", "nvidia:7"), "nvidia:7", "host:0")
        self.refused((*base, "--device", "host:4"), "host:4")
        self.refused((*base,), "'turbo'", env={"MOEHAL_HOST_ISA": "turbo"})
        if MODULES:
            code, out, _ = moehal("devices", env={"MOEHAL_BACKENDS": f"{MODULES}:{NULL_DIR}"})
            self.assertEqual(code, 0)
            self.assertIn("MH_ABI 8, this library has MH_ABI 1", out)
            self.assertIn("fuse blown", out)
            self.assertIn("PASS  null:0", out)

    def test_other_commands(self):
        self.refused(("eval", "--model", V2, "--text", self.path("none.txt")), "tokenizer.json")
        self.refused(("eval", "--model", FAIRY, "--text", self.path("none.txt")), "none.txt")
        self.refused(("eval", "--model", V2, "--ids", "1", "--out", self.path("no/file")), "no/file",
                     status=1)
        self.refused(("chat", "--model", FAIRY, "--template", "nothing"), "nothing")
        self.refused(("chat", "--model", V2), "tokenizer.json")
        self.refused(("inspect", self.path("none")), "none/config.json")
        self.refused(("inspect", "v9"), "'v9'")
        self.refused(("inspect", "v3", "--kv", "f64"), "'f64'", lines=2)
        self.refused(("inspect", "v3", "--dtype", "fp4"), "'fp4'", lines=2)
        self.refused(("inspect", "v3", "--context", 1 << 29), "163840")
        self.refused(("synth", "v9", "--out", self.path("x")), "'v9'")
        self.refused(("synth", os.path.join(V2, "config.json"), "--out", self.copy_of(V2)),
                     "is there already")


if __name__ == "__main__":
    main()
