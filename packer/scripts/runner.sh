#!/usr/bin/env bash
# Installs GitHub's runner and creates its user. Needs RUNNER_VERSION, RUNNER_SHA256, RUNNER_ARCHITECTURE.
set -euo pipefail

# No sudo and no password. Jobs need Docker, and membership in the docker group is equivalent to root. The machine is the
# security boundary: it runs one job, holds no secrets other than those of the job, and is terminated afterwards.
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

# Install Rust for the user that runs the jobs.
# shellcheck disable=SC2016 # the user's shell expands it
runuser --login runner --command '
	rustup toolchain install stable --profile minimal --component clippy,rustfmt
	rustup default stable
	rustup target add "$(uname -m)-unknown-linux-musl"
'
