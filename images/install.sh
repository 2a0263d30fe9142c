#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# In the build stage of each Dockerfile: install.sh EXTRA[,EXTRA] PACKAGE... puts Nereid's named packages, and what they
# need, into /app. From the wheels of `make wheels` alone, for TARGETARCH, so that it needs no network and no emulator.
set -eu
extras=$1
shift

case ${TARGETARCH:-amd64} in
amd64) machine=x86_64 ;;
arm64) machine=aarch64 ;;
arm) machine=armv7l extra="--platform linux_armv7l" ;; # ours of armv7.sh
*) echo "no wheels for $TARGETARCH" >&2 && exit 2 ;;
esac
platforms=${extra:-}
for glibc in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014; do
    platforms="$platforms --platform ${glibc}_$machine"
done

python3 -m venv /tmp/venv
# shellcheck disable=SC2086 # a list of options
/tmp/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-index --find-links=/wheels \
    --only-binary=:all: --ignore-requires-python --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none $platforms \
    --target=/app/lib "nereid-ai[$extras]"

cd /app/lib
for package in nereid_*/; do
    package=${package%/}
    case "$package: $* " in *.dist-info:* | *" $package "*) ;; *) rm -r "$package" ;; esac
done
rm -rf bin
# Nothing imports them: the asyncio half of the Kubernetes client, half of its 126 MB, and a fifth of numpy.
rm -rf kubernetes/aio
find . -type d -name tests -path './numpy/*' -prune -exec rm -r {} +
