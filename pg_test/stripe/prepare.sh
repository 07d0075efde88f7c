#!/usr/bin/env bash
# Sees to it that there is Stripe's own package for pg_test/e2e/observe.rs: target/stripe, a Python environment of its own
# with exactly what requirements.txt names. Does nothing where it is there already.
set -euo pipefail
cd "$(dirname "$0")/../.."
wanted=pg_test/stripe/requirements.txt
venv=target/stripe
# A copy of what was installed, written when it was: an installation that ended in the middle has none.
installed=$venv/requirements.txt
if cmp -s "$wanted" "$installed"; then exit; fi

# On Debian the module is there without its package, and makes an environment without pip.
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing: python3-venv (as root: apt-get install python3-venv)" >&2
        exit 2
    fi
    echo "installing python3-venv"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends python3-venv
fi
echo "installing Stripe's package into $venv"
python3 -m venv --clear "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$wanted"
"$venv/bin/pip" check
cp "$wanted" "$installed"
