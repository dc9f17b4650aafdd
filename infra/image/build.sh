#!/bin/sh
# Builds both images: `make image [ENGINE=podman] [TORCH=… TORCH_PIP='--index-url …'] [ACCELERATOR=cuda]`.
# Settings are environment variables; each has a default below.
#   ENGINE        docker (with BuildKit) or podman
#   TAG           of l2dm and l2dm-service
#   PYTHON_IMAGE  the base, best by digest
#   TORCH, TORCH_PIP, ACCELERATOR   which torch, how pip finds it, what it has to be (cpu or cuda)
#   PIP_ARGS      for all of pip, e.g. --no-index when infra/image/wheels holds everything
#   PIP_CONF, CA  files given to the build as secrets: an index of your own, a proxy's certificates
#   BUILD_ARGS    further arguments of `docker build`
set -eu
cd "$(dirname "$0")/../.."

ENGINE=${ENGINE:-docker}
TAG=${TAG:-latest-python3.11}
PYTHON_IMAGE=${PYTHON_IMAGE:-python:3.11-slim-bookworm}
command -v "$ENGINE" > /dev/null || {
    echo "image: expected $ENGINE on the PATH, found none; install it or set ENGINE=podman" >&2
    exit 1
}
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' l2dm/__init__.py)
revision=$(git rev-parse HEAD 2> /dev/null || echo unknown)
created=$(date -u -d "@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || date +%s)}" +%Y-%m-%dT%H:%M:%SZ)

for target in step service; do
    name=l2dm
    [ "$target" = step ] || name=l2dm-service
    set -- --file infra/image/Dockerfile --target "$target" --tag "$name:$TAG" \
        --build-arg "PYTHON_IMAGE=$PYTHON_IMAGE" --build-arg "TORCH=${TORCH:-torch==2.13.0}" \
        --build-arg "TORCH_PIP=${TORCH_PIP:-}" --build-arg "PIP_ARGS=${PIP_ARGS:-}" \
        --build-arg "ACCELERATOR=${ACCELERATOR:-cpu}" --build-arg "VERSION=$version" \
        --build-arg "REVISION=$revision" --build-arg "CREATED=$created"
    [ -z "${PIP_CONF:-}" ] || set -- "$@" --secret "id=pip.conf,src=$PIP_CONF"
    [ -z "${CA:-}" ] || set -- "$@" --secret "id=ca,src=$CA"
    # shellcheck disable=SC2086  # several arguments
    DOCKER_BUILDKIT=1 "$ENGINE" build "$@" ${BUILD_ARGS:-} .
done
