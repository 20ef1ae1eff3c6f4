#!/usr/bin/env bash
# Checks that Drover can launch the image of this machine, and fails the image build if not. Installed on the image as
# drover-verify-image, to check custom images, too. Run as root. RUNNER_VERSION, if set, is the required version of
# GitHub's runner. `verify.sh cloud-init FILE` only checks a configuration file of cloud-init, on any machine.
set -uo pipefail

# Checks a file for /etc/cloud/cloud.cfg.d. `cloud-init schema` accepts only user data and rejects such a file. Needs
# PyYAML, which cloud-init depends on. Looks for the modules in cloud-init's own package.
cloud_init() {
	python3 - "$1" <<-'PYTHON'
		import importlib.util
		import sys

		import yaml

		STAGES = ("cloud_init_modules", "cloud_config_modules", "cloud_final_modules")
		# cloud-init ignores a key that it does not know, so a misspelt key would have no effect.
		KNOWN = {"datasource", "datasource_list", *STAGES}

		try:
		    with open(sys.argv[1], encoding="utf-8") as file:
		        config = yaml.safe_load(file)
		except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
		    sys.exit(f"cannot read {sys.argv[1]}: {error}")
		if not isinstance(config, dict):
		    sys.exit(f"{sys.argv[1]} is not a mapping")
		if importlib.util.find_spec("cloudinit") is None:
		    sys.exit("cloud-init is not installed for python3")

		wrong = [f"unknown key: {key}" for key in config if key not in KNOWN]
		for key in ("datasource_list", *STAGES):
		    value = config.get(key)
		    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
		        wrong.append(f"{key} must be a list of names")
		    elif key != "datasource_list":
		        # cloud-init skips a module that does not exist, with a warning in its log.
		        wrong += [
		            f"{key}: cloud-init has no module {name}"
		            for name in value
		            if importlib.util.find_spec(f"cloudinit.config.cc_{name.replace('-', '_')}") is None
		        ]
		sources = config.get("datasource_list")
		settings = config.get("datasource", {})
		if not isinstance(settings, dict) or not isinstance(sources, list) or not set(settings) <= set(sources):
		    wrong.append("datasource must be a mapping, and its keys must be in datasource_list")
		sys.exit("\n".join(wrong) or None)
	PYTHON
}
if [ "${1:-}" = cloud-init ]; then
	cloud_init "${2:?usage: verify.sh cloud-init FILE}"
	exit
fi

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
# shellcheck disable=SC2329 # called by `must`
not() { ! "$@"; }
# shellcheck disable=SC2329
is_version() { [[ "$1" =~ ^[0-9]+(\.[0-9]+)+$ ]] && [ "$1" = "${RUNNER_VERSION:-$1}" ]; }

# What Drover requires to run a job.
must "the agent is executable on this machine" test "$(
	/usr/local/bin/drover-agent --usage >/dev/null 2>&1
	echo $?
)" = 2
must "the agent starts at boot" systemctl is-enabled drover-agent.service
# Only this unit: an image without manual pages has "errors" in others.
must "the agent's unit is valid" systemd-analyze verify --man=no --recursive-errors=no drover-agent.service
must "the machine powers off when the agent succeeds" grep -q '^SuccessAction=poweroff' /etc/systemd/system/drover-agent.service
must "the machine powers off when the agent fails" grep -q '^FailureAction=poweroff' /etc/systemd/system/drover-agent.service
must "the region is configured" grep -qE '^AWS_REGION=[a-z]+(-[a-z]+)+-[0-9]+$' /etc/drover/agent.env
must "the boot table is configured" grep -qE '^DROVER_BOOT_TABLE=[a-z0-9-]+-boot$' /etc/drover/agent.env
must "the runner's folder is configured" grep -q '^DROVER_RUNNER_DIR=/opt/runner$' /etc/drover/agent.env
must "GitHub's runner is installed" test -x /opt/runner/run.sh
must "the runner has the expected version" is_version "$(as_runner '/opt/runner/bin/Runner.Listener --version')"
must "the runner's user owns its folder" test "$(stat --format %U /opt/runner)" = runner
must "the runner's work folder is empty" test -d /opt/runner/_work -a -z "$(ls -A /opt/runner/_work)"
must "setpriv can change to the runner's user" setpriv --reuid runner --regid runner --init-groups -- true
must "the runner's .env does not replace the agent's hooks" not grep -qE '^ACTIONS_RUNNER_HOOK_JOB_(STARTED|COMPLETED)=' /opt/runner/.env

# Limits of a job. systemd reports what it made of the unit.
# shellcheck disable=SC2329
unit_has() { [ "$(systemctl show --property "${1%%=*}" drover-agent.service)" = "$1" ]; }
for setting in OOMPolicy=continue LimitNOFILE=524288 LimitNOFILESoft=65536 TasksMax=infinity; do
	must "the agent's unit has $setting" unit_has "$setting"
done

# Security.
must "the runner's user exists" id runner
must "SSH logins are disabled" not systemctl is-enabled ssh.service ssh.socket
must "the runner is not registered" test ! -e /opt/runner/.credentials
must "no AWS credentials are stored" test ! -e /root/.aws -a ! -e /home/runner/.aws -a ! -e /home/ubuntu/.aws

# Boot time.
for unit in apt-daily.timer unattended-upgrades.service systemd-networkd-wait-online.service; do
	must "$unit is disabled" not systemctl is-enabled "$unit"
done
must "cloud-init runs no final modules" grep -q '^cloud_final_modules: \[\]$' /etc/cloud/cloud.cfg.d/99-drover.cfg
must "cloud-init's configuration is valid" cloud_init /etc/cloud/cloud.cfg.d/99-drover.cfg

# What workflows written for GitHub's runners expect.
must "the runner's user can use sudo without a password" as_runner 'sudo --non-interactive true'
must "apt-get knows its packages and asks nothing" as_runner 'sudo apt-get install --simulate tree </dev/null'
cache=/opt/hostedtoolcache
must "the runner's user can write to the tool cache" as_runner "test -w $cache"
for setting in "AGENT_TOOLSDIRECTORY=$cache" "RUNNER_TOOL_CACHE=$cache" ImageOS=ubuntu24; do
	must "the runner's .env has $setting" grep -qxF "$setting" /opt/runner/.env
done

# Tools for jobs, looked for in the PATH that the runner gives to jobs.
path="$(sed -n 's/^PATH=//p' /opt/runner/.env 2>/dev/null)"
# shellcheck disable=SC2329
in_job() { as_runner "PATH=${path:-\$PATH}; $1"; }
for tool in aws cargo docker g++ gcc gh git git-lfs jq musl-gcc node npm pip3 pkg-config python3 rg rsync rustc \
	ssh terraform unzip wget xz zip zstd; do
	must "$tool is installed" in_job "command -v $tool"
done
must "docker compose is installed" as_runner 'docker compose version'
must "docker buildx is installed" as_runner 'docker buildx version'
must "Node.js runs" in_job 'node --version && npm --version'
must "Node.js is in the tool cache" compgen -G "$cache/node/*/*.complete"
must "the AWS CLI has version 2" as_runner 'aws --version | grep -q "^aws-cli/2"'
must "the OpenSSL headers are installed" as_runner 'pkg-config --exists openssl'
must "the Rust musl target is installed" as_runner 'rustup target list --installed | grep -q musl'
must "the runner's user is in the docker group" as_runner 'id --name --groups | grep -qw docker'

exit "$failed"
