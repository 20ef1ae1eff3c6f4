#!/usr/bin/env bash
# Shortens the boot. The machine runs one job, so updates, maintenance and logins are not needed. Needs KEEP_SSM.
#
# cloud-init stays, reduced to three modules, because it configures the network and grows the root file system on every
# instance type. A custom kernel or initramfs would save a second or two, but would have to be maintained. Most of the
# boot time is spent on reading blocks of the snapshot for the first time. The image is therefore small, and
# `initialize_at` in Terraform's runner_classes makes EC2 fill the volume in advance, for a fee.
set -euo pipefail

# No package updates at boot: they would hold the lock that apt-get needs in a job.
units=(
	apt-daily.timer apt-daily-upgrade.timer apt-news.service esm-cache.service unattended-upgrades.service
	update-notifier-download.timer update-notifier-motd.timer motd-news.timer ua-timer.timer ubuntu-advantage.service
	# Maintenance of long-running machines.
	dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer fwupd-refresh.timer logrotate.timer
	man-db.timer sysstat.service apport.service apport-autoreport.timer
	# Hardware and storage that these machines do not have.
	ModemManager.service multipathd.service multipathd.socket udisks2.service lvm2-monitor.service
	open-iscsi.service iscsid.socket
	# Nobody logs in.
	ssh.service ssh.socket getty@tty1.service serial-getty@ttyS0.service
	# Waits until every interface is configured. The agent retries until the network works instead.
	systemd-networkd-wait-online.service
)
for unit in "${units[@]}"; do
	# Some releases lack some of these units. verify.sh checks the important ones.
	systemctl disable "$unit" 2>/dev/null || true
	systemctl mask "$unit"
done

# snapd mounts and seeds its snaps at the first boot, which takes time. The Session Manager agent is a snap.
if [ "$KEEP_SSM" != true ]; then
	systemctl disable snap.amazon-ssm-agent.amazon-ssm-agent.service
	for unit in snapd.service snapd.socket snapd.seeded.service snapd.apparmor.service; do
		systemctl disable "$unit" 2>/dev/null || true
		systemctl mask "$unit"
	done
fi

# Docker starts when a job uses it for the first time.
systemctl disable docker.service containerd.service
systemctl enable docker.socket

install --mode 0644 -D /tmp/99-drover.cfg /etc/cloud/cloud.cfg.d/99-drover.cfg
install --mode 0644 -D /tmp/journald.conf /etc/systemd/journald.conf.d/drover.conf
install --mode 0644 -D /tmp/system.conf /etc/systemd/system.conf.d/drover.conf
install --mode 0644 -D /tmp/poweroff.conf /etc/systemd/system/poweroff.target.d/drover.conf
