#!/usr/bin/env bash
# Installs the tools that Ubuntu does not have, or has too old. Every archive and repository is verified, because all
# builds of the organisation run on this image: keys are pinned by fingerprint, archives by SHA-256. Needs NODE_VERSION,
# NODE_SHA256, RUNNER_ARCHITECTURE.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

work="$(mktemp -d)"
fetch() { curl --fail --silent --show-error --location --proto '=https' --output "$2" "$1"; }

# trusted URL KEYRING FINGERPRINT...: downloads public keys and writes those with these fingerprints to a keyring.
trusted() {
	local url="$1" ring="$2"
	shift 2
	fetch "$url" "$work/keys"
	GNUPGHOME="$work" gpg --batch --import "$work/keys"
	GNUPGHOME="$work" gpg --batch --yes --export "$@" >"$ring"
	[ -s "$ring" ] || {
		echo "$url contains no key with the fingerprint $*" >&2
		exit 1
	}
}

trusted https://apt.releases.hashicorp.com/gpg /usr/share/keyrings/hashicorp.gpg \
	798AEC654E5C15428C8E42EEAA16FCBCA621E701
echo "deb [signed-by=/usr/share/keyrings/hashicorp.gpg] https://apt.releases.hashicorp.com noble main" \
	>/etc/apt/sources.list.d/hashicorp.list

# GitHub names two keys in the CLI's installation guide; the first one replaces the second.
trusted https://cli.github.com/packages/githubcli-archive-keyring.gpg /usr/share/keyrings/github-cli.gpg \
	7F38BBB59D064DBCB3D84D725612B36462313325 2C6106201985B60E6C7AC87323F3D4EA75716059
echo "deb [signed-by=/usr/share/keyrings/github-cli.gpg] https://cli.github.com/packages stable main" \
	>/etc/apt/sources.list.d/github-cli.list

apt-get update
apt-get install --yes --no-install-recommends gh terraform

# No package repository has AWS CLI v2. AWS signs the archive.
trusted "https://keyserver.ubuntu.com/pks/lookup?op=get&search=0xFB5DB77FD5C118B80511ADA8A6310ACC4672475C" "$work/aws.gpg" \
	FB5DB77FD5C118B80511ADA8A6310ACC4672475C
archive="https://awscli.amazonaws.com/awscli-exe-linux-$(uname -m).zip"
fetch "$archive" "$work/aws.zip"
fetch "$archive.sig" "$work/aws.zip.sig"
gpgv --keyring "$work/aws.gpg" "$work/aws.zip.sig" "$work/aws.zip"
unzip -q "$work/aws.zip" -d "$work"
"$work/aws/install" --update

# Node.js, in the tool cache, where actions/setup-node finds it, too. runner.sh adds it to the PATH of jobs. Ubuntu's own
# version gets no security updates any more.
node="/opt/hostedtoolcache/node/$NODE_VERSION/$RUNNER_ARCHITECTURE"
fetch "https://nodejs.org/dist/v$NODE_VERSION/node-v$NODE_VERSION-linux-$RUNNER_ARCHITECTURE.tar.xz" "$work/node.tar.xz"
echo "$NODE_SHA256  $work/node.tar.xz" | sha256sum --check --strict
mkdir --parents "$node"
tar --extract --xz --file "$work/node.tar.xz" --directory "$node" --strip-components 1 --no-same-owner
# Without this file, actions ignore the folder.
touch "$node.complete"
rm -rf "$work"
