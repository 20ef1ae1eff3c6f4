#!/usr/bin/env bash
# From launch to job, most of what a server does at boot is for a server. This machine lives for one job: nothing on it has
# to be updated, announced, tidied up or logged into. Needs KEEP_SSM.
#
# Not done, and why: cloud-init stays, cut down to three steps, because it is what configures the network and grows the
# root file system on every kind of instance; an own kernel or initramfs would save a second or two and be ours to maintain.
# The volume is filled from the snapshot as blocks are first read, which is most of the time until the agent runs: the image
# is therefore small, and `initialize_at` of Terraform's runner_classes pays EC2 to fill it ahead.
set -euo pipefail

# Nothing may fetch or install packages at boot: it would hold the lock that a job's apt-get needs, too.
units=(
	apt-daily.timer apt-daily-upgrade.timer apt-news.service esm-cache.service unattended-upgrades.service
	update-notifier-download.timer update-notifier-motd.timer motd-news.timer ua-timer.timer ubuntu-advantage.service
	# Housekeeping of machines that stay.
	dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer fwupd-refresh.timer logrotate.timer
	man-db.timer sysstat.service apport.service apport-autoreport.timer
	# Hardware and storage that these machines do not have.
	ModemManager.service multipathd.service multipathd.socket udisks2.service lvm2-monitor.service
	open-iscsi.service iscsid.socket
	# Nobody logs in.
	ssh.service ssh.socket getty@tty1.service serial-getty@ttyS0.service
	# Waits until every interface is configured. The agent asks again until it gets an answer.
	systemd-networkd-wait-online.service
)
for unit in "${units[@]}"; do
	# Not every release has every unit; verify.sh checks those that matter.
	systemctl disable "$unit" 2>/dev/null || true
	systemctl mask "$unit"
done

# snapd mounts and seeds at every first boot. Session Manager's agent is a snap.
if [ "$KEEP_SSM" != true ]; then
	systemctl disable snap.amazon-ssm-agent.amazon-ssm-agent.service
	for unit in snapd.service snapd.socket snapd.seeded.service snapd.apparmor.service; do
		systemctl disable "$unit" 2>/dev/null || true
		systemctl mask "$unit"
	done
fi

# Docker starts when a job first talks to it.
systemctl disable docker.service containerd.service
systemctl enable docker.socket

install --mode 0644 -D /tmp/99-drover.cfg /etc/cloud/cloud.cfg.d/99-drover.cfg
install --mode 0644 -D /tmp/journald.conf /etc/systemd/journald.conf.d/drover.conf
install --mode 0644 -D /tmp/system.conf /etc/systemd/system.conf.d/drover.conf
install --mode 0644 -D /tmp/poweroff.conf /etc/systemd/system/poweroff.target.d/drover.conf
