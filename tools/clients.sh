#!/usr/bin/env bash
# Clients that nobody here wrote against the simulated accounts, over TLS, and our own requests
# against the vendor's description of them.
#
#   tools/clients.sh              all of them
#   tools/clients.sh jsforce      one: simple-salesforce, hubspot-api-client, jsforce,
#                                 hubspot-node, hubspot-requests
#
# They are installed into target/clients, in versions that mock/clients/ names, from PyPI and npm.
# $SYNCLINE is the program to play the accounts (default: built here). What cannot be had is told as
# `skipped: NAME (reason)`. Ends with 1 when a client met what it did not expect.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
target=${CARGO_TARGET_DIR:-target}
here=$PWD/mock/clients
mkdir -p "$target/clients" || exit 1
root=$(cd "$target/clients" && pwd)
export PYTHONDONTWRITEBYTECODE=1
failed=0
account=

stop_account() {
    [ -z "$account" ] || { kill "$account" && wait "$account"; } 2>/dev/null
    account=
}
trap stop_account EXIT

python_clients() { # the environment of mock/clients/requirements.txt
    local wanted
    wanted=$(cksum <"$here/requirements.txt")
    [ "$(cat "$root/python/installed" 2>/dev/null)" = "$wanted" ] && return
    command -v python3 >/dev/null || { reason="no python3 here"; return 1; }
    rm -rf "$root/python"
    { python3 -m venv "$root/python" &&
        "$root/python/bin/pip" install --quiet --disable-pip-version-check \
            --requirement "$here/requirements.txt"; } >"$root/python.log" 2>&1 ||
        { reason="pip cannot install them, see $root/python.log"; return 1; }
    echo "$wanted" >"$root/python/installed"
}

node_clients() { # the packages of mock/clients/package.json, with the scripts beside them
    local wanted
    command -v node >/dev/null && command -v npm >/dev/null || { reason="no node and npm here"; return 1; }
    wanted=$(cksum <"$here/package.json")
    if [ "$(cat "$root/node/installed" 2>/dev/null)" != "$wanted" ]; then
        rm -rf "$root/node" && mkdir -p "$root/node" && cp "$here/package.json" "$root/node" || return 1
        (cd "$root/node" && npm install --ignore-scripts --no-audit --no-fund --loglevel=error) \
            >"$root/node.log" 2>&1 ||
            { reason="npm cannot install them, see $root/node.log"; return 1; }
        echo "$wanted" >"$root/node/installed"
    fi
    cp "$here/"*.mjs "$root/node"
}

program() {
    [ -n "${SYNCLINE:-}" ] && return
    cargo build --quiet --locked --bin syncline || exit 1
    SYNCLINE=$target/debug/syncline
}

start_account() { # PROVIDER OPTION...: sets $url
    local line
    exec 3< <(exec "$SYNCLINE" mock "$@" --listen 127.0.0.1:0 --tls="$root/ca.pem")
    account=$!
    read -r line <&3 || { echo "the simulated account does not start" >&2; exit 1; }
    url=https://${line##*://}
}

with_client() { # NAME ENVIRONMENT ACCOUNT COMMAND...
    local name=$1 environment=$2 provider=$3 options=() status
    shift 3
    [ $# -gt 0 ] && wanted "$name" || return 0
    "$environment" || { echo "skipped: $name ($reason)"; return 0; }
    program
    [ "$provider" = hubspot ] || options=(--token t-1 --client-id app --client-secret s-1)
    start_account "$provider" "${options[@]}"
    REQUESTS_CA_BUNDLE=$root/ca.pem NODE_EXTRA_CA_CERTS=$root/ca.pem "$@" "$url"
    status=$?
    stop_account
    verdict "$name" $status
}

verdict() { # NAME STATUS
    if [ "$2" -eq 0 ]; then echo "ok   $1"; else echo "FAIL $1"; failed=1; fi
}

our_requests() { # what a test of ours sent, as it lies in the target folder
    local name=hubspot-requests kept=$target/tmp/hubspot-requests.ndjson
    wanted $name || return 0
    python_clients || { echo "skipped: $name ($reason)"; return 0; }
    rm -f "$kept"
    cargo test --quiet --locked -p syncline-tests --test hubspot_requests >"$root/requests.log" 2>&1 ||
        { tail -n 40 "$root/requests.log"; verdict $name 1; return; }
    "$root/python/bin/python" "$here/hubspot_requests.py" "$kept"
    verdict $name $?
}

asked=("$@")
wanted() {
    [ ${#asked[@]} -eq 0 ] && return
    local name
    for name in "${asked[@]}"; do [ "$name" = "$1" ] && return; done
    return 1
}

python=$root/python/bin/python
with_client simple-salesforce python_clients salesforce "$python" "$here/salesforce_org.py"
with_client hubspot-api-client python_clients hubspot "$python" "$here/hubspot_portal.py"
with_client jsforce node_clients salesforce node "$root/node/salesforce_org.mjs"
with_client hubspot-node node_clients hubspot node "$root/node/hubspot_portal.mjs"
our_requests
exit $failed
