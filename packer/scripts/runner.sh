#!/usr/bin/env bash
# Installs GitHub's runner, its user, and the settings that jobs expect from GitHub's own runners. Needs RUNNER_VERSION,
# RUNNER_SHA256, RUNNER_ARCHITECTURE, NODE_VERSION, https_proxy, no_proxy, CA_CERTIFICATES; the last three may be empty.
set -euo pipefail

# sudo without a password, as on GitHub's runners. Jobs need Docker, and the docker group is equivalent to root anyway. The
# machine is the security boundary: it runs one job, holds no secrets other than those of the job, and is terminated
# afterwards (docs/security.md).
useradd --create-home --shell /bin/bash --groups docker runner
echo 'runner ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/90-runner
chmod 0440 /etc/sudoers.d/90-runner
visudo --check --quiet

archive="$(mktemp)"
curl --fail --silent --show-error --location --proto '=https' --output "$archive" \
	"https://github.com/actions/runner/releases/download/v$RUNNER_VERSION/actions-runner-linux-$RUNNER_ARCHITECTURE-$RUNNER_VERSION.tar.gz"
echo "$RUNNER_SHA256  $archive" | sha256sum --check --strict
install --directory --owner runner --group runner /opt/runner /opt/runner/_work
tar --extract --gzip --file "$archive" --directory /opt/runner --no-same-owner
rm "$archive"

# The runner reads this file at its start and passes the variables to jobs. Its values replace those of the agent. The
# tool cache must have this path: prebuilt versions of Ruby and Python contain it.
cache=/opt/hostedtoolcache
cat >/opt/runner/.env <<-VARIABLES
	AGENT_TOOLSDIRECTORY=$cache
	RUNNER_TOOL_CACHE=$cache
	ImageOS=ubuntu24
	PATH=/home/runner/.local/bin:/home/runner/.cargo/bin:$cache/node/$NODE_VERSION/$RUNNER_ARCHITECTURE/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin
VARIABLES
# Programs read different spellings of these variables.
if [ -n "$https_proxy" ]; then
	for name in http_proxy https_proxy HTTP_PROXY HTTPS_PROXY; do
		echo "$name=$https_proxy"
	done
	printf '%s\n' "no_proxy=${no_proxy:-}" "NO_PROXY=${no_proxy:-}"
fi >>/opt/runner/.env
# Node.js, with which most actions run, and Python's requests have their own lists of CAs.
if [ -n "$CA_CERTIFICATES" ]; then
	certificates=/etc/ssl/certs/ca-certificates.crt
	printf '%s\n' "NODE_EXTRA_CA_CERTS=$certificates" "REQUESTS_CA_BUNDLE=$certificates" "AWS_CA_BUNDLE=$certificates"
fi >>/opt/runner/.env
mkdir --parents "$cache"
chown --recursive runner:runner /opt/runner "$cache"
/opt/runner/bin/installdependencies.sh

# Install Rust for the user that runs the jobs.
# shellcheck disable=SC2016 # the user's shell expands it
runuser --login runner --command '
	rustup toolchain install stable --profile minimal --component clippy,rustfmt
	rustup default stable
	rustup target add "$(uname -m)-unknown-linux-musl"
'
