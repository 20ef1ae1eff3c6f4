//! Reads from the kernel what the machine uses.

use std::time::Duration;

use anyhow::Context;
use nix::sys::statvfs::statvfs;
use procfs::{Current, CurrentSI, KernelStats, Meminfo};
use tokio::time::Instant;

use crate::usage::{Capacity, Sample};

/// Jobs run on this volume.
const ROOT: &str = "/";

/// Reads samples of this machine.
pub(crate) struct Sampler {
    began: Instant,
    interfaces: Vec<String>,
}

impl Sampler {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), interfaces: physical_interfaces() }
    }

    /// # Errors
    /// If the kernel does not say it.
    pub(crate) fn capacity(&self) -> anyhow::Result<Capacity> {
        let vcpus = processors()?.cpu_time.len();
        let vcpus = vcpus.try_into().context("/proc/stat has too many processors")?;
        Ok(Capacity { vcpus, memory_mib: mib(memory()?.mem_total), disk_mib: mib(disk()?.size) })
    }

    /// # Errors
    /// If the kernel does not say it.
    pub(crate) fn sample(&self) -> anyhow::Result<Sample> {
        let all = processors()?.total;
        let ticks = [Some(all.user), Some(all.nice), Some(all.system), all.irq, all.softirq];
        // Waiting for a disk leaves a vCPU to other work, and stolen time is that of other machines. The time of guests is a part of
        // `user` and `nice`.
        let worked = ticks.into_iter().flatten().fold(0, u64::saturating_add);
        let memory = memory()?;
        // What programs could not get without swapping. Files that the kernel only caches are not in use.
        let available = memory.mem_available.context("/proc/meminfo has no MemAvailable")?;
        let (received, sent) = self.network()?;
        Ok(Sample {
            at: self.began.elapsed(),
            cpu: Duration::from_millis(worked.saturating_mul(1000) / procfs::ticks_per_second().max(1)),
            memory_mib: mib(memory.mem_total.saturating_sub(available)),
            disk_mib: mib(disk()?.used),
            received,
            sent,
        })
    }

    fn network(&self) -> anyhow::Result<(u64, u64)> {
        let status = procfs::net::dev_status().context("cannot read /proc/net/dev")?;
        let own = self.interfaces.iter().filter_map(|name| status.get(name));
        Ok(own.fold((0, 0), |(received, sent), it| {
            (it.recv_bytes.saturating_add(received), it.sent_bytes.saturating_add(sent))
        }))
    }
}

/// The network interfaces that are a device: what the machine exchanges with others. A packet of a container passes a veth, a bridge
/// and the device, and would count three times; what passes `lo` never leaves the machine. Read once, because containers come and go
/// and EC2 attaches no interface during a job.
fn physical_interfaces() -> Vec<String> {
    let Ok(interfaces) = std::fs::read_dir("/sys/class/net") else { return Vec::new() };
    let physical = interfaces.flatten().filter(|interface| interface.path().join("device").exists());
    physical.filter_map(|interface| interface.file_name().into_string().ok()).collect()
}

/// In bytes.
struct Disk {
    size: u64,
    used: u64,
}

fn disk() -> anyhow::Result<Disk> {
    let root = statvfs(ROOT).with_context(|| format!("cannot read the size of the file system of {ROOT}"))?;
    let bytes = |blocks: u64| blocks.saturating_mul(root.fragment_size());
    let (all, free) = (root.blocks(), root.blocks_free());
    Ok(Disk { size: bytes(all), used: bytes(all.saturating_sub(free)) })
}

fn processors() -> anyhow::Result<KernelStats> {
    KernelStats::current().context("cannot read /proc/stat")
}

fn memory() -> anyhow::Result<Meminfo> {
    Meminfo::current().context("cannot read /proc/meminfo")
}

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_capacity_and_uses_a_part_of_it() {
        let sampler = Sampler::new();
        let (has, first, next) = (sampler.capacity().unwrap(), sampler.sample().unwrap(), sampler.sample().unwrap());
        assert!(has.vcpus > 0 && has.memory_mib > 0 && has.disk_mib > 0, "{has:?}");
        assert!((1..=has.memory_mib).contains(&first.memory_mib) && first.disk_mib <= has.disk_mib, "{first:?}");
        assert!(next.at >= first.at && next.cpu >= first.cpu && first.cpu > Duration::ZERO, "{first:?} {next:?}");
    }

    #[test]
    fn the_loopback_interface_and_bridges_are_not_physical() {
        let physical = physical_interfaces();
        assert!(!physical.iter().any(|name| name == "lo" || name.starts_with("docker")), "{physical:?}");
    }
}
