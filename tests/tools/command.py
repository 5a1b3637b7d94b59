"""What the tests of the command share: running it, reading its files, making broken models."""
import json
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

TOOL, ROOT, NULL_DIR, MODULES = (sys.argv[1:5] + [""] * 4)[:4]
EXTRA = os.environ.get("MOEHAL_TEST_EXTRA", "")
FAIRY = os.path.join(ROOT, "models/fairy")
GOLDEN = os.path.join(ROOT, "tests/data/golden")


def moehal(*arguments, env=None, stdin=None, timeout=300):
    """Runs the command; returns (status, stdout, stderr) as text. A crash is never what a test wants."""
    merged = dict(os.environ, **(env or {}))
    done = subprocess.run([TOOL, *map(os.fsencode, map(str, arguments))], env=merged, input=stdin, timeout=timeout,
                          stdin=subprocess.DEVNULL if stdin is None else None,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    err = done.stderr.decode("utf-8", "replace")
    assert done.returncode >= 0, f"{arguments}: signal {-done.returncode}: {err}"
    assert "Sanitizer" not in err and "runtime error" not in err, err
    return done.returncode, done.stdout.decode("utf-8", "replace"), err


def good(*arguments, **options):
    status, out, err = moehal(*arguments, **options)
    assert status == 0, f"{arguments}: exit {status}: {err}"
    return out


def generate(*arguments, model=FAIRY, **options):
    return json.loads(good("generate", "--model", model, *arguments, "--json", **options))


ON_NULL = {"MOEHAL_BACKENDS": NULL_DIR}


def read_json(*path):
    with open(os.path.join(*path), encoding="utf-8") as file:
        return json.load(file)


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    data = pathlib.Path(path).read_bytes()
    length, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"],
                   data[8 + length + t["data_offsets"][0]:8 + length + t["data_offsets"][1]])
            for name, t in header.items()}


def ints(raw):
    return list(struct.unpack(f"<{len(raw) // 4}i", raw))


def check_perplexity(test, model, golden):
    """`eval --text` on the text of a golden folder, whose values are rounded."""
    got = json.loads(good("eval", "--model", model, "--text", os.path.join(golden, "eval.txt"),
                          "--json"))
    want = read_json(golden, "golden.json")["eval"]
    test.assertEqual(got["tokens"], want["tokens"])
    test.assertLessEqual(abs(got["nll"] - want["nll"]), 1e-4)
    test.assertLessEqual(abs(got["perplexity"] / want["perplexity"] - 1), 1e-4)
    test.assertAlmostEqual(math.exp(got["nll"]), got["perplexity"], places=5)


class Folder(unittest.TestCase):
    """Each test gets a folder of its own."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="moehal-test-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def copy_of(self, model, *without):
        target = tempfile.mkdtemp(dir=self.folder)
        for name in os.listdir(model):
            if name not in without and os.path.isfile(os.path.join(model, name)):
                shutil.copy(os.path.join(model, name), target)
        return target

    def edit_json(self, folder, name, **changes):
        path = os.path.join(folder, name)
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        content.update(changes)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file)
        return folder

    def edit_header(self, folder, change, name="model.safetensors"):
        """change(header) edits a safetensors header in place."""
        path = pathlib.Path(folder, name)
        data = path.read_bytes()
        length, = struct.unpack("<Q", data[:8])
        header = json.loads(data[8:8 + length])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length:])
        return folder


def main():
    sys.argv[1:] = []
    unittest.main(verbosity=2)
