#!/usr/bin/env bash
# Reads the install script as an attacker would, with pgspot (from PyPI, into target/): objects that could be taken for
# others', functions that could be led astray. It is no part of `make test`.
#
#   pg_test/pgspot/pgspot.sh SCRIPT
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=target/pgspot
pg_test/prepare.sh python pgspot
# pgspot reads bodies that are text. One in standard SQL is bound when it is created, under the path that the script has
# then: it is shown to pgspot as text with that path.
python3 - "$1" >target/pgspot.sql <<'PY'
import re, sys

def standard(match):
    head, atomic, value = match.groups()
    path = "" if "SET search_path" in head else "SET search_path = pg_catalog, pg_temp "
    return f"{head}{path}AS $body$\n{atomic if atomic is not None else 'SELECT ' + value}$body$;"

script = open(sys.argv[1]).read()
print(re.sub(r"(^CREATE FUNCTION (?:(?!\$\$|^CREATE|;).)*?)(?:^BEGIN ATOMIC\n(.*?)^END;|^RETURN (.*?);$)", standard, script, flags=re.S | re.M))
PY
# Three procedures COMMIT, or call one that does, and such a one cannot have a search_path of its own: they qualify
# everything, types too.
exec $tools/bin/pgspot \
    --proc-without-search-path "extschema.connector_service_sync_wait(p_connector_id uuid,p_timeout interval)" \
    --proc-without-search-path "extschema.connector_service_wait(p_run_id uuid,p_timeout interval)" \
    --proc-without-search-path "extschema.connector_service_rotate_key(p_new_key boolean)" \
    target/pgspot.sql
