#!/usr/bin/env bash
# Sees to it that there is a browser for pg_test/e2e/page.rs: Debian's Chromium, and what drives it. Does nothing where
# both are there already.
set -euo pipefail

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v chromedriver >/dev/null || missing+=(chromium-driver)
if [ ${#missing[@]} = 0 ]; then exit; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]} (as root: apt-get install ${missing[*]})" >&2
    exit 2
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# Fonts: without any, a page has no text.
apt-get install -y -qq --no-install-recommends "${missing[@]}" fonts-dejavu-core
