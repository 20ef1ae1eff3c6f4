#!/usr/bin/env bash
# GitHub's runner and its user. Needs RUNNER_VERSION, RUNNER_SHA256, RUNNER_ARCHITECTURE.
set -euo pipefail

# No sudo and no password. The docker group is as good as root on this machine, and jobs need it: what bounds a job is that
# the machine is its own, holds no secret but its job's, and is gone after it.
useradd --create-home --shell /bin/bash --groups docker runner

archive="$(mktemp)"
curl --fail --silent --show-error --location --proto '=https' --output "$archive" \
	"https://github.com/actions/runner/releases/download/v$RUNNER_VERSION/actions-runner-linux-$RUNNER_ARCHITECTURE-$RUNNER_VERSION.tar.gz"
echo "$RUNNER_SHA256  $archive" | sha256sum --check --strict
install --directory --owner runner --group runner /opt/runner /opt/runner/_work
tar --extract --gzip --file "$archive" --directory /opt/runner --no-same-owner
chown --recursive runner:runner /opt/runner
rm "$archive"
/opt/runner/bin/installdependencies.sh

# Rust as jobs of this user see it.
# shellcheck disable=SC2016 # the user's shell expands it
runuser --login runner --command '
	rustup toolchain install stable --profile minimal --component clippy,rustfmt
	rustup default stable
	rustup target add "$(uname -m)-unknown-linux-musl"
'
