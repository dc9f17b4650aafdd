#!/bin/sh
# `make up`: secrets on the first time, then all servers in the background.
set -eu
cd "$(dirname "$0")"

# shellcheck source=infra/local/compose.sh
. ./compose.sh
sh secrets.sh
docker image inspect "l2dm-service:${L2DM_TAG:-latest-python3.11}" > /dev/null 2>&1 || {
    echo "up: expected the image l2dm-service, found none; run make image" >&2
    exit 1
}
compose up --detach
echo "starting; see: $COMPOSE --file infra/local/compose.yaml ps"
echo "to use it: . infra/local/client.sh"
