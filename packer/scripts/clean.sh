#!/usr/bin/env bash
# What must not be the same on every machine, and what need not be on any.
set -euo pipefail

apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/man /var/log/journal/*
find /var/log -type f -exec truncate --size 0 {} +

# Keys of the build, and an identity that every machine would share.
rm -f /etc/ssh/ssh_host_* /home/ubuntu/.ssh/authorized_keys /root/.ssh/authorized_keys
truncate --size 0 /etc/machine-id
cloud-init clean --logs

# Packer's own scripts are still running from /tmp; the next boot empties it.
rm -f /tmp/drover-agent /tmp/verify.sh

# Free blocks need not be in the snapshot.
fstrim --all || true
sync
