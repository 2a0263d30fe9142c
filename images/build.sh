#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh [ARCH...]: dist/images/nereid-{cloud,edge,worker,broker}.tar for this machine, dist/images/ARCH/... for another,
# with docker, podman or buildah (ENGINE=...), whichever works. Each is an OCI archive that `ctr images import` and
# `docker load` take; its bill of materials lies beside it (nereid-edge.cdx.json).
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin"

BUILD=docker.io/library/python:3.11-slim-bookworm
BASE=gcr.io/distroless/python3-debian12:nonroot
case $(uname -m) in aarch64) host=arm64 ;; *) host=amd64 ;; esac
arches=${*:-$host}
version=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("nereid-ai"))')
cache=${XDG_CACHE_HOME:-$HOME/.cache}/nereid/bases

works() { # a docker without its daemon does not
    command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1
}

if [ -z "${ENGINE:-}" ]; then
    for ENGINE in docker podman buildah none; do works "$ENGINE" && break; done
fi
[ "$ENGINE" != none ] || { echo "no docker, podman or buildah works here: apt-get install buildah" >&2; exit 2; }

have() { # name, platform: the engine has the image or can pull it
    "$ENGINE" pull --quiet --platform "$2" "$1" >/dev/null 2>&1
}

import() { # tar, name, architecture
    case $ENGINE in
    docker) docker import --platform "linux/$3" "$1" "$2" >/dev/null ;;
    podman) podman import --quiet --arch "$3" "$1" "$2" >/dev/null ;;
    buildah)
        container=$(buildah from --quiet --arch "$3" scratch)
        buildah add --quiet "$container" "$1" / >/dev/null
        variant=
        case $3 in arm64) variant=v8 ;; arm) variant=v7 ;; esac # without it no image of theirs is found
        buildah config --os linux --arch "$3" --variant "$variant" "$container"
        buildah commit --quiet --rm "$container" "$2" >/dev/null
        ;;
    esac
}

bases() { # architecture
    have "$BUILD" "linux/$host" && have "$BASE" "linux/$1" && return
    echo "no registry within reach: the base images are made of Debian's packages" >&2
    sh images/bases.sh "$host" "$cache"
    sh images/bases.sh "$1" "$cache"
    import "$cache/build.tar" "$BUILD" "$host"
    import "$cache/base-$1.tar" "$BASE" "$1"
}

build() { # part, Dockerfile, architecture
    folder=dist/images
    [ "$3" = "$host" ] || folder=dist/images/$3
    mkdir -p "$folder"
    image=docker.io/library/nereid-$1:$version file=$folder/nereid-$1.tar
    rm -f "$file"
    set -- --platform "linux/$3" --build-arg VERSION="$version" --file "$2" --tag "$image" .
    case $ENGINE in
    docker) docker build --quiet --pull=false "$@" >/dev/null && docker save --output "$file" "$image" ;;
    podman) podman build --quiet --pull=never "$@" >/dev/null && podman push --quiet "$image" "oci-archive:$file:$image" ;;
    buildah)
        buildah build --quiet --pull=never --isolation "${BUILDAH_ISOLATION:-chroot}" \
            --build-arg BUILDPLATFORM="linux/$host" "$@" >/dev/null
        buildah push --quiet "$image" "oci-archive:$file:$image"
        ;;
    esac
    .venv/bin/python images/loadable.py "$file" "$image"
    .venv/bin/python images/sbom.py "$file"
    printf '%s %s MB\n' "$file" "$(($(wc -c <"$file") / 1000000))"
}

[ -n "${KEEP_WHEELS:-}" ] || sh images/wheels.sh $arches
for arch in $arches; do
    bases "$arch"
    parts="cloud edge worker"
    [ "$arch" != arm ] || parts=edge # LiteRT has no wheels for it
    for part in $parts; do build "$part" "$part/Dockerfile" "$arch"; done
    build broker mosquitto/Dockerfile "$arch"
done
