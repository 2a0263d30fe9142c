#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# armv7.sh: dist/wheels with the one wheel that a LocalController on arm/v7 needs and nobody publishes: msgspec's, as
# uv.lock has it, built by a cross compiler. Wants Python 3.11 in .venv, mmdebstrap and gcc-arm-linux-gnueabihf.
set -eu
cd "$(dirname "$0")/.."
for program in mmdebstrap arm-linux-gnueabihf-gcc; do
    command -v "$program" >/dev/null && continue
    echo "$program is missing: apt-get install mmdebstrap gcc-arm-linux-gnueabihf" >&2
    exit 2
done
.venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "the images have Python 3.11 and .venv another, whose wheels they do not take" >&2
    exit 2
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # apt reads it as another user
mmdebstrap --quiet --format=directory --variant=extract --architectures=armhf --include=libpython3.11-dev \
    bookworm "$work/root" "deb http://deb.debian.org/debian bookworm main" # headers: what runs is not of it
mkdir -p dist/wheels
.venv/bin/uv export --quiet --frozen --no-dev --no-emit-project --no-hashes | grep '^msgspec==' >"$work/locked"
headers=$work/root/usr/include
CC="arm-linux-gnueabihf-gcc -I$headers/python3.11 -I$headers" LDSHARED="arm-linux-gnueabihf-gcc -shared" \
    _PYTHON_HOST_PLATFORM=linux-armv7l SETUPTOOLS_EXT_SUFFIX=.cpython-311-arm-linux-gnueabihf.so \
    .venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-cache-dir --no-binary=msgspec \
    --wheel-dir dist/wheels -r "$work/locked"
