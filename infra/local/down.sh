#!/bin/sh
# `make down`: stops the servers; their data stays in volumes (`make down VOLUMES=--volumes` removes it).
set -eu
cd "$(dirname "$0")"

# shellcheck source=infra/local/compose.sh
. ./compose.sh
# shellcheck disable=SC2086  # nothing, or one flag
compose down ${VOLUMES:-}
