#!/usr/bin/env bash
# Unpacks Debian packages, and the shared libraries they need and this system lacks, into
# target/debian, as an ordinary user: nothing is installed, configured or started.
#
#   tools/debian.sh nginx wrk
#
# Run what it unpacked with LD_LIBRARY_PATH=$(tools/debian.sh --library-path).
# Where it cannot be done it prints `skipped: debian (reason)` and ends with status 0.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/debian" || exit 1
root=$(cd "$target/debian" && pwd)

skip() {
    echo "skipped: debian ($1)"
    exit 0
}

if [ "${1:-}" = --library-path ]; then
    find "$root" -maxdepth 4 -type f -name 'lib*.so*' -printf '%h\n' 2>/dev/null | sort -u | paste -sd:
    exit
fi
[ $# -gt 0 ] || { echo "usage: tools/debian.sh PACKAGE..." >&2; exit 64; }

wanted=()
for package in "$@"; do
    [ -e "$root/unpacked/$package" ] || wanted+=("$package")
done
[ ${#wanted[@]} -gt 0 ] || exit 0

for tool in apt-get apt-cache dpkg dpkg-query; do
    command -v "$tool" >/dev/null 2>&1 || skip "no $tool here"
done

mkdir -p "$root/unpacked" "$root/packages" "$root/lists/partial" "$root/cache/archives/partial"
exec 9>"$root/lock"
command -v flock >/dev/null 2>&1 && flock 9

quick=(-o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20)
private=(-o "Dir::State::lists=$root/lists" -o "Dir::Cache=$root/cache" -o Debug::NoLocking=1
    -o "APT::Sandbox::User=$(id -un)")
lists=()

use_private_lists() {
    lists=("${private[@]}")
    apt-get "${lists[@]}" "${quick[@]}" -qq update >"$root/update.log" 2>&1
}

known() { apt-cache "${lists[@]}" show "$1" >/dev/null 2>&1; }

# The package and, of all it depends on, the libraries that are not installed here. A package
# that stands for a release's version, such as postgresql, brings that version.
with_libraries() {
    echo "$1"
    apt-cache "${lists[@]}" depends --no-recommends --no-suggests "$1" 2>/dev/null |
        sed -n "s/^  Depends: \\($1-[0-9][0-9]*\\)$/\\1/p"
    apt-cache "${lists[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts \
        --no-breaks --no-replaces --no-enhances "$1" 2>/dev/null |
        sed -n 's/^\(lib[a-z0-9.+-]*\)$/\1/p' | sort -u |
        while read -r library; do
            state=$(dpkg-query -W -f '${db:Status-Status}' "$library" 2>/dev/null)
            [ "$state" = installed ] || ! known "$library" || echo "$library"
        done
}

download() {
    (cd "$root/packages" && apt-get "${lists[@]}" "${quick[@]}" -o "APT::Sandbox::User=$(id -un)" \
        -qq download "$@") >"$root/download.log" 2>&1
}

fetch() {
    local packages
    mapfile -t packages < <(with_libraries "$1")
    download "${packages[@]}"
}

for package in "${wanted[@]}"; do
    rm -f "$root/packages/"*.deb
    if ! known "$package"; then
        use_private_lists || skip "apt-get update failed"
        known "$package" || skip "no package $package in the archive"
    fi
    if ! fetch "$package"; then
        # The system's lists may name versions that the archive has dropped.
        use_private_lists || skip "apt-get update failed"
        fetch "$package" || skip "apt-get download $package failed"
    fi
    for deb in "$root/packages/"*.deb; do
        dpkg -x "$deb" "$root" || skip "dpkg cannot unpack ${deb##*/}"
    done
    rm -f "$root/packages/"*.deb
    : >"$root/unpacked/$package"
done
