//! Measures how long a simulation takes: `cargo run --release -p whatif --example speed -- 100000`.

use std::time::Instant;

use domain::config::Pool;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use simulator::pool;
use whatif::replay::{Assumptions, Scenario, replay};
use whatif::trace::{Header, Job, Measured, Source, Trace, VERSION};

/// The allocator that `drover` uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DAYS: i64 = 30;

#[expect(clippy::disallowed_methods, reason = "this program measures time")]
fn main() {
    let jobs = std::env::args().nth(1).and_then(|it| it.parse().ok()).unwrap_or(100_000);
    let trace = trace(jobs);
    for warm in [0, 10] {
        let pools = ["linux", "large", "arm"].map(|name| Pool { warm, ..pool(name, 500) });
        let scenario = Scenario {
            pools: pools.to_vec(),
            region: "us-east-1".to_owned(),
            types: Vec::new(),
            labels: Vec::new(),
            assumptions: Assumptions::default(),
        };
        let began = Instant::now();
        let outcome = replay(&trace, &scenario, &|_| {});
        let (waits, took) = (&outcome.waits, began.elapsed().as_secs_f64());
        println!(
            "{jobs} jobs, {warm} warm machines per pool: {took:.1} s; {} ran, queue time p50 {} s, p99 {} s",
            outcome.started, waits.p50, waits.p99
        );
    }
}

/// Jobs in groups of one to sixty, at any time of 30 days.
fn trace(jobs: usize) -> Trace {
    let mut rng = SmallRng::seed_from_u64(1);
    let from: Timestamp = "2026-11-01T00:00:00Z".parse().expect("a time");
    let mut times = Vec::new();
    while times.len() < jobs {
        let at = from + SignedDuration::from_secs(rng.random_range(0..DAYS * 86_400));
        let size = if rng.random_bool(0.1) { rng.random_range(10..60) } else { rng.random_range(1..6) };
        times.extend(std::iter::repeat_n((at, times.len() as u64), size.min(jobs - times.len())));
    }
    times.sort_unstable();
    let job = |(number, (queued_at, run)): (usize, &(Timestamp, u64))| {
        let started_at = *queued_at + SignedDuration::from_secs(10);
        let label = ["linux", "linux", "linux", "large", "arm"][rng.random_range(0..5)];
        Job {
            id: number as u64 + 1,
            run: *run,
            attempt: 1,
            repository: format!("octo-org/{}", rng.random_range(0..20)),
            workflow: None,
            name: None,
            labels: vec![label.to_owned()],
            queued_at: *queued_at,
            started_at: Some(started_at),
            ended_at: Some(started_at + SignedDuration::from_secs(rng.random_range(20..900))),
            conclusion: Some("success".to_owned()),
            after: None,
        }
    };
    let jobs = times.iter().enumerate().map(job).collect();
    let header = Header {
        drover_trace: VERSION,
        source: Source::Generated,
        from,
        until: from + SignedDuration::from_hours(24 * DAYS + 1),
        days: Vec::new(),
        region: None,
        anonymous: false,
        measured: Measured::default(),
    };
    Trace { header, jobs }
}
