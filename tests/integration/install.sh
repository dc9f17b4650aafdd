#!/bin/sh
# Installs the programs of tests/integration/servers.py that are missing: Debian or Ubuntu, as root.
set -eu

missing=
for program in ceph-mon ceph-osd radosgw ceph; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing="$missing faketime"
[ -n "$missing" ] || exit 0

packages=$(echo "$missing" | sed 's/\<ceph$/ceph-common/; s/\<ceph /ceph-common /')
if ! command -v apt-get >/dev/null; then
    echo "test-integration: expected$missing, found no apt-get to install them; install them by hand" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "test-integration: expected$missing; run as root: apt-get install --no-install-recommends$packages" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086  # one word for each package
apt-get install -y -q --no-install-recommends $packages
