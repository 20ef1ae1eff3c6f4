#!/usr/bin/env bash
# Installs the packages of Ubuntu that jobs use. tools.sh installs what Ubuntu does not have, or has too old.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

# cloud-init may still hold apt's lock shortly after the boot.
cloud-init status --wait || true

# The agent of Session Manager, over which Packer may be connected, is a snap: a refresh during the build would restart it.
snap wait system seed.loaded && snap refresh --hold || true

# Workflows written for GitHub's runners call apt-get without --yes, and without waiting for its lock.
install --mode 0644 /tmp/apt.conf /etc/apt/apt.conf.d/90-drover

apt-get update
apt-get full-upgrade --yes
apt-get install --yes --no-install-recommends \
	bzip2 ca-certificates curl docker-buildx docker-compose-v2 docker.io file g++ gcc git git-lfs gnupg jq libc6-dev \
	libssl-dev lsb-release make musl-tools openssh-client pkg-config python3 python3-pip python3-venv ripgrep rsync \
	rustup sudo tar unzip wget xz-utils zip zstd
