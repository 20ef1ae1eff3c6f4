#!/usr/bin/env bash
# Removes what must differ between machines, and what no machine needs.
set -euo pipefail

# The lists of packages stay: workflows written for GitHub's runners call apt-get install without apt-get update.
apt-get clean
rm -rf /var/cache/man /var/log/journal/*
find /var/log -type f -exec truncate --size 0 {} +

# SSH keys of the build, and identities that all machines would share.
rm -f /etc/ssh/ssh_host_* /home/ubuntu/.ssh/authorized_keys /root/.ssh/authorized_keys
truncate --size 0 /etc/machine-id
cloud-init clean --logs

# Packer still runs its scripts from /tmp. The next boot empties the rest.
rm -f /tmp/drover-agent /tmp/verify.sh

# Keep free blocks out of the snapshot.
fstrim --all || true
sync
