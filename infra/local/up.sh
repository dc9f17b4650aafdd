#!/bin/sh
# `make up`: secrets on the first time, then all servers in the background; ends when they answer.
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

# Compose waits for the others on its way to the dispatcher, not for the dispatcher.
dispatcher=$(compose ps --quiet dispatcher)
looks=60
until [ "$(docker inspect --format '{{.State.Health.Status}}' "$dispatcher")" = healthy ]; do
    looks=$((looks - 1))
    if [ "$looks" = 0 ]; then
        docker logs --tail 20 "$dispatcher" >&2
        echo "up: expected the dispatcher healthy in two minutes, found its log above; mend that, run make up again" >&2
        exit 1
    fi
    sleep 2
done
echo "up: all answer; to use them: . infra/local/client.sh"
echo "up: to see them: docker ps --filter label=com.docker.compose.project=l2dm"
