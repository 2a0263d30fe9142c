#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A certificate authority for development: makes a CA once, then server and client certificates signed by it.
#   dev-ca.sh FOLDER server NAME...   FOLDER/tls.crt and tls.key for these DNS names and addresses
#   dev-ca.sh FOLDER client CN        FOLDER/CN.crt and CN.key; CN is a node's name, a {service}, nereid:gm or nereid:lc
set -eu
[ $# -ge 3 ] || { sed -n '4,5s/^# *//p' "$0" >&2; exit 2; }
folder=$1 kind=$2
shift 2
umask 077
mkdir -p "$folder"
cd "$folder"

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

if [ ! -e ca.key ]; then
    key ca.key
    openssl req -x509 -new -key ca.key -days 3650 -subj "/CN=Nereid development CA" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" -out ca.crt
fi

sign() { # name, common name, extensions
    key "$1.key"
    openssl req -new -key "$1.key" -subj "/CN=$2" -out "$1.csr"
    printf '%s\n' "$3" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -extfile "$1.ext" \
        -out "$1.crt" 2>/dev/null
    rm "$1.csr" "$1.ext"
}

case $kind in
server)
    names=
    for name in "$@"; do
        case $name in
        *:* | *[!0-9.]*) case $name in *:*) names="$names,IP:$name" ;; *) names="$names,DNS:$name" ;; esac ;;
        *) names="$names,IP:$name" ;;
        esac
    done
    sign tls "$1" "subjectAltName=${names#,}
extendedKeyUsage=serverAuth"
    ;;
client) sign "$1" "$1" "extendedKeyUsage=clientAuth" ;;
*) echo "server or client, not $kind" >&2 && exit 2 ;;
esac
