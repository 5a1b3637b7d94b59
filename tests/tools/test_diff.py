"""moehal trace and diff: equal where devices are, and the first wrong op where one is not."""
import json
import os
import re
import struct

from command import FAIRY, GOLDEN, MODULES, NULL_DIR, Folder, good, main, moehal, read_safetensors

WRONG_DIR = os.path.join(os.path.dirname(MODULES), "conformance")
V3 = os.path.join(GOLDEN, "v3")
IDS = " ".join(map(str, range(3, 500, 20)))  # enough for every expert
BOTH = {"MOEHAL_BACKENDS": NULL_DIR + ":" + WRONG_DIR}
PLANTED = dict(BOTH, MOEHAL_WRONG="expert")


def diff(*arguments, env=None):
    status, out, err = moehal("diff", *arguments, "--json", env=env or BOTH)
    assert status in (0, 1), err
    report = json.loads(out)
    assert report["equal"] == (status == 0)
    return report


class Diff(Folder):
    def test_devices_that_agree(self):
        for model, kv in ((FAIRY, "f32"), (V3, "f32"), (V3, "bf16")):
            report = diff("--model", model, "--a", "host", "--b", "null", "--kv", kv)
            self.assertTrue(report["equal"])
            self.assertEqual((report["a"], report["b"], report["virtual"]),
                             ("host:0", "null:0", False))
            self.assertGreater(report["ops"], 100)
        out = good("diff", "--model", FAIRY, "--a", "host", "--b", "host", env=BOTH)
        self.assertRegex(out, r"^host:0 and host:0 agree: \d+ ops, \d+ values\n$")

    def test_a_planted_error_is_named(self):
        # Expert 5 of layer 2 begins a row too early on this device (tests/conformance/wrong.c).
        first = diff("--model", V3, "--a", "host", "--b", "wrong", "--ids", IDS, env=PLANTED)["first"]
        self.assertEqual((first["layer"], first["expert"], first["op"]), (2, 5, "experts_down"))
        self.assertEqual(first["operand"], "slots")
        self.assertNotEqual(first["a_bits"], first["b_bits"])
        for side in "ab":
            bits, = struct.unpack("<f", struct.pack("<I", int(first[side + "_bits"], 16)))
            self.assertEqual(bits, first[side])
        # A row in the place of another: every element of every slot of that expert is wrong.
        self.assertEqual(first["index"][2], 0)
        self.assertEqual(first["differing"] % 192, 0)
        self.assertRegex(first["case"], r"^experts_down/bf16/T\d+\.J4\.D192\.I72\.S16\.E16/")
        status, out, _ = moehal("diff", "--model", V3, "--a", "host", "--b", "wrong", "--ids", IDS,
                                env=PLANTED)
        self.assertEqual(status, 1)
        self.assertIn("layer 2, experts.down_proj, expert 5", out)
        command = re.search(r"moehal (check --device wrong:0 --filter '(.*)')", out)
        self.assertEqual(command[2], first["case"])
        # The kernel is right on its own, and the case says that it ran.
        report = json.loads(good("check", "--device", "wrong", "--filter", first["case"], "--json",
                                 env=PLANTED))
        self.assertEqual((report["passed"], report["native"]), (1, 1))

    def test_a_trace_stands_for_a_device(self):
        path = self.path("host.trace")
        good("trace", "--model", V3, "--device", "host", "--ids", IDS, "--save", path)
        against = "--model", V3, "--ids", IDS, "--against", path
        self.assertTrue(diff("--a", "null", *against)["equal"])
        one = diff("--a", "wrong", *against, env=PLANTED)
        two = diff("--model", V3, "--a", "wrong", "--b", "host", "--ids", IDS, env=PLANTED)
        self.assertEqual(one["first"], two["first"])
        self.assertEqual((one["a"], one["b"]), ("wrong:0", path))

    def test_a_trace_holds_what_eval_does(self):
        ids = "1 2 3 4 5"
        out = good("trace", "--model", V3, "--device", "host", "--ids", ids, "--save",
                   self.path("t"), "--json")
        trace = read_safetensors(self.path("t"))
        good("eval", "--model", V3, "--ids", ids, "--out", self.path("e"))
        dtype, shape, logits = read_safetensors(self.path("e"))["logits"]
        heads = [trace[name] for name in sorted(trace) if name.endswith(".norm_linear.lm_head.y")]
        self.assertEqual(len(heads), 3)  # of the prefill's last token, and of two steps
        row = len(logits) // shape[0]
        for i, head in enumerate(heads):
            self.assertEqual(head, (dtype, [1, shape[1]], logits[(2 + i) * row:(3 + i) * row]))
        self.assertEqual(trace["key.ids"][2], struct.pack("<5i", 1, 2, 3, 4, 5))
        report = json.loads(out)
        self.assertEqual(report["device"], "host:0")
        self.assertEqual(report["bytes"], sum(len(value[2]) for name, value in trace.items()
                                              if not name.startswith("key.")))

    def test_other_traces_are_refused(self):
        path = self.path("a.trace")
        good("trace", "--model", V3, "--device", "host", "--ids", "1 2 3", "--save", path)
        with open(path, "rb") as file:
            data = file.read()
        with open(self.path("cut"), "wb") as file:
            file.write(data[:len(data) // 2])
        plain = os.path.join(V3, "model-00001-of-00002.safetensors")
        for arguments, words in (
                (["--model", V3, "--against", path, "--ids", "1 2 4"], "3 other ids"),
                (["--model", V3, "--against", path, "--ids", "1 2 3", "--kv", "bf16"],
                 "a cache of f32, this one is of bf16"),
                (["--model", FAIRY, "--against", path, "--ids", "1 2 3"], "another model"),
                (["--model", V3, "--against", plain, "--ids", "1 2 3"], "is no trace"),
                (["--model", V3, "--against", self.path("cut"), "--ids", "1 2 3"], "cut"),
                (["--model", V3, "--against", self.path("none")], "none"),
                (["--model", V3, "--against", path, "--b", "host"], "one of --b and --against"),
                (["--model", V3], "one of --b and --against"),
                (["--model", V3, "--b", "nowhere"], "nothing matches"),
                (["--model", V3, "--b", "host", "--ids", "1 99999"], "outside the vocabulary")):
            status, out, err = moehal("diff", "--a", "host", *arguments)
            self.assertEqual((status, out), (2, ""), (arguments, err))
            self.assertIn(words, err)
        for arguments, words in ((["--b", "host"], "--a URI is needed"), ([], "--a URI")):
            status, _, err = moehal("diff", "--model", V3, *arguments)
            self.assertEqual(status, 2)
            self.assertIn(words, err)
        status, _, err = moehal("trace", "--model", V3)
        self.assertEqual(status, 2)
        self.assertIn("--save FILE is needed", err)
        missing = self.path("no", "such", "folder")
        status, _, err = moehal("trace", "--model", V3, "--save", missing)
        self.assertEqual(status, 1)
        self.assertIn(missing, err)


main()
