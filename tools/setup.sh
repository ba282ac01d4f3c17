#!/bin/sh
# Make this tree ready for work: Debian packages, and .venv from requirements.lock.
# Quick when all is there. ULVM_SETUP_PACKAGES=no leaves the packages alone.
set -eu
cd "$(dirname "$0")/.."

missing_packages() {
    grep -v '^#' packages.txt | while read -r package; do
        [ -n "$package" ] || continue
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=missing
        [ "$status" = installed ] || printf '%s ' "$package"
    done
}

packages() {
    if ! command -v dpkg-query >/dev/null; then
        echo "This is not Debian: see packages.txt for the programs that the tests use."
        return
    fi
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ]; then
        apt-get -qq update
        # shellcheck disable=SC2086 # One word a package.
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y $missing
    else
        echo "Some tests and the demonstration want more packages. As root:"
        echo "  apt-get install --no-install-recommends $missing"
    fi
}

fit() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

best_python() {
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if fit "$python"; then
            command -v "$python"
            return
        fi
    done
    echo "No Python 3.11 or later with the venv module (Debian: python3-venv)." >&2
    return 1
}

environment() {
    stamp=.venv/.made-from
    wanted="$(sha256sum requirements.lock pyproject.toml) $(pwd)"
    if [ -x .venv/bin/ulvm ] && [ "$(cat $stamp 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    if ! { [ -x .venv/bin/python ] && fit .venv/bin/python; }; then
        python=$(best_python)
        "$python" -m venv --clear .venv
    fi
    pip=".venv/bin/python -m pip --quiet --disable-pip-version-check"
    $pip install --require-hashes -r requirements.lock
    $pip install --no-deps --no-build-isolation -e .
    # Manual pages and completion; an editable installation leaves data files out.
    .venv/bin/python -m ulvm.cli.installed .venv
    # So that commands start fast where Python may not write bytecode.
    .venv/bin/python -m compileall -q src || true
    printf '%s\n' "$wanted" >$stamp
}

[ "${ULVM_SETUP_PACKAGES:-yes}" = no ] || packages
environment
