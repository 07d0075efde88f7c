#!/usr/bin/env bash
# Sees to it that this machine can build the extension and run it: installs what is missing, and nothing when
# nothing is. Packages are Debian's; on another system install their like by hand. With the argument `nginx`
# also what `make bench` serves pages with.
set -euo pipefail
cd "$(dirname "$0")/.."
pg_config=${PG_CONFIG:-pg_config}

missing=()
# What one package brings is looked for as a file, so that it may come from anywhere else as well.
need() { # PACKAGE FILE
    [ -e "$2" ] || missing+=("$1")
}
where() { # OPTION
    "$pg_config" "$1" 2>/dev/null || echo /nonexistent
}
major=$("$pg_config" --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p') || true
major=${major:-15}
case $major in
1[4-8]) ;;
*)
    echo "connector_service runs on PostgreSQL 14 to 18; $pg_config belongs to $major. Set PG_CONFIG to another one." >&2
    exit 2
    ;;
esac
need "postgresql-$major" "$(where --bindir)/postgres"
need "postgresql-server-dev-$major" "$(where --includedir-server)/postgres.h"
need "postgresql-$major-cron" "$(where --sharedir)/extension/pg_cron.control"
need gcc "$(command -v cc || true)"
need libc6-dev /usr/include/stdio.h
need clang "$(command -v clang || true)"
libclang=(/usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib*/libclang.so* "${LIBCLANG_PATH:-/nonexistent}"/libclang*)
found=
for file in "${libclang[@]}"; do
    if [ -e "$file" ]; then found=$file; fi
done
need libclang-dev "$found"
need pkg-config "$(command -v pkg-config || true)"
# A server to read from. The core package holds no service, so that none is started.
need mariadb-server-core /usr/sbin/mariadbd
need mariadb-client-core /usr/bin/my_print_defaults
# Makes the key of a test's login.
need openssl "$(command -v openssl || true)"

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing: ${missing[*]}" >&2
        echo "Install these packages (as root: apt-get install ${missing[*]}), then run make again." >&2
        exit 2
    fi
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if [ ! -w "$(where --pkglibdir)" ]; then
    echo "note: $(id -un) may not write to $(where --pkglibdir), so the extension can be built but not installed; root can" >&2
fi
tools=target/tools
if [ "${1:-}" = nginx ] && [ ! -x /usr/sbin/nginx ] && [ ! -x $tools/usr/sbin/nginx ]; then
    # Unpacked, not installed: the package would start a web server.
    mkdir -p $tools
    [ "$(id -u)" != 0 ] || apt-get update -qq
    (cd $tools && apt-get download -qq nginx && dpkg -x nginx_*.deb . && rm nginx_*.deb)
fi

if ! command -v cargo >/dev/null; then
    echo "missing: cargo; install it with rustup, see https://rustup.rs" >&2
    exit 2
fi
for component in rustfmt clippy; do
    case $component in rustfmt) tool=fmt ;; *) tool=clippy ;; esac
    cargo "$tool" --version >/dev/null 2>&1 || rustup component add "$component"
done
# Of exactly the version that the library is built with; in a folder of ours, so that nobody's own is replaced.
wanted=$(sed -n 's/^pgrx = { version = "=\([0-9.]*\)".*/\1/p' Cargo.toml)
if [ "$(cargo pgrx --version 2>/dev/null)" != "cargo-pgrx $wanted" ]; then
    cargo install cargo-pgrx --version "=$wanted" --locked --debug --root $tools
fi
