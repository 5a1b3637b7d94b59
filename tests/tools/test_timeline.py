"""--timeline: a Chrome trace and JSON lines that hold what ran."""
import collections
import json

from command import FAIRY, ON_NULL, Folder, good, generate, main, moehal

STEPS = 4
RUN = "--ids", "5 6 7 8", "--max-tokens", str(STEPS), "--temperature", "0"


def nested(events):
    """Do the events of one lane nest: each one ends before the next begins, or inside its parent?"""
    open_until = []
    for begin, end in sorted(events, key=lambda e: (e[0], -e[1])):
        while open_until and open_until[-1] <= begin:
            open_until.pop()
        if open_until and end > open_until[-1]:
            return False
        open_until.append(end)
    return True


def ns(microseconds):
    return round(float(microseconds) * 1000)


class Timeline(Folder):
    def lines(self, *arguments, **options):
        path = self.path("t.jsonl")
        report = generate(*RUN, "--timeline", path, *arguments, **options)
        with open(path, encoding="utf-8") as file:
            return report, [json.loads(line) for line in file]

    def test_lines_hold_every_launch(self):
        report, events = self.lines("--device", "host")
        kinds = collections.Counter(e["type"] for e in events)
        self.assertEqual(set(kinds), {"op", "copy", "wait", "launch", "span", "memory"})
        steps = [e for e in events if e["type"] == "span"]
        self.assertEqual([e["name"] for e in steps], ["prefill"] + ["decode step"] * (STEPS - 1))
        self.assertEqual(kinds["launch"], STEPS)
        nodes = [e["nodes"] for e in events if e["type"] == "launch"]
        ops = [e for e in events if e["type"] == "op"]
        self.assertEqual(len(ops), sum(nodes))
        self.assertEqual(nodes[1:], [report["launches_per_token"]] * (STEPS - 1))
        # Each op lies in its launch, each launch in its span.
        for step in steps:
            inside = [e for e in events if e["type"] == "launch"
                      and step["begin_ns"] <= e["begin_ns"]
                      and e["begin_ns"] + e["ns"] <= step["begin_ns"] + step["ns"]]
            self.assertEqual(len(inside), 1)
            begin, end = inside[0]["begin_ns"], inside[0]["begin_ns"] + inside[0]["ns"]
            self.assertEqual(sum(begin <= e["begin_ns"] and e["begin_ns"] + e["ns"] <= end
                                 for e in ops), inside[0]["nodes"])
        head = [e for e in ops if e["label"] == "lm_head"]
        self.assertEqual(len(head), STEPS)
        self.assertEqual((head[0]["op"], head[0]["layer"], head[0]["rows"]), ("norm_linear", -1, 1))
        layers = {e["layer"] for e in ops}
        with open(FAIRY + "/config.json", encoding="utf-8") as file:
            config = json.load(file)
        self.assertEqual(layers, set(range(-1, config["num_hidden_layers"])))
        self.assertEqual(head[0]["w"], f"bf16 [1, {config['vocab_size']}, {config['hidden_size']}]")

    def test_results_are_the_same(self):
        report, _ = self.lines("--device", "host")
        plain = generate(*RUN, "--device", "host")
        self.assertEqual(report["logit_hash"], plain["logit_hash"])
        self.assertEqual(report["launches_per_token"], plain["launches_per_token"])

    def test_chrome(self):
        path = self.path("t.json")
        generate(*RUN, "--device", "host", "--timeline", path)
        with open(path, encoding="utf-8") as file:
            events = json.load(file)["traceEvents"]
        names = {(e["name"], e["pid"], e["tid"]): e["args"]["name"]
                 for e in events if e["ph"] == "M"}
        self.assertTrue(names["process_name", 1, 0].startswith("host:0 ("))
        self.assertEqual(names["thread_name", 1, 0], "graph launches")
        self.assertEqual(names["thread_name", 1, 1], "stream 1")
        lanes = collections.defaultdict(list)
        for e in events:
            if e["ph"] == "X":
                self.assertIn(("thread_name", e["pid"], e["tid"]), names)
                lanes[e["pid"], e["tid"]].append((ns(e["ts"]), ns(e["ts"]) + ns(e["dur"])))
            else:
                self.assertIn(e["ph"], "MC")
        self.assertGreaterEqual(len(lanes), 3)
        for lane, spans in lanes.items():
            self.assertTrue(nested(spans), lane)
        self.assertFalse(nested([(0, 10), (5, 15)]))  # the check itself
        memory = [e["args"]["bytes"] for e in events if e["ph"] == "C"]
        self.assertGreater(max(memory), 0)
        self.assertEqual(memory[-1], 0)  # all of it was given back

    def test_fallback_is_seen_on_the_host(self):
        report, events = self.lines("--device", "null", env=ON_NULL)
        self.assertGreater(report["fallbacks"]["linear"], 0)
        self.assertEqual({e["device"] for e in events if e["type"] == "op"}, {"host:0"})
        self.assertIn("null:0", {e["device"] for e in events if e["type"] == "copy"})

    def test_other_commands(self):
        text = self.path("text")
        with open(text, "w", encoding="utf-8") as file:
            file.write("Once upon a time there was a king.")
        for arguments in (("eval", "--text", text), ("trace", "--save", self.path("trace"))):
            path = self.path(arguments[0] + ".json")
            good(*arguments, "--model", FAIRY, "--device", "host", "--timeline", path)
            with open(path, encoding="utf-8") as file:
                self.assertTrue(any(e.get("cat") == "op" for e in json.load(file)["traceEvents"]))

    def test_what_cannot_be_written(self):
        status, out, err = moehal("generate", "--model", FAIRY, *RUN, "--timeline", "/dev/full")
        self.assertEqual(status, 1)
        self.assertIn("/dev/full: could not be written", err)
        status, out, err = moehal("generate", "--model", FAIRY, *RUN, "--timeline", "/nowhere/t")
        self.assertNotEqual(status, 0)
        self.assertIn("/nowhere/t: could not be created", err)
        self.assertEqual(out, "")
        status, _, err = moehal("bench", "model", "--model", FAIRY, "--timeline", self.path("t"))
        self.assertEqual(status, 2)
        self.assertIn("--timeline", err)


if __name__ == "__main__":
    main()
