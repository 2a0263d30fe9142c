#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wheels.sh ARCH...: dist/wheels with Nereid's own wheel and, as uv.lock has them, those that its images need. With these
# wheels and the base images at hand the images are built without a network.
set -eu
cd "$(dirname "$0")/.."
rm -rf dist/wheels
mkdir -p dist/wheels
.venv/bin/uv build --quiet --wheel --out-dir dist/wheels
rm -f dist/wheels/.gitignore
locked=$(mktemp)
trap 'rm -f "$locked"' EXIT
.venv/bin/uv export --quiet --frozen --no-dev --no-emit-project --no-hashes --extra cloud --extra edge --extra worker --extra vision --extra serving --extra onnx \
    >"$locked"
for arch in "$@"; do
    case $arch in
    amd64) machine=x86_64 ;;
    arm64) machine=aarch64 ;;
    arm) sh images/armv7.sh && continue ;; # paho-mqtt's and inotify-simple's, the others that a LocalController needs, are for all machines
    *) echo "no wheels for $arch; there are amd64, arm64 and, for the LocalController, arm" >&2 && exit 2 ;;
    esac
    # The lock is for every Python and machine; this is the part for the images'.
    .venv/bin/uv pip compile --quiet --no-deps --no-header --no-annotate --python-version 3.11 \
        --python-platform "$machine-manylinux_2_28" --output-file "$locked.$arch" "$locked"
    .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --ignore-requires-python --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none \
        --platform "manylinux_2_28_$machine" --platform "manylinux_2_27_$machine" --platform "manylinux_2_24_$machine" \
        --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" --dest dist/wheels -r "$locked.$arch"
    rm "$locked.$arch"
done
