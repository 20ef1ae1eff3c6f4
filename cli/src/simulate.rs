//! `drover simulate`: how long recorded jobs would have waited with other pools, and what that would have cost.

mod chart;
mod page;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use domain::config::{PRICES, Pool, Rates};
use domain::ids::InstanceType;
use domain::policy::route::Unrouted;
use jiff::SignedDuration;
use platform::ec2::known_types;
use serde_json::{Value, json};
use whatif::hosted;
use whatif::offline;
use whatif::replay::{Assumptions, Outcome, Scenario, replay};
use whatif::trace::{Header, Trace};

use self::page::Report;
use crate::new_file::NewFile;
use crate::output::{Failure, Output, age, cannot_read, count, one_line, table};
use crate::pool_file::{PoolEntry, PoolFile};

/// What is to be simulated.
#[derive(Debug, Clone)]
pub struct Request {
    /// Pool files.
    pub files: Vec<PathBuf>,
    pub jobs: Jobs,
    /// None: that of the trace, or us-east-1.
    pub region: Option<String>,
    /// Labels of jobs that count as another label: old and new.
    pub labels: Vec<(String, String)>,
    pub spot_share: f64,
    pub interruptions: f64,
    /// Where the page is written.
    pub html: Option<PathBuf>,
}

/// The recorded jobs.
#[derive(Debug, Clone)]
pub enum Jobs {
    /// A trace.
    File(PathBuf),
    Recorded(Trace),
}

/// The region whose prices apply if neither the trace nor the operator names one.
const REGION: &str = "us-east-1";

/// The simulation of one pool file.
#[derive(Debug)]
struct Simulated {
    name: String,
    pools: Vec<Pool>,
    outcome: Outcome,
}

/// Simulates each pool file. `progress` is called from time to time with the share of jobs that have ended.
///
/// # Errors
/// A file cannot be read, or the trace is broken.
pub fn simulate(request: &Request, progress: &(dyn Fn(f64) + Sync)) -> Result<Output, Failure> {
    let mut files = Vec::new();
    for path in &request.files {
        let file = PoolFile::read(path)?;
        if !file.errors.is_empty() {
            return Ok(file.report());
        }
        files.push((file.name().to_owned(), file.pools.iter().map(PoolEntry::unresolved).collect::<Vec<Pool>>()));
    }
    let trace = match &request.jobs {
        Jobs::File(path) => Cow::Owned(read(path)?),
        Jobs::Recorded(trace) => Cow::Borrowed(trace),
    };
    let region = request.region.clone().or_else(|| trace.header.region.clone()).unwrap_or_else(|| REGION.to_owned());
    let rates = Rates::of(region.clone());
    if known_types().iter().all(|it| rates.hour(&InstanceType::from(*it)).is_none()) {
        let regions = regions().into_iter().collect::<Vec<_>>().join(", ");
        return Err(Failure::Usage(format!(
            "no prices are known in {} -> --region with one of {regions}",
            one_line(&region)
        )));
    }
    let types = offline::types(known_types(), |it| rates.hour(it));
    let assumptions = Assumptions {
        spot_share: request.spot_share,
        interruptions_per_hour: request.interruptions,
        ..Assumptions::with(&trace.header.measured)
    };
    let scenarios: Vec<(String, Scenario)> = files
        .into_iter()
        .map(|(name, pools)| {
            let (region, types, labels) = (region.clone(), types.clone(), request.labels.clone());
            (name, Scenario { pools, region, types, labels, assumptions })
        })
        .collect();
    // Before the simulation, which may take minutes.
    let page = request.html.as_deref().map(NewFile::create).transpose()?;
    let outcomes = run_all(&trace, &scenarios, progress);
    let all: Vec<Simulated> = scenarios
        .into_iter()
        .zip(outcomes)
        .map(|((name, scenario), outcome)| Simulated { name, pools: scenario.pools, outcome })
        .collect();
    let (introduction, rows) = (introduction(&trace), rows(&all));
    let notes = notes(&all, &region, &request.labels);
    if let Some(page) = page {
        let files = all.iter().map(|it| (it.name.as_str(), &it.outcome)).collect();
        let report =
            Report { header: &trace.header, introduction: &introduction, rows: &rows, files, notes: &notes }.page();
        page.finish(|mut file| file.write_all(report.as_bytes()))?;
    }
    let names: Vec<&str> = [""].into_iter().chain(all.iter().map(|it| it.name.as_str())).collect();
    let text = format!("{introduction}\n{}\n{notes}", table(&names, rows));
    Ok(Output { ok: true, text, json: as_json(&trace, &all, &region) })
}

/// The regions with known prices.
fn regions() -> BTreeSet<String> {
    let prices: Value = serde_json::from_str(PRICES).unwrap_or_default();
    let families = prices["families"].as_object().into_iter().flat_map(|families| families.values());
    families.filter_map(Value::as_object).flat_map(|regions| regions.keys().cloned()).collect()
}

fn read(path: &Path) -> Result<Trace, Failure> {
    let file = File::open(path).map_err(|error| cannot_read(path, &error))?;
    Trace::read(file).map_err(|broken| {
        Failure::Usage(format!(
            "{}:{}: {} -> correct the line, or record the trace again",
            path.display(),
            broken.line,
            broken.problem
        ))
    })
}

/// Runs the scenarios, as many at a time as the machine has processors.
fn run_all(trace: &Trace, scenarios: &[(String, Scenario)], progress: &(dyn Fn(f64) + Sync)) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    // In thousandths of a run.
    let done: Vec<AtomicU64> = scenarios.iter().map(|_| AtomicU64::new(0)).collect();
    let note = |index: usize, share: f64| {
        done[index].store((share * 1000.0) as u64, Ordering::Relaxed);
        let sum: u64 = done.iter().map(|it| it.load(Ordering::Relaxed)).sum();
        progress(sum as f64 / 1000.0 / scenarios.len() as f64);
    };
    let work = || {
        let mut own = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((_, scenario)) = scenarios.get(index) else { return own };
            own.push((index, replay(trace, scenario, &|share| note(index, share))));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(scenarios.len());
    let mut outcomes: Vec<(usize, Outcome)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let finished = workers.into_iter().map(|it| it.join().expect("a simulation does not panic"));
        finished.flatten().collect()
    });
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Which jobs are simulated.
fn introduction(trace: &Trace) -> String {
    let header = &trace.header;
    let jobs = count(trace.jobs.len(), "job");
    let text = format!("{jobs} of {:.0} to {:.0}, source: {}\n", header.from, header.until, header.source);
    text + &sampled(header)
}

/// The table: each row with its title, and a cell for each file.
fn rows(all: &[Simulated]) -> Vec<Vec<String>> {
    let row = |title: &str, cell: &dyn Fn(&Outcome) -> String| -> Vec<String> {
        [title.to_owned()].into_iter().chain(all.iter().map(|it| cell(&it.outcome))).collect()
    };
    let mut rows = vec![
        row("jobs that ran", &|it| it.started.to_string()),
        row("queue time p50", &|it| wait(it.waits.p50)),
        row("queue time p90", &|it| wait(it.waits.p90)),
        row("queue time p99", &|it| wait(it.waits.p99)),
        row("machines", &|it| it.machines().to_string()),
        row("machine hours", &|it| format!("{:.1}", it.machine_hours())),
        row("  of that without a job", &|it| percent(it.idle_share())),
        row("cost, USD", &|it| dollars(it.usd())),
        row("  at list prices", &|it| dollars(it.list_usd())),
        row("volumes, USD", &|it| dollars(it.volume_usd())),
        row("GitHub-hosted, USD", &|it| dollars(it.hosted_usd())),
        row("GitHub's announced charge, USD", &|it| dollars(it.platform_charge_usd())),
        row("spot interruptions", &|it| it.interruptions().to_string()),
        row("no pool accepts", &refused),
    ];
    if all.iter().any(|it| it.outcome.never_started > 0) {
        rows.insert(1, row("cancelled before they ran", &|it| it.never_started.to_string()));
    }
    rows
}

/// Which days were read, if not all.
fn sampled(header: &Header) -> String {
    if header.days.is_empty() {
        return String::new();
    }
    let days: Vec<String> = header.days.iter().map(ToString::to_string).collect();
    format!(
        "Only these UTC days were read: {}. Machines count on these days, and until the end of a job.\n",
        days.join(", ")
    )
}

/// What the figures rest on.
fn notes(all: &[Simulated], region: &str, labels: &[(String, String)]) -> String {
    let Some(assumptions) = all.first().map(|it| it.outcome.assumptions) else { return String::new() };
    let Assumptions {
        launch_seconds,
        boot_seconds,
        start_seconds,
        registration_seconds,
        runner_seconds,
        spot_share,
        ..
    } = assumptions;
    let mut text = format!(
        "Assumed: a launch takes {launch_seconds} s and a boot {boot_seconds} s (a stopped machine {start_seconds} s), a \
         registration {registration_seconds} s, the runner {runner_seconds} s.\nList prices of {region}. A spot machine costs {} of \
         that, and EC2 reclaims {}. Volumes have {} GiB.\n",
        percent(spot_share),
        match assumptions.interruptions_per_hour {
            0.0 => "none".to_owned(),
            rate => format!("{} per hour", percent(rate)),
        },
        offline::VOLUME_GIB,
    );
    for (old, new) in labels {
        text += &format!("Jobs with the label {} count as having the label {}.\n", one_line(old), one_line(new));
    }
    let prices = &*hosted::PRICES;
    let hosted::PlatformCharge { per_minute, status, .. } = &prices.platform_charge;
    text += &format!(
        "GitHub-hosted: the smallest Linux runner with as many vCPUs, each job rounded up to the minute, prices of {}.\n\
         GitHub's announced charge: {per_minute} USD per minute of a job on a self-hosted runner, {status}; as of {}. It is not in the \
         cost.\n",
        prices.read, prices.read
    );
    let unpriced: BTreeSet<String> = all
        .iter()
        .flat_map(|it| offline::unpriced(&it.pools, &Rates::of(region.to_owned())))
        .map(|it| it.to_string())
        .collect();
    if !unpriced.is_empty() {
        let names: Vec<String> = unpriced.into_iter().collect();
        text += &format!("No price is known in {region} for {}: its machines cost nothing above.\n", names.join(", "));
    }
    if all.iter().any(|it| it.outcome.hosted_unpriced() > 0) {
        text += "Jobs on machines that GitHub has no runner for are not in its costs.\n";
    }
    if all.iter().flat_map(|it| &it.pools).any(|pool| pool.shapes.is_some()) {
        text += "Pools with shapes: vCPUs and memory of instance types are taken from their names.\n";
    }
    text
}

/// How many jobs no pool accepts, with the most frequent reason.
fn refused(outcome: &Outcome) -> String {
    match outcome.commonest_refusal() {
        None => "0".to_owned(),
        Some((why, _)) => format!("{} ({})", outcome.refused(), reason(why)),
    }
}

fn reason(why: Unrouted) -> &'static str {
    match why {
        Unrouted::NoPools => "there are no pools",
        Unrouted::Unlabelled => "no usable label",
        Unrouted::Owner => "another owner",
        Unrouted::Repository => "repository not listed",
        Unrouted::Labels => "no pool has the labels",
        Unrouted::Group => "a runner group only",
        Unrouted::PoolName => "a label like a pool's name",
        Unrouted::Shape => "a shape not allowed",
        Unrouted::Draining => "the pool drains",
        Unrouted::Public => "a public repository",
    }
}

fn wait(seconds: f64) -> String {
    if seconds < 60.0 { format!("{seconds:.1} s") } else { age(SignedDuration::from_secs_f64(seconds)) }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn dollars(usd: f64) -> String {
    format!("{usd:.2}")
}

fn as_json(trace: &Trace, all: &[Simulated], region: &str) -> Value {
    let header = &trace.header;
    let file = |it: &Simulated| {
        let outcome = &it.outcome;
        json!({
            "file": it.name,
            "started": outcome.started,
            "never_started": outcome.never_started,
            "refused": outcome.refused,
            "wait_seconds": outcome.waits,
            "machines": outcome.machines(),
            "machine_hours": outcome.machine_hours(),
            "idle_share": outcome.idle_share(),
            "usd": outcome.usd(),
            "list_usd": outcome.list_usd(),
            "volume_usd": outcome.volume_usd(),
            "hosted_usd": outcome.hosted_usd(),
            "hosted_minutes": outcome.hosted_minutes(),
            "hosted_unpriced": outcome.hosted_unpriced(),
            "platform_charge_usd": outcome.platform_charge_usd(),
            "interruptions": outcome.interruptions(),
            "unpriced": outcome.unpriced(),
            "step_seconds": outcome.step_seconds,
            "pools": outcome.pools,
        })
    };
    json!({
        "jobs": trace.jobs.len(),
        "from": header.from,
        "until": header.until,
        "days": header.days,
        "region": region,
        "assumptions": all.first().map(|it| it.outcome.assumptions),
        "hosted_prices": hosted::PRICES.read,
        "platform_charge": {
            "usd_per_minute": hosted::PRICES.platform_charge.per_minute,
            "status": hosted::PRICES.platform_charge.status,
            "read": hosted::PRICES.read,
        },
        "files": all.iter().map(file).collect::<Vec<_>>(),
    })
}
