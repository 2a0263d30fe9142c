#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs Mosquitto and its clients from the distribution's packages where they are missing, without leaving a service
# on port 1883: Nereid starts brokers of its own, and a KubeEdge node has one there already.
set -eu
PATH="$PATH:/usr/sbin"

command -v mosquitto >/dev/null && command -v mosquitto_sub >/dev/null && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Mosquitto is missing. Install it, for instance: sudo apt-get install mosquitto mosquitto-clients" >&2
    exit 2
fi

# Packages ask this file whether they may start their service; 101 means no. One that stands there already is kept.
policy=/usr/sbin/policy-rc.d
ours=false
if [ ! -e "$policy" ]; then
    ours=true
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
trap '[ "$ours" = false ] || rm -f "$policy"' EXIT

echo "installing mosquitto and mosquitto-clients" >&2
export DEBIAN_FRONTEND=noninteractive
# A new machine may be at its own updates, and a mirror may fail once.
apt() {
    for try in 10 20 40 0; do
        apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >/dev/null && return
        [ "$try" = 0 ] || sleep "$try"
    done
    return 1
}
apt update -qq
apt install -y -qq --no-install-recommends mosquitto mosquitto-clients
# The package enables the service for the next boot, whatever the policy said of now.
if command -v systemctl >/dev/null; then systemctl disable --quiet mosquitto >/dev/null 2>&1 || true; fi
