#!/usr/bin/env bash
# Installs the tools that jobs use. Every package and archive is signed by its publisher and verified, because all builds
# of the organisation run on this image. Keys from outside Ubuntu are pinned here by fingerprint.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

# cloud-init may still hold apt's lock shortly after the boot.
cloud-init status --wait || true

apt-get update
apt-get full-upgrade --yes
apt-get install --yes --no-install-recommends \
	ca-certificates curl docker-buildx docker.io gcc git gnupg jq libc6-dev libssl-dev make musl-tools pkg-config ripgrep rustup unzip

# trusted URL FINGERPRINT KEYRING: downloads a public key and writes it to a keyring, if its fingerprint matches.
keys="$(mktemp -d)"
trusted() {
	local url="$1" fingerprint="$2" ring="$3"
	curl --fail --silent --show-error --location --proto '=https' "$url" | GNUPGHOME="$keys" gpg --batch --import
	GNUPGHOME="$keys" gpg --batch --yes --export "$fingerprint" >"$ring"
	[ -s "$ring" ] || {
		echo "$url does not contain the key $fingerprint" >&2
		exit 1
	}
}

trusted https://apt.releases.hashicorp.com/gpg 798AEC654E5C15428C8E42EEAA16FCBCA621E701 /usr/share/keyrings/hashicorp.gpg
echo "deb [signed-by=/usr/share/keyrings/hashicorp.gpg] https://apt.releases.hashicorp.com noble main" \
	>/etc/apt/sources.list.d/hashicorp.list
apt-get update
apt-get install --yes --no-install-recommends terraform

# No package repository has AWS CLI v2. AWS signs the archive.
trusted "https://keyserver.ubuntu.com/pks/lookup?op=get&search=0xFB5DB77FD5C118B80511ADA8A6310ACC4672475C" \
	FB5DB77FD5C118B80511ADA8A6310ACC4672475C "$keys/aws.gpg"
archive="https://awscli.amazonaws.com/awscli-exe-linux-$(uname -m).zip"
curl --fail --silent --show-error --proto '=https' --output "$keys/aws.zip" "$archive"
curl --fail --silent --show-error --proto '=https' --output "$keys/aws.zip.sig" "$archive.sig"
gpgv --keyring "$keys/aws.gpg" "$keys/aws.zip.sig" "$keys/aws.zip"
unzip -q "$keys/aws.zip" -d "$keys"
"$keys/aws/install" --update
rm -rf "$keys"
