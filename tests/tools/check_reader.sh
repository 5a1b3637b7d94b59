#!/bin/sh
# The file that `eval --out` writes, read by safetensors' own reader, in a venv.
# usage: check_reader.sh MOEHAL MODEL
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
if ! { python3 -m venv "$tmp/venv" && "$tmp/venv/bin/pip" -q install safetensors numpy; } >"$tmp/log" 2>&1
then
    echo "SKIP: safetensors could not be installed from PyPI: $(tail -n 1 "$tmp/log")"
    exit 77
fi
"$1" eval --model "$2" --ids "0 17 4" --out "$tmp/out.safetensors" --hidden
"$tmp/venv/bin/python" - "$tmp/out.safetensors" <<'PYTHON'
import sys
import numpy
from safetensors.numpy import load_file
tensors = load_file(sys.argv[1])
assert tensors["logits"].shape == (3, 4096) and tensors["logits"].dtype == numpy.float32
assert sorted(tensors) == sorted(["logits"] + [f"hidden.{i}" for i in range(7)]), sorted(tensors)
assert all(t.shape == (3, 256) for n, t in tensors.items() if n != "logits")
assert numpy.isfinite(tensors["logits"]).all()
print("read", len(tensors), "tensors")
PYTHON
