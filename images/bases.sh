#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bases.sh ARCH FOLDER, in the repository's root: stand-ins for the two base images, made of Debian's packages where no
# registry can be reached. FOLDER/build.tar is for python:3.11-slim-bookworm, FOLDER/base-ARCH.tar for
# gcr.io/distroless/python3-debian12.
set -eu
arch=$1 folder=$2
case $arch in arm) debian=armhf ;; *) debian=$arch ;; esac
mkdir -p "$folder"
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing: apt-get install mmdebstrap" >&2; exit 2; }

if ! [ "$folder/build.tar" -nt images/bases.sh ]; then
    mmdebstrap --quiet --format=tar --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder/build.part"
    mv "$folder/build.part" "$folder/build.tar"
fi
if ! [ "$folder/base-$arch.tar" -nt images/bases.sh ]; then
    # Unpacked, not configured: nothing of it runs here, so that another architecture needs no emulator. What the packages
    # pull in for their own installation goes: no shell, no package manager.
    # shellcheck disable=SC2016 # $1 is the hook's
    mmdebstrap --quiet --format=tar --variant=extract --architectures="$debian" \
        --include=python3-minimal,libpython3-stdlib,libstdc++6,libgomp1,libgssapi-krb5-2,ca-certificates,tzdata \
        --extract-hook='cd "$1"
            find bin sbin usr/bin usr/sbin ! -type d ! -name "python3.11" -delete
            ln -s python3.11 usr/bin/python3 && ln -s python3.11 usr/bin/python
            mkdir -p etc/ssl/certs home/nonroot && chmod 700 home/nonroot && chown 65532:65532 home/nonroot
            find usr/share/ca-certificates -name "*.crt" -exec cat {} + >etc/ssl/certs/ca-certificates.crt
            find usr/share/doc -type f ! -name copyright -delete
            rm -rf var/lib/dpkg && mkdir -p var/lib/dpkg/status.d # what it is made of, where distroless has it and scanners look
            for deb in var/cache/apt/archives/*.deb; do
                dpkg-deb --field "$deb" >"var/lib/dpkg/status.d/$(dpkg-deb --field "$deb" Package)"
            done
            rm -rf usr/share/man usr/share/locale usr/share/perl5 usr/share/debconf usr/share/python3 var/cache
            rm -rf usr/lib/*/perl-base usr/lib/apt usr/lib/dpkg usr/lib/*/gconv usr/lib/systemd lib/systemd
            echo "root:x:0:0:root:/root:/sbin/nologin" >etc/passwd
            echo "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin" >>etc/passwd
            printf "root:x:0:\nnonroot:x:65532:\n" >etc/group' \
        bookworm "$folder/base-$arch.part"
    mv "$folder/base-$arch.part" "$folder/base-$arch.tar"
fi
