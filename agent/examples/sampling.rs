//! Measures what it costs to measure a job: `cargo build --workspace --example sampling`, then `target/debug/examples/sampling 3600`.

#[path = "../src/sample.rs"]
mod sample;
#[path = "../src/usage.rs"]
mod usage;

use std::time::Duration;

use procfs::process::Process;

use crate::sample::Sampler;
use crate::usage::{Meter, Sample};

fn main() -> anyhow::Result<()> {
    let count = std::env::args().nth(1).and_then(|it| it.parse().ok()).unwrap_or(3600);
    let own = Process::myself()?;
    let sampler = Sampler::new();
    let first = sampler.sample()?;
    let mut meter = Meter::start(sampler.capacity()?, first);
    let (before, resident) = (ticks(&own)?, own.status()?.vmhwm.unwrap_or_default());
    for number in 1..=count {
        // As if a second had passed.
        let at = first.at + Duration::from_secs(number);
        meter.add(Sample { at, ..sampler.sample()? });
    }
    let seconds = (ticks(&own)? - before) as f64 / procfs::ticks_per_second() as f64;
    let more = own.status()?.vmhwm.unwrap_or_default().saturating_sub(resident);
    let usage = meter.usage();
    let each = seconds * 1e6 / count as f64;
    println!(
        "{count} samples: {seconds:.2} s of CPU, {each:.0} µs each, {:.3} % of a core at one per second; {more} KiB more memory than \
         after the first one; a report of {} bytes",
        each / 1e4,
        usage.text().len()
    );
    Ok(())
}

/// The CPU time of this process.
fn ticks(own: &Process) -> anyhow::Result<u64> {
    let stat = own.stat()?;
    Ok(stat.utime + stat.stime)
}
