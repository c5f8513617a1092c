#!/bin/sh
# Installs the browser that tests of the dashboard drive: Debian's (or Ubuntu's) Chromium, without a driver of its own.
# Does nothing where it is there; needs root otherwise.
set -eu

for program in chromium chromium-browser google-chrome; do
    if command -v "$program" >/dev/null 2>&1; then
        echo "a browser is installed: $program"
        exit 0
    fi
done
if ! command -v apt-get >/dev/null 2>&1; then
    echo "install_chromium.sh: no apt-get here; install Chromium by hand" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "install_chromium.sh: must be root to install packages; run: sudo $0" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 update -q
apt-get -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends chromium fonts-dejavu-core
command -v chromium >/dev/null 2>&1
