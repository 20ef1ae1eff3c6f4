#!/usr/bin/env bash
# Whether this machine's image is one that Drover can launch. Ends the build if not; installed as drover-verify-image, it
# proves an image of your own. Run as root. RUNNER_VERSION, if set, is what GitHub's runner must be.
set -uo pipefail

failed=0
must() {
	local what="$1"
	shift
	if "$@" >/dev/null 2>&1; then
		echo "ok      $what"
	else
		echo "FAILED  $what"
		failed=1
	fi
}
as_runner() { runuser --login runner --command "$1"; }
# shellcheck disable=SC2329 # `must` calls it
not() { ! "$@"; }

# The contract: without these no job ever runs.
must "the agent runs here" test "$(
	/usr/local/bin/drover-agent --usage >/dev/null 2>&1
	echo $?
)" = 2
must "the agent starts at boot" systemctl is-enabled drover-agent.service
must "the agent's unit is right" systemd-analyze verify drover-agent.service
must "the unit powers off whether the agent succeeds" grep -q '^SuccessAction=poweroff' /etc/systemd/system/drover-agent.service
must "or fails" grep -q '^FailureAction=poweroff' /etc/systemd/system/drover-agent.service
must "the agent knows its boot table" grep -qE '^DROVER_BOOT_TABLE=[a-z0-9-]+-boot$' /etc/drover/agent.env
must "the agent knows where the runner is" grep -q '^DROVER_RUNNER_DIR=/opt/runner$' /etc/drover/agent.env
must "GitHub's runner is there" test -x /opt/runner/run.sh
must "it is the version it should be" test "$(as_runner '/opt/runner/bin/Runner.Listener --version')" = "${RUNNER_VERSION:-$(as_runner '/opt/runner/bin/Runner.Listener --version')}"
must "its user owns it" test "$(stat --format %U /opt/runner)" = runner
must "its work folder is empty" test -z "$(ls -A /opt/runner/_work)"
must "setpriv changes to its user" setpriv --reuid runner --regid runner --init-groups -- true

# The threats.
must "the user has no sudo" not runuser --user runner -- sudo --non-interactive true
must "nobody can log in by SSH" not systemctl is-enabled ssh.service ssh.socket
must "the runner was never registered" test ! -e /opt/runner/.credentials
must "no AWS credentials are left" test ! -e /root/.aws -a ! -e /home/runner/.aws -a ! -e /home/ubuntu/.aws

# The time.
for unit in apt-daily.timer unattended-upgrades.service systemd-networkd-wait-online.service; do
	must "$unit does not start" not systemctl is-enabled "$unit"
done
must "cloud-init has nothing to wait for" grep -q '^cloud_final_modules: \[\]$' /etc/cloud/cloud.cfg.d/99-drover.cfg
must "cloud-init understands its configuration" cloud-init schema --config-file /etc/cloud/cloud.cfg.d/99-drover.cfg

# What jobs expect.
for tool in aws cargo docker gcc git jq musl-gcc pkg-config rg rustc terraform unzip; do
	must "$tool" as_runner "command -v $tool"
done
must "AWS CLI is version 2" as_runner 'aws --version | grep -q "^aws-cli/2"'
must "OpenSSL's headers" as_runner 'pkg-config --exists openssl'
must "Rust has its musl target" as_runner 'rustup target list --installed | grep -q musl'
must "the user may use docker" as_runner 'id --name --groups | grep -qw docker'

exit "$failed"
