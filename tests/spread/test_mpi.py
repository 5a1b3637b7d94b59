"""Several processes joined by MPI: the logit hash of one device, and an end for all when one fails.

argv: as command.py; then the folder of the transport, dying.so, saving, the folders of backends, and
quick|full. Exit status 77 without mpirun.
"""
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from command import FAIRY, GOLDEN, ROOT, TOOL, generate, moehal, read_json

TRANSPORTS, DYING, SAVING, BACKENDS, FORM = sys.argv[5:10]
IDS = ("--ids", "0 5 9 17 3", "--max-tokens", "4")
ENV = dict(os.environ, MOEHAL_TRANSPORTS=TRANSPORTS, OMPI_ALLOW_RUN_AS_ROOT="1",
           OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1",
           OMPI_MCA_mpi_yield_when_idle="1", OMPI_MCA_btl="self,vader,tcp",
           # Open MPI does not give back all that it has when it ends.
           ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0")


def start(count, *arguments, program=TOOL, env=None):
    return subprocess.Popen(["mpirun", "-n", str(count), program, *arguments], env=dict(ENV, **(env or {})),
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def children(pid):
    """{rank: pid} of an mpirun's processes."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat = (path / "stat").read_text()
            if int(stat.rsplit(")", 1)[1].split()[1]) != pid:
                continue
            for word in (path / "environ").read_bytes().split(b"\0"):
                if word.startswith(b"OMPI_COMM_WORLD_RANK="):
                    found[int(word.split(b"=")[1])] = int(path.name)
        except (OSError, ValueError):
            continue
    return found


def is_known(pid):
    """Does mpirun know the process? Of one that dies before, it tells no signal. Open MPI loads the ways
    to other processes after it has met mpirun."""
    try:
        return "/mca_btl_" in pathlib.Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def finish(mpirun, timeout):
    """A hang is an exception."""
    try:
        out, err = mpirun.communicate(timeout=timeout)
    finally:
        mpirun.kill()
    return mpirun.returncode, out.decode(), err.decode("utf-8", "replace")


def until(mpirun, words, timeout):
    """What it says up to a line that has these words; it is killed where none comes."""
    timer = threading.Timer(timeout, mpirun.kill)
    timer.start()
    told = b""
    for line in mpirun.stderr:
        told += line
        if words.encode() in line:
            break
    timer.cancel()
    return told.decode("utf-8", "replace")


class Processes(unittest.TestCase):
    def test_bits_are_those_of_one_device(self):
        for name in ("v3", "v3-fp8", "v2-lite", "v2", "moonlight"):
            model = os.path.join(GOLDEN, name)
            one = generate(*IDS, "--device", "host", model=model)
            for count, devices in ((2, "host"), (4, "host"), (2, "host,host,host")):
                if FORM == "quick" and name != "v3" and (count, devices) != (2, "host"):
                    continue
                with self.subTest(model=name, processes=count, devices=devices):
                    status, out, err = finish(
                        start(count, "generate", "--model", model, *IDS, "--device", devices,
                              "--threads", "1", "--json"), 120)
                    self.assertEqual(status, 0, err)
                    many = json.loads(out)  # of one process alone
                    self.assertEqual(many["processes"], count)
                    self.assertEqual(many["token_ids"], one["token_ids"])
                    self.assertEqual(many["logit_hash"], one["logit_hash"])

    def test_split_attention(self):
        model = os.path.join(GOLDEN, "v3")
        ids = ("--ids", " ".join(str(7 * i % 60) for i in range(300)), "--max-tokens", "3")  # two segments
        one = generate(*ids, "--device", "host", model=model)
        for count, devices in ((2, "host"), (2, "host,host")):
            status, out, err = finish(start(count, "generate", "--model", model, *ids, "--device", devices,
                                            "--threads", "1", "--json", "--attention", "split"), 60)
            self.assertEqual(status, 0, err)
            many = json.loads(out)
            self.assertEqual(many["processes"], count)
            for key in ("token_ids", "logit_hash"):
                self.assertEqual(many[key], one[key], key)
        with tempfile.TemporaryDirectory() as folder:
            status, _, err = finish(start(2, model, os.path.join(folder, "s"), "split", program=SAVING), 30)
            self.assertNotEqual(status, 0)
            self.assertIn("mh_sequence_save: the cache is split, and part of it in another process", err)
            self.assertEqual(os.listdir(folder), [])

    def test_one_plan_of_all_processes(self):
        """What each is to have, and what generate then says it has; the head is in each process."""
        model = os.path.join(GOLDEN, "v3")
        count = read_json(model, "config.json")["n_routed_experts"]
        status, out, err = finish(start(3, "inspect", model, "--device", "host,host,host,host", "--json"), 30)
        self.assertEqual(status, 0, err)
        plan = json.loads(out)  # of one process alone
        ranks = plan["devices"]
        self.assertEqual([rank["process"] for rank in ranks], [0, 0, 1, 2])
        self.assertEqual([rank["experts"] for rank in ranks], [count // 4] * 4)
        head = ranks[0]["weight_bytes"] - ranks[1]["weight_bytes"]
        self.assertEqual(head, 2 * read_json(model, "config.json")["vocab_size"] *
                         read_json(model, "config.json")["hidden_size"])
        self.assertEqual({rank["weight_bytes"] for rank in ranks[2:]}, {ranks[0]["weight_bytes"]})
        status, out, err = finish(start(3, "generate", "--model", model, *IDS, "--device",
                                        "host,host,host,host", "--threads", "1", "--json"), 60)
        self.assertEqual(status, 0, err)
        self.assertEqual(json.loads(out)["experts"], [rank["experts"] for rank in ranks])
        status, out, err = finish(start(2, "inspect", model, "--device", "host,host"), 30)
        self.assertEqual(status, 0, err)
        self.assertRegex(out, r"(?m)^0 +host:0 .*fits")
        self.assertRegex(out, r"(?m)^1 +host:0 .*fits")
        status, _, err = finish(start(2, "inspect", model, "--device", "host,nowhere:0"), 30)
        self.assertNotEqual(status, 0)
        self.assertIn("nowhere", err)

    def test_copies_of_experts(self):
        model = os.path.join(GOLDEN, "v2")
        ids = ("--ids", "0 5 9 17 3 2 8", "--max-tokens", "3")
        with tempfile.TemporaryDirectory() as folder:
            load, again = os.path.join(folder, "load.json"), os.path.join(folder, "again.json")
            one = generate(*ids, "--device", "host", "--expert-load", load, model=model)
            status, out, err = finish(
                start(2, "generate", "--model", model, *ids, "--device", "host,host,host", "--threads",
                      "1", "--json", "--placement", f"load={load},redundant=7", "--expert-load", again), 60)
            self.assertEqual(status, 0, err)
            self.assertEqual(json.loads(out)["logit_hash"], one["logit_hash"])
            with open(load, "rb") as first, open(again, "rb") as second:
                self.assertEqual(first.read(), second.read())

    def kill(self, rank, after):
        """Of three that write for long one is killed: `after` an event of the run."""
        began = time.monotonic()
        run = start(3, "generate", "--model", FAIRY, "--prompt", "Once", "--max-tokens", "100000",
                    "--threads", "1", "--device", "host")
        while len(ranks := children(run.pid)) < 3 or not all(map(is_known, ranks.values())):
            self.assertLess(time.monotonic() - began, 60, "three processes have not started")
            time.sleep(0.01)
        if after == "a token":
            self.assertTrue(run.stdout.read(1))
        os.kill(ranks[rank], signal.SIGKILL)
        killed = time.monotonic()
        status, _, err = finish(run, 10)
        self.assertNotEqual(status, 0)
        self.assertIn("signal 9", err)
        print(f"rank {rank}, killed after {after}: all ended within "
              f"{time.monotonic() - killed:.1f} s", file=sys.stderr)

    def test_a_killed_process_ends_all(self):
        for rank in range(3):
            for after in ("the start", "a token"):
                if FORM == "quick" and (rank + (after == "a token")) % 2:
                    continue
                with self.subTest(rank=rank, after=after):
                    self.kill(rank, after)

    def test_a_process_killed_in_any_phase_ends_all(self):
        # The first gathers are those of loading and of the session; then each exchange is one, of
        # prefill and of every token after it.
        places = {"start": "open", "load": "1", "placement": "2", "session": "3", "prefill": "4",
                  "exchange": "8", "decode": "40", "end": "close"}
        ids = ("--ids", "0 5 9 17 3", "--max-tokens", "20", "--threads", "1", "--device", "host")
        inner = os.path.join(TRANSPORTS, "moehal_mpi.so")
        for rank in range(3):
            for phase, place in places.items():
                if FORM == "quick" and (rank + list(places).index(phase)) % 4:
                    continue
                with self.subTest(rank=rank, phase=phase):
                    run = start(3, "generate", "--model", os.path.join(GOLDEN, "v2"), *ids,
                                env={"MOEHAL_TRANSPORT": DYING, "MOEHAL_DYING_INNER": inner,
                                     "MOEHAL_DYING": f"{rank} {place}"})
                    status, _, err = finish(run, 10)  # starting and loading are in it
                    self.assertNotEqual(status, 0)
                    self.assertIn("signal 9", err)

    def test_a_process_killed_while_it_saves_ends_all(self):
        with tempfile.TemporaryDirectory() as folder:
            def save(count, *victim):
                return finish(start(count, os.path.join(GOLDEN, "v3"), os.path.join(folder, "s"), *victim,
                                    program=SAVING), 10)

            files = [pathlib.Path(folder, f"s.{process}") for process in range(3)]
            status, _, err = save(1)
            self.assertEqual(status, 0, err)
            whole = files[0].read_bytes()
            status, _, err = save(3)
            self.assertEqual(status, 0, err)
            for file in files:  # each has all of it, as one alone
                self.assertEqual(file.read_bytes(), whole)
            for victim in range(3):
                for file in files:
                    file.unlink(missing_ok=True)
                status, _, err = save(3, str(victim))
                self.assertNotEqual(status, 0)
                self.assertIn("signal 9", err)
                self.assertTrue(files[victim].with_suffix(f".{victim}.part").exists())
                self.assertFalse(files[victim].exists())
                for file in files:
                    self.assertTrue(not file.exists() or file.read_bytes() == whole)

    def test_a_process_that_fails_ends_all_with_the_cause(self):
        script = ('if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then d=nowhere:0; else d=host; fi; '
                  f'exec "$0" generate --model "$1" --prompt Once --max-tokens 100000 --device $d')
        run = subprocess.Popen(["mpirun", "-n", "3", "sh", "-c", script, TOOL, FAIRY], env=ENV,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        status, _, err = finish(run, 60)
        self.assertNotEqual(status, 0)
        self.assertIn("nowhere", err)

    def test_a_launcher_that_counts_none_here(self):
        """No number of processes on this host: that of all is taken."""
        arguments = ("generate", "--model", os.path.join(GOLDEN, "v3"), *IDS, "--device", "host", "--json")
        run = start(2, "OMPI_COMM_WORLD_LOCAL_SIZE=0", TOOL, *arguments, program="env")
        status, out, err = finish(run, 60)
        self.assertEqual(status, 0, err)
        self.assertEqual(json.loads(out)["processes"], 2)

    def test_a_device_that_is_lost_ends_all_with_the_cause(self):
        """The first kernels are of loading, the last ones of decoding. Gone, or with a broken memory."""
        backends = {"MOEHAL_BACKENDS": BACKENDS}
        listed = moehal("devices", "--virtual", "--json", env=backends)[1]
        script = ('if [ "$OMPI_COMM_WORLD_RANK" = "$1" ]; then export MOEHAL_VIRTUAL_FAULTS="$2"; fi; '
                  'exec "$0" generate --model "$3" --ids "0 5 9 17 3" --max-tokens 20 --device "$4" --virtual')
        faults = [(vendor, kind, launch) for vendor in ("nvidia", "amd") for kind in ("lost", "ecc")
                  for launch in (5, 60, 200)]
        for rank, (vendor, kind, launch) in itertools.product(range(3), faults):
            if FORM == "quick" and (rank, vendor, kind, launch) not in (
                    (0, "nvidia", "lost", 200), (1, "amd", "lost", 60), (2, "nvidia", "ecc", 5)):
                continue
            if f'"{vendor}:0"' not in listed:
                print(f"not tried: this build has no virtual {vendor}", file=sys.stderr)
                continue
            with self.subTest(rank=rank, vendor=vendor, fault=kind, launch=launch):
                run = start(3, "-c", script, TOOL, str(rank), f"{kind}:{launch}",
                            os.path.join(GOLDEN, "v2"), f"{vendor}:0", program="sh", env=backends)
                told = until(run, " is lost: ", 120)
                status, _, _ = finish(run, 10)
                self.assertNotEqual(status, 0)
                self.assertRegex(told, f"device {vendor}:[0-9] is lost: ")

    def test_a_transport_that_is_not_there(self):
        arguments = ("generate", "--model", os.path.join(GOLDEN, "v3"), *IDS, "--device", "host")
        for name, part in (("smoke", "no moehal_smoke.so"), ("a/b", "neither"),
                           (os.path.join(ROOT, "README.md"), "README.md")):
            status, _, err = moehal(*arguments, env={"MOEHAL_TRANSPORT": name})
            self.assertIn(status, (1, 2))
            self.assertIn(part, err)
        status, _, err = moehal("chat", "--model", FAIRY, "--device", "host",
                                env={"MOEHAL_TRANSPORT": "mpi"})
        self.assertEqual(status, 1)
        self.assertIn("one process", err)


class TwoNetworks(unittest.TestCase):
    """Half of the ranks in another network namespace, which they reach by TCP over a wire alone."""

    @classmethod
    def setUpClass(cls):
        wire = ("ip", "link", "add", "wire", "type", "veth")
        for cls.alone in (["unshare", "-n"], ["unshare", "-r", "-n"]):  # as root; where all may
            tried = subprocess.run([*cls.alone, *wire], capture_output=True, text=True)
            if tried.returncode == 0:
                return
        print(f"not tried: two network namespaces: {tried.stderr.strip()}", file=sys.stderr)
        raise unittest.SkipTest(tried.stderr)

    def start(self, count, model, env=None):
        """Each rank tells its network on stderr, and in the end what came over the wire."""
        script = ('echo "rank $OMPI_COMM_WORLD_RANK in $(readlink /proc/self/ns/net)" >&2; "$@"; code=$?; '
                  'echo "rank $OMPI_COMM_WORLD_RANK received $(grep wire: /proc/net/dev)" >&2; exit $code')
        hosts = f"10.77.0.1:{count // 2},10.77.0.2:{count // 2}"
        return subprocess.Popen(
            [*self.alone, os.path.join(ROOT, "tests/spread/two_networks.sh"), "mpirun", "-n", str(count),
             "--host", hosts, "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "wire",
             "--mca", "oob_tcp_if_include", "wire", "sh", "-c", script, "sh", TOOL, "generate", "--model",
             model, *IDS, "--device", "host", "--threads", "1", "--json"], env=dict(ENV, **(env or {})),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def networks(self, count, err):
        """The network of each rank; the first half must be in one, the rest in another."""
        told = dict(re.findall(r"rank (\d+) in (net:\[\d+\])", err))
        found = [told[str(rank)] for rank in range(count)]
        self.assertEqual(found, [found[0]] * (count // 2) + [found[-1]] * (count // 2))
        self.assertNotEqual(found[0], found[-1])
        self.assertNotIn(os.readlink("/proc/self/ns/net"), found)
        return found

    def test_bits_are_those_of_one_device(self):
        model = os.path.join(GOLDEN, "v3")
        one = generate(*IDS, "--device", "host", model=model)
        config = read_json(model, "config.json")
        # Every slot of the prompt's tokens and of all but the last answered is computed on one side.
        least = (4 * config["num_experts_per_tok"] * config["hidden_size"] * (5 + 4 - 1) *
                 (config["num_hidden_layers"] - config["first_k_dense_replace"]))
        for count in (2, 4):
            with self.subTest(processes=count):
                status, out, err = finish(self.start(count, model), 20)
                self.assertEqual(status, 0, err)
                many = json.loads(out)
                self.assertEqual(many["processes"], count)
                for key in ("token_ids", "logit_hash"):
                    self.assertEqual(many[key], one[key], key)
                networks = self.networks(count, err)
                came = {}
                for rank, received in re.findall(r"rank (\d+) received +wire: +(\d+)", err):
                    network = networks[int(rank)]
                    came[network] = max(int(received), came.get(network, 0))
                self.assertGreaterEqual(sum(came.values()), least)

    def test_a_process_killed_in_the_other_ends_all(self):
        env = {"MOEHAL_TRANSPORT": DYING, "MOEHAL_DYING": "3 8",
               "MOEHAL_DYING_INNER": os.path.join(TRANSPORTS, "moehal_mpi.so")}
        status, _, err = finish(self.start(4, os.path.join(GOLDEN, "v3"), env), 10)
        self.assertNotEqual(status, 0)
        self.networks(4, err)
        # What the shell says; mpirun too, but its daemon there may break while it does.
        # Or mpirun 4.1 itself has crashed on the way to tell it (orte_rml_oob_send_buffer_nb).
        self.assertRegex(err, r"(?i)exit code: +137|\bkilled\b|orte_rml_oob")


if __name__ == "__main__":
    if not shutil.which("mpirun"):
        print("SKIP: mpirun is not installed (Debian: openmpi-bin)")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
