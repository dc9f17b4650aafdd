#!/bin/sh
# Installs what tests/worlds/image_engine.py and test_team_stack.py need: Debian or Ubuntu, as root.
# Where it may not, it says so and ends well: the tests skip and say it again.
set -eu

missing=
command -v dockerd > /dev/null || missing="$missing docker.io"
command -v mmdebstrap > /dev/null || missing="$missing mmdebstrap"
command -v docker-compose > /dev/null || missing="$missing docker-compose"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "test-containers: not installed and no root with apt-get to do it:$missing" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086  # one word for each package
apt-get install -y -q --no-install-recommends $missing
