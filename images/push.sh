#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# push.sh DESTINATION ARCH...: push what build.sh made for these architectures as one image each, such as
# docker://ghcr.io/me or oci:/a/folder. Wants buildah, logged in.
set -eu
cd "$(dirname "$0")/.."
destination=$1
shift
case $(uname -m) in aarch64) host=arm64 ;; *) host=amd64 ;; esac
version=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("nereid-ai"))')

for part in cloud edge worker broker; do
    list=localhost/nereid-$part-list:$version
    buildah manifest rm "$list" >/dev/null 2>&1 || true
    buildah manifest create "$list" >/dev/null
    for arch in "$@"; do
        file=dist/images/$arch/nereid-$part.tar
        [ "$arch" != "$host" ] || file=dist/images/nereid-$part.tar
        buildah manifest add "$list" "oci-archive:$file" >/dev/null
    done
    buildah manifest push --quiet --all "$list" "$destination/nereid-$part:$version"
    buildah manifest rm "$list" >/dev/null
done
