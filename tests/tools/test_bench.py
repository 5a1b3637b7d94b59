"""moehal bench: what it prints is what it says it is. Times are never asserted."""
import glob
import json
import os
import re
import unittest

from command import FAIRY, GOLDEN, ON_NULL, ROOT, good, main, moehal, read_json, read_safetensors

SHORT = "--prefill", "24", "--decode", "2", "--rounds", "1"


def bench(*arguments, env=None):
    return json.loads(good("bench", *arguments, "--json", env=env))


def tensors_of(model):
    tensors = {}
    for path in glob.glob(os.path.join(model, "model*.safetensors")):
        tensors.update(read_safetensors(path))
    return tensors


def counted(model):
    """Bytes of a step and elements of matrices a token, counted here from the file alone."""
    config = read_json(model, "config.json")
    share = config["num_experts_per_tok"] / config["n_routed_experts"]
    total, elements, head = 0, 0, 0
    for name, (_, shape, data) in tensors_of(model).items():
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        if layer and int(layer[1]) >= config["num_hidden_layers"]:
            continue  # multi-token prediction
        part = share if ".experts." in name else 1
        if name == "model.embed_tokens.weight":
            part = 1 / shape[0]
        total += part * len(data)
        if len(shape) == 2 and not name.endswith("_scale_inv"):
            count = shape[0] * shape[1]
            if name == "lm_head.weight":
                head = count
            elif name != "model.embed_tokens.weight":
                elements += part * count
    return round(total), elements, head


class BenchModel(unittest.TestCase):
    def test_fields(self):
        r = bench("model", "--model", FAIRY, "--device", "host", *SHORT)
        self.assertEqual((r["device"], r["virtual"], r["profile"]), ("host:0", False, "exact"))
        self.assertEqual((r["prefill"], r["decode"], r["rounds"]), (24, 2, 1))
        self.assertEqual(r["fallbacks"], {})
        for name in ("prefill_tokens_per_s", "decode_tokens_per_s", "read_GBps", "bandwidth_GBps",
                     "prefill_GFLOPS", "fma_GFLOPS", "read_share", "fma_share"):
            self.assertGreater(r[name], 0, name)
        self.assertEqual(r["graph_launches_per_token"], 1)
        text = good("bench", "model", "--model", FAIRY, *SHORT)
        for word in ("host:0", "prefill", "decode", "GFLOPS", "GB/s", "1 rounds"):
            self.assertIn(word, text)

    def test_counts_are_the_files(self):
        for model in (FAIRY, *(os.path.join(GOLDEN, name) for name in ("v2-lite", "v3", "v3-fp8"))):
            total, elements, head = counted(model)
            r = bench("model", "--model", model, *SHORT)
            self.assertEqual(r["weight_bytes_per_token"], total, model)
            # One round: the medians are its own values, and all of one time.
            self.assertAlmostEqual(r["read_GBps"] / (1e-9 * total * r["decode_tokens_per_s"]), 1, 4)
            self.assertAlmostEqual(r["read_share"] * r["bandwidth_GBps"] / r["read_GBps"], 1, 4)
            flop = 2 * (elements * 24 + head)
            seconds = 24 / r["prefill_tokens_per_s"]
            self.assertAlmostEqual(r["prefill_GFLOPS"] * seconds / (1e-9 * flop), 1, 4)
            self.assertAlmostEqual(r["fma_share"] * r["fma_GFLOPS"] / r["prefill_GFLOPS"], 1, 4)

    def test_parts(self):
        r = bench("model", "--model", FAIRY, "--prefill", "0", "--decode", "1", "--rounds", "2")
        self.assertIsNone(r["prefill_tokens_per_s"])
        self.assertIsNone(r["prefill_GFLOPS"])
        self.assertGreater(r["decode_tokens_per_s"], 0)
        r = bench("model", "--model", FAIRY, "--prefill", "8", "--decode", "0", "--rounds", "1")
        self.assertIsNone(r["decode_tokens_per_s"])
        self.assertIsNone(r["launches_per_token"])
        self.assertGreater(r["prefill_tokens_per_s"], 0)

    def test_two_checkpoints(self):
        other = os.path.join(GOLDEN, "v3")
        r = bench("model", "--model", FAIRY, "--against", other, *SHORT)
        self.assertEqual(r["model"], FAIRY)
        self.assertEqual(r["against"]["model"], other)
        self.assertEqual(r["against"]["weight_bytes_per_token"], counted(other)[0])
        # One round: the ratio of the medians is the ratio.
        self.assertAlmostEqual(r["decode_time_ratio"] * r["decode_tokens_per_s"]
                               / r["against"]["decode_tokens_per_s"], 1, 4)
        self.assertAlmostEqual(r["prefill_time_ratio"] * r["prefill_tokens_per_s"]
                               / r["against"]["prefill_tokens_per_s"], 1, 4)
        text = good("bench", "model", "--model", FAIRY, "--against", FAIRY, *SHORT)
        self.assertIn("of the second's time", text)

    def test_a_device_without_kernels(self):
        r = bench("model", "--model", FAIRY, "--device", "null", *SHORT, env=ON_NULL)
        self.assertEqual(r["device"], "null:0")
        self.assertIn("linear", r["fallbacks"])
        self.assertIsNone(r["bandwidth_GBps"])
        self.assertIsNone(r["read_share"])
        self.assertGreater(r["read_GBps"], 0)
        text = good("bench", "model", "--model", FAIRY, "--device", "null", *SHORT, env=ON_NULL)
        self.assertIn("fell back to the host: linear, ", text)
        status, _, err = moehal("bench", "model", "--model", FAIRY, "--device", "null", "--strict",
                                *SHORT, env=ON_NULL)
        self.assertEqual(status, 1, err)


    def test_batches(self):
        r = bench("model", "--model", FAIRY, "--batch", "1,3", *SHORT)
        self.assertEqual([b["batch"] for b in r["batches"]], [1, 3])
        one, three = r["batches"]
        self.assertEqual(one["weight_bytes_per_step"], r["weight_bytes_per_token"])
        self.assertEqual(one["gain"], 1)
        self.assertAlmostEqual(three["gain"] * one["decode_tokens_per_s"]
                               / three["decode_tokens_per_s"], 1, 4)
        # Of E experts a token wants k; three want E (1 - (1 - k / E)^3), if all are alike.
        config = read_json(FAIRY, "config.json")
        experts, k = config["n_routed_experts"], config["num_experts_per_tok"]
        bank = sum(len(data) for name, (_, _, data) in tensors_of(FAIRY).items()
                   if ".mlp.experts." in name and
                   int(name.split(".")[2]) < config["num_hidden_layers"])
        more = (1 - (1 - k / experts) ** 3 - k / experts) * bank
        row = 2 * config["hidden_size"]
        self.assertAlmostEqual(three["weight_bytes_per_step"],
                               one["weight_bytes_per_step"] + more + 2 * row, delta=2)
        self.assertIn("a batch of 3 gives", good("bench", "model", "--model", FAIRY, "--batch",
                                                 "1,3", *SHORT))
        r = bench("model", "--model", FAIRY, "--batch", "2", "--prefill", "0", "--decode", "1",
                  "--rounds", "1")
        self.assertEqual([b["batch"] for b in r["batches"]], [2])
        self.assertEqual(r["graph_launches_per_token"], 0.5)


class BenchOp(unittest.TestCase):
    def test_fields(self):
        r = bench("op", "linear", "--shape", "fp8/T2.O160.I130", "--device", "host", "--rounds", "1")
        self.assertEqual((r["device"], r["virtual"], r["op"]), ("host:0", False, "linear"))
        self.assertEqual(r["case"], "linear/fp8/T2.O160.I130/dense/random/plain")
        scales = 4 * 2 * 2
        self.assertEqual(r["bytes"], 160 * 130 + scales + 4 * 2 * (160 + 130))
        self.assertEqual(r["flop"], 2 * 2 * 160 * 130)
        for name in ("microseconds", "GBps", "GFLOPS", "bandwidth_GBps", "fma_GFLOPS"):
            self.assertGreater(r[name], 0, name)
        self.assertEqual(r["counters"], {})
        text = good("bench", "op", "linear", "--shape", "T1.O64.I64", "--rounds", "1", "--counters")
        for word in ("linear/bf16/T1.O64.I64/", "us", "GB/s", "GFLOPS", "counts nothing"):
            self.assertIn(word, text)

    def test_experts_count_once(self):
        shape = "bf16/T1.J4.D64.I32.S8.E8"
        r = bench("op", "experts_down", "--shape", shape, "--rounds", "1")
        banks = 4 * 64 * 32 * 2  # four of the eight
        self.assertEqual(r["bytes"], banks + 4 * (4 * 64 + 4 * 32) + 4 * 4 + 4)
        self.assertEqual(r["flop"], 2 * 4 * 64 * 32)

    def test_fused_ops_count_their_parts(self):
        """From the formulas of docs/ops.md: products by their sizes, operands by their shapes."""
        def counts(case):
            r = bench("op", case.split("/")[0], "--shape", case, "--rounds", "1")
            self.assertEqual(r["case"], case)
            return r["bytes"], r["flop"]

        f32, bf16, fault = 4, 2, 4
        t, o, u, i = 2, 48, 32, 64  # y [T, O], y2 [T, U], x [T, I], norm [I]; w [O, I], w2 [U, I]
        self.assertEqual(
            counts(f"norm_linear/bf16/T{t}.O{o}.U{u}.I{i}/dense/random/pair"),
            (f32 * (t * o + t * u + t * i + i) + bf16 * (o + u) * i, 2 * t * (o + u) * i))

        # Absorbing: for each head [N] times the first N of its N + U rows [L]; mla_kv has no product.
        t, h, l, r, n, u = 2, 3, 64, 16, 32, 16
        cache = bf16 * t * (l + r)  # one row of it for each token
        tensors = f32 * (t * h * (l + r) + t * h * (n + r) + t * (l + r) + l) + 4 * (t + t)
        self.assertEqual(
            counts(f"mla_qkv/bf16-bf16/T{t}.H{h}.L{l}.R{r}.P8.Q2.M4.N{n}.U{u}/dense/random/plain"),
            (cache + tensors + fault + bf16 * h * n * l, 2 * t * h * n * l))

        t, e, i, j = 2, 16, 64, 4  # logits [T, E] stay inside
        bytes_ = 4 * t * j + f32 * (t * j + t * i + t * i + i) + bf16 * e * i
        self.assertEqual(counts(f"norm_router/bf16/T{t}.E{e}.I{i}.J{j}.G1.W1/dense/random/sigmoid"),
                         (bytes_, 2 * t * e * i))
        self.assertEqual(
            counts(f"norm_router/bf16/T{t}.E{e}.I{i}.J{j}.G1.W1/dense/random/sigmoid-bias"),
            (bytes_ + f32 * e, 2 * t * e * i))

        # One row: as many experts of the bank as it chooses, then the shared ones.
        j, d, i, n = 3, 64, 32, 48
        sizes = f"T1.J{j}.D{d}.I{i}.N{n}.S8.E8/dense/random/plain"
        self.assertEqual(
            counts("moe_gate_up/bf16/" + sizes),
            (f32 * (j * i + n + d) + 4 * j + fault + bf16 * 2 * (j * i + n) * d,
             2 * 2 * (j * i + n) * d))
        self.assertEqual(
            counts("moe_down_combine/bf16/" + sizes),
            (f32 * (d + d + j * i + n + j) + 4 * j + fault + bf16 * (j * i + n) * d,
             2 * (j * i + n) * d))

    def test_every_op_has_a_shape(self):
        with open(os.path.join(ROOT, "hal/include/moehal/ops.def"), encoding="utf-8") as file:
            ops = re.findall(r"^MH_OP\(\d+, \w+, (\w+),", file.read(), re.M)
        self.assertGreater(len(ops), 20)
        for op in ops:
            r = moehal("bench", "op", op, "--shape", "no such shape")
            self.assertEqual(r[0], 2, op)
            default = re.search(r"sizes like ([A-Z0-9.]+),", r[2])
            self.assertTrue(default, (op, r[2]))
        for op in ("rmsnorm", "attention", "router", "copy", "cast", "fill", "mla_kv"):
            for shape in ("v2-lite", "v3"):
                r = bench("op", op, "--shape", shape, "--rounds", "1")
                self.assertEqual(r["op"], op)
                self.assertIsNone(r["read_share"])
        self.assertIn("mla_qkv/bf16-f32/", bench("op", "mla_qkv", "--rounds", "1")["case"])


class BenchBandwidth(unittest.TestCase):
    def test_fields(self):
        r = bench("bandwidth", "--device", "host", "--rounds", "1")
        self.assertEqual((r["device"], r["virtual"], r["rounds"]), ("host:0", False, 1))
        self.assertGreater(r["bandwidth_GBps"], 0)
        self.assertGreater(r["fma_GFLOPS"], 0)
        text = good("bench", "bandwidth", "--device", "host", "--rounds", "1", "--threads", "1")
        for word in ("host:0", "GB/s", "GFLOPS", "1 thread;"):
            self.assertIn(word, text)

    def test_a_device_without_kernels(self):
        r = bench("bandwidth", "--device", "null", "--rounds", "1", env=ON_NULL)
        self.assertEqual((r["bandwidth_GBps"], r["fma_GFLOPS"]), (None, None))
        self.assertIn("not measured", good("bench", "bandwidth", "--device", "null", "--rounds",
                                           "1", env=ON_NULL))


class BenchUsage(unittest.TestCase):
    def test_bad(self):
        for arguments, words in (
                ((), "what to measure"),
                (("speed",), "'speed'"),
                (("model", "twice", "--model", FAIRY), "'twice'"),
                (("model",), "--model"),
                (("model", "--model", "/nowhere"), "/nowhere"),
                (("model", "--model", FAIRY, "--against", "/nowhere"), "/nowhere"),
                (("model", "--model", FAIRY, "--prefill", "0", "--decode", "0"), "nothing"),
                (("model", "--model", FAIRY, "--prefill", "100000"), "limit"),
                (("model", "--model", FAIRY, "--rounds", "0"), "--rounds"),
                (("model", "--model", FAIRY, "--decode", "-1"), "--decode"),
                (("model", "--model", FAIRY, "--device", "nothing"), "nothing"),
                (("model", "--model", FAIRY, "--batch", "0"), "--batch"),
                (("model", "--model", FAIRY, "--batch", "1,x"), "1,x"),
                (("model", "--model", FAIRY, "--batch", "1,2,3,4,5,6,7,8,9"), "at most 8"),
                (("model", "--model", FAIRY, "--shape", "v3"), "--shape"),
                (("op",), "docs/ops.md"),
                (("op", "nonsense"), "'nonsense'"),
                (("op", "linear", "--shape", "q8/T1.O64.I64"), "q8/T1.O64.I64"),
                (("op", "linear", "--shape", "T1.O64"), "T1.O64"),
                (("op", "linear", "--profile", "quick"), "'quick'"),
                (("op", "linear", "--batch", "2"), "--batch"),
                (("bandwidth", "--model", FAIRY), "--model"),
                (("bandwidth", "--against", FAIRY), "--against"),
                (("bandwidth", "--device", "nothing"), "nothing")):
            status, out, err = moehal("bench", *arguments)
            self.assertEqual(status, 2, (arguments, err))
            self.assertIn(words, err)
            self.assertEqual(out, "")


if __name__ == "__main__":
    main()
