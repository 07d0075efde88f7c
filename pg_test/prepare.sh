#!/usr/bin/env bash
# Installs what this machine lacks for one purpose. Installs nothing where nothing is missing.
#
#   prepare.sh build         the extension: PostgreSQL and its headers, compilers, cargo-pgrx
#   prepare.sh lint          build, and the linters of pg_test/lint/requirements.txt
#   prepare.sh demo          build, and pg_cron
#   prepare.sh test          build, pg_cron, MariaDB and openssl
#   prepare.sh e2e           test, and what the tests ask for themselves: Python's venv, Chromium and promtool
#   prepare.sh bench         build, MariaDB and nginx
#   prepare.sh python NAME   target/NAME: a Python environment with exactly what pg_test/NAME/requirements.txt names
#   prepare.sh node NAME     target/NAME: exactly the packages of npm that pg_test/NAME/packages.txt names, without theirs
#   prepare.sh browser       Chromium and its driver, for the test of the gateway's page
#   prepare.sh promtool      Prometheus' own checker; prints where it is
#
# Packages are Debian's. Root installs them; any other user is told their names. On another system, install their
# like by hand: this script looks for files and programs, so they may come from anywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:-build}
pg_config=${PG_CONFIG:-pg_config}
tools=$PWD/target/tools

missing=()
need() { # PACKAGE FILE
    [ -e "$2" ] || missing+=("$1")
}
where() { # OPTION
    "$pg_config" "$1" 2>/dev/null || echo /nonexistent
}
# The index of packages is fetched only if a package is missing. What apt says goes to stderr: stdout is for promtool's
# path.
install_missing() {
    if [ ${#missing[@]} = 0 ]; then return; fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing: ${missing[*]}" >&2
        echo "Install these packages (as root: apt-get install ${missing[*]}), then run this again." >&2
        exit 2
    fi
    echo "installing ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
    missing=()
}
# Unpacks one program of a package into target/tools. The package itself would start a server.
unpack() { # PACKAGE PROGRAM
    local program=$tools/$2 folder=$tools/$1.part
    if [ -x "$program" ]; then return; fi
    echo "unpacking $1 into $tools" >&2
    [ "$(id -u)" != 0 ] || apt-get update -qq >&2
    rm -rf "$folder"
    mkdir -p "$folder" "$(dirname "$program")"
    if ! (cd "$folder" && apt-get download -qq "$1" >&2 && dpkg -x "$1"_*.deb .); then
        echo "missing: $1" >&2
        echo "Install this package (as root: apt-get install $1), then run this again." >&2
        exit 2
    fi
    # The program is moved when it is whole. Nothing else of the package is kept.
    mv "$folder/$2" "$program"
    rm -r "$folder"
}

# What each purpose needs of Debian's packages.

build() {
    local major
    major=$("$pg_config" --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p') || true
    major=${major:-15}
    case $major in
    1[5-8]) ;;
    *)
        echo "connector_service runs on PostgreSQL 15 to 18; $pg_config belongs to $major. Set PG_CONFIG to another one." >&2
        exit 2
        ;;
    esac
    need "postgresql-$major" "$(where --bindir)/postgres"
    need "postgresql-server-dev-$major" "$(where --includedir-server)/postgres.h"
    need gcc "$(command -v cc || true)"
    need libc6-dev /usr/include/stdio.h
    need clang "$(command -v clang || true)"
    local file libclang=
    for file in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib*/libclang.so* \
        "${LIBCLANG_PATH:-/nonexistent}"/libclang*; do
        if [ -e "$file" ]; then libclang=$file; fi
    done
    need libclang-dev "$libclang"
    need pkg-config "$(command -v pkg-config || true)"
    case $purpose in demo | test | e2e) need "postgresql-$major-cron" "$(where --sharedir)/extension/pg_cron.control" ;; esac
}
# A server to read from. The core packages hold no service, so that no server is started.
mariadb() {
    need mariadb-server-core /usr/sbin/mariadbd
    need mariadb-client-core /usr/bin/my_print_defaults
}
browser() {
    local count=${#missing[@]}
    need chromium "$(command -v chromium || true)"
    need chromium-driver "$(command -v chromedriver || true)"
    # Without fonts a page has no text.
    if [ ${#missing[@]} -gt "$count" ]; then missing+=(fonts-dejavu-core); fi
}
promtool() {
    if [ -z "$(type -P promtool)" ]; then unpack prometheus usr/bin/promtool; fi
}
# Debian's python3 has the module venv without its package, and then makes an environment without pip.
venv() {
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
}

# What does not come as a package.

rust() {
    if [ ! -w "$(where --pkglibdir)" ]; then
        echo "note: $(id -un) may not write to $(where --pkglibdir): the extension can be built but not installed; root can" >&2
    fi
    if ! command -v cargo >/dev/null; then
        echo "missing: cargo; install it with rustup, see https://rustup.rs" >&2
        exit 2
    fi
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
    # Exactly the version that the library is built with, in a folder of ours: nobody's own cargo-pgrx is replaced.
    local wanted
    wanted=$(sed -n 's/^pgrx = { version = "=\([0-9.]*\)".*/\1/p' Cargo.toml)
    if [ "$(cargo pgrx --version 2>/dev/null)" != "cargo-pgrx $wanted" ]; then
        cargo install cargo-pgrx --version "=$wanted" --locked --debug --root "$tools"
    fi
}
python() { # NAME
    local wanted=pg_test/$1/requirements.txt folder=target/$1
    # The copy is written after everything is installed: an installation that ended early has none.
    if cmp -s "$wanted" "$folder/requirements.txt"; then return; fi
    echo "installing $wanted into $folder" >&2
    python3 -m venv --clear "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: --requirement "$wanted" >&2
    "$folder/bin/pip" check --quiet >&2
    cp "$wanted" "$folder/requirements.txt"
}
# Unpacks packages of npm, each with the hash that it must have. Nothing of them is run here, and what they need
# themselves is not fetched.
node() { # NAME
    local wanted=pg_test/$1/packages.txt folder=target/$1 package hash file
    if cmp -s "$wanted" "$folder/packages.txt"; then return; fi
    echo "unpacking $wanted into $folder" >&2
    rm -rf "$folder"
    mkdir -p "$folder"
    while read -r package hash; do
        file=$(cd "$folder" && npm pack --silent --ignore-scripts "$package")
        if [ "sha512-$(openssl dgst -sha512 -binary "$folder/$file" | base64 -w 0)" != "$hash" ]; then
            echo "$package is not what pg_test/$1/packages.txt names" >&2
            exit 2
        fi
        # graphql for graphql@1.2.3, and dev-mcp for @shopify/dev-mcp@1.2.3.
        package=${package##*/}
        mkdir "$folder/${package%@*}"
        tar -xzf "$folder/$file" -C "$folder/${package%@*}" --strip-components=1
        rm "$folder/$file"
    done <"$wanted"
    cp "$wanted" "$folder/packages.txt"
}
npm_client() {
    need nodejs "$(type -P node || type -P nodejs || true)"
    need npm "$(type -P npm || true)"
}

case $purpose in
build | demo)
    build
    install_missing
    rust
    ;;
lint)
    build
    venv
    install_missing
    rust
    python lint
    ;;
test | e2e)
    build
    mariadb
    need openssl "$(command -v openssl || true)"
    if [ "$purpose" = e2e ]; then
        browser
        venv
        npm_client
    fi
    install_missing
    if [ "$purpose" = e2e ]; then promtool; fi
    rust
    ;;
bench)
    build
    mariadb
    install_missing
    rust
    if [ ! -x /usr/sbin/nginx ]; then unpack nginx usr/sbin/nginx; fi
    ;;
python)
    venv
    install_missing
    python "$2"
    ;;
node)
    npm_client
    need openssl "$(command -v openssl || true)"
    install_missing
    node "$2"
    ;;
browser)
    browser
    install_missing
    ;;
promtool)
    promtool
    type -P promtool || echo "$tools/usr/bin/promtool"
    ;;
*)
    sed -n 's/^#   //p' "$0" >&2
    exit 2
    ;;
esac
