#!/usr/bin/env bash
# Installs Drover's agent, its unit, and the unit for a workspace on instance storage. Needs STACK,
# REGION, https_proxy, no_proxy, CA_CERTIFICATES; the last three may be empty.
set -euo pipefail

install --mode 0755 /tmp/drover-agent /usr/local/bin/drover-agent
install --mode 0755 /tmp/verify.sh /usr/local/sbin/drover-verify-image
install --mode 0755 /tmp/drover-workspace /usr/local/sbin/drover-workspace
install --mode 0644 /tmp/drover-agent.service /tmp/drover-workspace@.service /etc/systemd/system/
install --mode 0644 /tmp/90-drover-workspace.rules /etc/udev/rules.d/
install --mode 0644 -D /tmp/agent.env /etc/drover/agent.env
sed -i "s/@STACK@/$STACK/; s/@REGION@/$REGION/" /etc/drover/agent.env
# The agent reads only this file, not the settings of the system.
{
	[ -z "$https_proxy" ] || printf '%s\n' "HTTPS_PROXY=$https_proxy" "NO_PROXY=${no_proxy:-}"
	[ -z "$CA_CERTIFICATES" ] || echo "DROVER_CA_CERTIFICATES=$CA_CERTIFICATES"
} >>/etc/drover/agent.env

systemctl daemon-reload
systemctl enable drover-agent.service
