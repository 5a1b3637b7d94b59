#!/bin/sh
# run.sh FUZZER SEEDS SECONDS: the seeds, then new inputs for so long. What it finds is written here
# as crash-*; put it among the seeds once it is mended.
set -eu
corpus=$(mktemp -d)
trap 'rm -rf "$corpus"' EXIT
# The sanitizer's shadow does not fit where the kernel spreads addresses widely.
run() { "$@"; }
if setarch "$(uname -m)" -R true 2>/dev/null; then
    run() { setarch "$(uname -m)" -R "$@"; }
fi
run "$1" -seed=1 -timeout=20 -rss_limit_mb=3000 -max_len=65536 -print_final_stats=1 \
    "-max_total_time=$3" "$corpus" "$2" 2>"$corpus.log" ||
    { status=$?; tail -60 "$corpus.log"; rm -f "$corpus.log"; exit "$status"; }
grep -E "stat::|^Done|cov: .*DONE" "$corpus.log"
rm -f "$corpus.log"
