"""Experts spread over devices: the tokens and the logit hash of one device, over whatever mixture.

argv: as command.py; then the folders of backends, and quick|brief|slow|full; brief is quick for sanitizers.
Devices that this build has no backend for are left out, and said. The virtual GPUs are virtual.
"""
import json
import os
import pathlib
import re
import sys
import tempfile
import unittest

BACKENDS, FORM = sys.argv[5:7]
from command import FAIRY, GOLDEN, generate, good, moehal, read_json, read_safetensors  # noqa: E402

IDS = ("--ids", "0 5 9 17 3", "--max-tokens", 3)
ENV = {"MOEHAL_BACKENDS": BACKENDS}
SMALL = ["host,host,host", "nvidia:0,nvidia:1", "amd:0,amd:1", "nvidia:0,amd:0,host"]
LARGE = [",".join(f"{vendor}:{i}" for i in range(count))
         for vendor, count in (("nvidia", 4), ("nvidia", 8), ("amd", 8))] + ["opencl:0,nvidia:0,amd:0,host"]
MODELS = ["v3", "v2", "v2-lite", "v3-fp8", "moonlight"]
# slow: one model on all, and each of the others on one of them.
RUNS = {"quick": [("v3", devices) for devices in SMALL],
        "brief": [("v3", devices) for devices in SMALL],
        "slow": [("v3", devices) for devices in LARGE] + list(zip(MODELS[1:], LARGE[1:] + LARGE[:1])),
        "full": [(model, devices) for model in MODELS for devices in SMALL + LARGE]}


class Spread(unittest.TestCase):
    def test_bits_are_those_of_one_device(self):
        listed = good("devices", "--virtual", "--json", env=ENV)
        alone = {}
        for model, devices in RUNS[FORM]:
            path = os.path.join(GOLDEN, model)
            missing = [d for d in devices.split(",") if d != "host" and f'"{d}"' not in listed]
            if missing:
                print(f"{model} on {devices}: not tried: this build has no {missing[0]}")
                continue
            if model not in alone:
                alone[model] = generate(*IDS, "--device", "host", model=path)
            with self.subTest(model=model, devices=devices):
                many = generate(*IDS, "--device", devices, "--virtual", "--strict", model=path, env=ENV)
                for key in ("token_ids", "logit_hash"):
                    self.assertEqual(many[key], alone[model][key], key)
                self.assertEqual(len(many["device"].split(",")), len(devices.split(",")))
                self.assertEqual(many["fallbacks"], {})


@unittest.skipUnless(FORM in ("quick", "brief"), "in the quick form")
class Placement(unittest.TestCase):
    def test_experts_go_where_they_are_chosen_least(self):
        listed = good("devices", "--virtual", "--json", env=ENV)
        path = os.path.join(GOLDEN, "v3")
        ids = ("--ids", "0 5 9 17 3 2 8 1 7 22 4 9", "--max-tokens", 3)
        with tempfile.TemporaryDirectory() as folder:
            one, two = (os.path.join(folder, name) for name in ("one.json", "two.json"))
            want = generate(*ids, "--device", "host", "--expert-load", one, model=path)
            generate(*ids, "--device", "host,host", "--expert-load", two, model=path)
            counted = read_json(one)
            self.assertEqual(counted, read_json(two))
            for layer in counted["layers"]:  # each of 12 + 2 tokens chose 4
                self.assertTrue(layer is None or sum(layer) == 14 * 4)
            for devices in ("host,host,host", "nvidia:0,amd:0,host"):
                if any(d != "host" and f'"{d}"' not in listed for d in devices.split(",")):
                    print(f"{devices}: not tried: this build lacks one of them")
                    continue
                for words, places in ((f"load={one},redundant=4", 20), (f"load={one}", 16),
                                      ("redundant=32", 48))[:1 if "amd" in devices else 3]:
                    many = generate(*ids, "--device", devices, "--virtual", "--strict", "--placement",
                                    words, model=path, env=ENV)
                    self.assertEqual(many["logit_hash"], want["logit_hash"], words)
                    self.assertEqual(sum(many["experts"]), places, words)
            busiest = []
            for words in ("auto", f"load={one}", f"load={one},redundant=8"):
                plan = json.loads(good("inspect", path, "--device", "host,host,host,host", "--json",
                                       "--placement", words))
                busiest.append(max(rank["bytes_out_per_token"] for rank in plan["devices"]))
            # Planned as if all were chosen alike, 1 is even; the other two go by the file.
            layers = len([layer for layer in counted["layers"] if layer])
            even = layers * 4 * 4 * read_json(path, "config.json")["hidden_size"] / 4
            self.assertEqual(busiest[0], even)
            self.assertLess(busiest[2], 1.1 * even)
            self.assertLessEqual(busiest[2], busiest[1])

    @unittest.skipIf(FORM == "brief", "in the quick form")
    def test_experts_go_where_there_is_room(self):
        listed = good("devices", "--virtual", "--json", env=ENV)
        config = read_json(FAIRY, "config.json")
        sizes = {True: 0, False: 0}
        for file in pathlib.Path(FAIRY).glob("*.safetensors"):
            for name, (_, _, data) in read_safetensors(file).items():
                if f".layers.{config['num_hidden_layers']}." not in name:  # the MTP layer stays behind
                    sizes[".experts." in name] += len(data)
        count = config["n_routed_experts"]
        ids = ("--ids", "0 5", "--max-tokens", 2, "--chunk", 8)
        one = generate(*ids, "--device", "host")
        for vendor, room in (("nvidia", 0), ("nvidia", count // 3), ("amd", count // 2 - 1)):
            if f'"{vendor}:0"' not in listed:
                print(f"{vendor}: not tried: this build has none")
                continue
            # What stays free is 64 MiB, or an eighth if that is more.
            memory = int(sizes[False] + (room + 0.5) * sizes[True] / count) + (64 << 20)
            env = dict(ENV, MOEHAL_VIRTUAL_MEMORY=str(memory))
            many = generate(*ids, "--device", f"{vendor}:0,host", "--virtual", "--strict", env=env)
            here, rest = many["experts"]
            self.assertEqual(here + rest, count)
            if vendor == "nvidia":
                self.assertEqual(here, room)
            else:  # code objects take some of it
                self.assertTrue(0 < here <= room, here)
            self.assertEqual(many["logit_hash"], one["logit_hash"])
            if room:  # with another like it all would fit
                if vendor == "amd":  # the others, on another model, in the next test
                    continue
                alone = generate(*ids, "--device", f"{vendor}:0", "--virtual", "--strict", "--offload",
                                 "auto", env=env)
                self.assertEqual(alone["logit_hash"], one["logit_hash"])
                self.assertEqual(alone["offload"]["places"], here)
                continue
            status, _, err = moehal("generate", "--model", FAIRY, *ids, "--device",
                                    f"{vendor}:0,{vendor}:1", "--virtual", env=env)
            self.assertEqual(status, 1)
            first, second = map(int, re.search(r"room for (\d+), (\d+) of them", err).groups())
            self.assertEqual(first, room)
            self.assertTrue(room < second < count)  # it has no head

    def fetches(self, steps, places):
        """Hits and misses of a layer by the words of docs/spread.md; steps: a set of experts each."""
        there, used, turn, hits, misses = list(range(places)), [0] * places, 0, 0, 0
        for chosen in steps:
            needed, first = set(chosen), True
            while needed:
                turn += 1
                for place, expert in enumerate(there):
                    if expert in needed:
                        used[place] = turn
                        needed.remove(expert)
                        hits += first
                for expert in sorted(needed):
                    free = [place for place in range(places) if used[place] < turn]
                    if not free:
                        break
                    place = min(free, key=lambda place: (used[place], place))
                    there[place], used[place] = expert, turn
                    needed.remove(expert)
                    misses += 1
                first = False
        return hits, misses

    def test_experts_are_fetched_when_chosen(self):
        listed = good("devices", "--virtual", "--json", env=ENV)
        path = os.path.join(GOLDEN, "v3")
        config = read_json(path, "config.json")
        count, layers = config["n_routed_experts"], config["num_hidden_layers"]
        ids, tokens = "0 5 9 17 3 2 8 1", 3
        loads = []
        with tempfile.TemporaryDirectory() as folder:  # what each step chose: prefill, then one by one
            for written in range(1, tokens + 1):
                file = os.path.join(folder, "load.json")
                one = generate("--ids", ids, "--max-tokens", written, "--device", "host",
                               "--expert-load", file, model=path)
                loads.append([layer for layer in read_json(file)["layers"] if layer])
        steps = [[{e for e in range(count) if now[layer][e] > (before[layer][e] if before else 0)}
                  for now, before in zip(loads, [None] + loads)] for layer in range(len(loads[0]))]
        for device, places in (("nvidia:0", count // 3), ("amd:0", 2), ("opencl:0", 1)):
            if f'"{device}"' not in listed:
                print(f"{device}: not tried: this build has none")
                continue
            got = generate("--ids", ids, "--max-tokens", tokens, "--device", device, "--virtual", "--strict",
                           "--offload", places, model=path, env=ENV)
            self.assertEqual(got["logit_hash"], one["logit_hash"], device)
            if got["offload"] is None:
                print(f"{device}: has the host's memory, where nothing is fetched")
                continue
            want = [sum(values) for values in zip(*(self.fetches(layer, places) for layer in steps))]
            offload = got["offload"]
            self.assertEqual([offload["places"], offload["hits"], offload["misses"]], [places, *want])
            sizes = {name: len(data) for file in pathlib.Path(path).glob("*.safetensors")
                     for name, (_, _, data) in read_safetensors(file).items()
                     if ".experts." in name and f".layers.{layers}." not in name}
            expert = sum(sizes.values()) // (count * len(steps))
            self.assertAlmostEqual(offload["bytes_per_token"], want[1] * expert / (8 + tokens - 1), delta=1)
            plan = json.loads(good("inspect", path, "--device", device, "--virtual", "--offload", places,
                                   "--json", env=ENV))["devices"][0]
            self.assertEqual([plan["expert_places"], plan["bytes_per_miss"]], [places, expert])
        for devices in ("nvidia:0,nvidia:1", "nvidia:0,host", "amd:0,nvidia:0"):
            if any(d != "host" and f'"{d}"' not in listed for d in devices.split(",")):
                print(f"{devices}: not tried: this build lacks one of them")
                continue
            got = generate("--ids", ids, "--max-tokens", tokens, "--device", devices, "--virtual", "--strict",
                           "--offload", 2, model=path, env=ENV)
            self.assertEqual(got["logit_hash"], one["logit_hash"], devices)
            self.assertEqual([got["offload"]["places"], sum(got["experts"])], [2, count], devices)
            self.assertGreater(got["offload"]["misses"], 0)

    def test_what_does_not_fit_is_told(self):
        path = os.path.join(GOLDEN, "v3-fp8")
        for devices, part in ((",".join(["host"] * 9), "9 devices given for the 8 experts"),
                              ("host,,host", "empty"), ("host,nowhere:0", "nowhere")):
            status, _, err = moehal("generate", "--model", path, *IDS, "--device", devices)
            self.assertNotEqual(status, 0)
            self.assertIn(part, err)
        status, _, err = moehal("trace", "--model", path, "--device", "host,host", "--save", "/nowhere/x")
        self.assertEqual(status, 2)
        self.assertIn("one device", err)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
