#!/usr/bin/env bash
# Runs `cargo test` with the given arguments, and ends with one line that counts over all of it.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p target
log=target/test.log
cargo test --no-fail-fast "$@" 2>&1 | tee "$log"
status=$?
counts=$(awk '/^test result: / { for (i = 2; i <= NF; i++) { if ($i == "passed;") p += $(i-1); if ($i == "failed;") f += $(i-1) } }
    END { print p + 0, f + 0 }' "$log")
read -r passed failed <<<"$counts"
# A binary that did not build or ended in the middle has no line of its own.
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
# What a machine would not let a test do: `skip` of the harness says why.
skipped=$(grep -c '^skipped: ' "$log")
echo "$passed passed, $failed failed$([ "$skipped" = 0 ] || echo ", $skipped skipped in part")"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
