#!/bin/sh
# Collects every wheel of both images in infra/image/wheels, with whatever this machine's pip is
# configured to use: for builds without an index (`make image PIP_ARGS=--no-index`).
# PYTHON: an interpreter of the version that the image has. TORCH: the build of torch.
set -eu
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-.venv/bin/python}
wanted=$(mktemp -d)
trap 'rm -r "$wanted"' EXIT
grep -v -i '^torch==' constraints.txt > "$wanted/constraints.txt"
for which in step service tools; do
    "$PYTHON" infra/image/requirements.py "$which"
done > "$wanted/requirements.txt"
if [ -n "${TORCH:-}" ]; then
    echo "$TORCH"
else # the build that is installed here
    "$PYTHON" -c 'from importlib.metadata import version; print("torch==" + version("torch"))'
fi >> "$wanted/requirements.txt"
# shellcheck disable=SC2086  # several arguments
"$PYTHON" -m pip wheel --quiet --wheel-dir infra/image/wheels ${TORCH_PIP:-} \
    -c "$wanted/constraints.txt" -r "$wanted/requirements.txt"
