#!/bin/sh
# Installs what tests/servers/radosgw.py starts: a single-node Ceph with its S3 gateway, from Debian's (or Ubuntu's) packages,
# and the two programs beside it that make backups: aws and sqlite3. Does nothing where they are there; needs root otherwise.
set -eu

PROGRAMS="ceph ceph-mon ceph-osd monmaptool radosgw radosgw-admin aws sqlite3"
missing() { for program in $PROGRAMS; do command -v "$program" >/dev/null 2>&1 || return 0; done; return 1; }

if ! missing; then
    echo "radosgw is installed: $(radosgw --version)"
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "install_radosgw.sh: no apt-get here; install $PROGRAMS by hand" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "install_radosgw.sh: must be root to install packages; run: sudo $0" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# A package's own start must not begin a cluster: the tests start and end theirs.
apt-get -o DPkg::Lock::Timeout=300 update -q
apt-get -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends radosgw ceph-mon ceph-osd ceph-common awscli sqlite3
if missing; then
    echo "install_radosgw.sh: the packages came without some of: $PROGRAMS" >&2
    exit 1
fi
echo "radosgw is installed: $(radosgw --version)"
