#!/usr/bin/env bash
# Sees to it that there is a promtool for pg_test/e2e/observe.rs: the one in PATH, or target/tools/usr/bin/promtool out of
# Debian's package. Prints where it is.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$PWD/target/tools
tool=$tools/usr/bin/promtool
if command -v promtool; then exit; fi
if [ ! -x "$tool" ]; then
    if ! command -v apt-get >/dev/null; then
        echo "missing: promtool (Debian: apt-get install prometheus)" >&2
        exit 2
    fi
    echo "unpacking promtool into $tools" >&2
    # Unpacked, not installed: the package would start a server.
    [ "$(id -u)" != 0 ] || apt-get update -qq
    mkdir -p "$tools/prometheus"
    (cd "$tools/prometheus" && apt-get download -qq prometheus && dpkg -x prometheus_*.deb .)
    # Moved when it is whole, and nothing else of the package is kept.
    mkdir -p "$(dirname "$tool")"
    mv "$tools/prometheus/usr/bin/promtool" "$tool"
    rm -r "$tools/prometheus"
fi
echo "$tool"
