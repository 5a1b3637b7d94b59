"""moehal bench: what it prints is what it says it is. Times are never asserted."""
import glob
import json
import os
import re
import unittest

from command import FAIRY, GOLDEN, ON_NULL, good, main, moehal, read_json, read_safetensors

SHORT = "--prefill", "24", "--decode", "2", "--rounds", "1"


def bench(*arguments, env=None):
    return json.loads(good("bench", *arguments, "--json", env=env))


def counted(model):
    """Bytes of a step and elements of matrices a token, counted here from the file alone."""
    config = read_json(model, "config.json")
    share = config["num_experts_per_tok"] / config["n_routed_experts"]
    total, elements, head = 0, 0, 0
    tensors = {}
    for path in glob.glob(os.path.join(model, "model*.safetensors")):
        tensors.update(read_safetensors(path))
    for name, (_, shape, data) in tensors.items():
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
                (("bandwidth", "--model", FAIRY), "--model"),
                (("bandwidth", "--against", FAIRY), "--against"),
                (("bandwidth", "--device", "nothing"), "nothing")):
            status, out, err = moehal("bench", *arguments)
            self.assertEqual(status, 2, (arguments, err))
            self.assertIn(words, err)
            self.assertEqual(out, "")


if __name__ == "__main__":
    main()
