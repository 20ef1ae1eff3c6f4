//! The calls that one sweep makes for ten thousand machines and as many runners.

use std::time::Duration;

use anyhow::{Context, ensure};
use sandbox::calls::Counts;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, Options, Sandbox};
use sandbox::short_timings::one_pool;
use tokio::time::Instant;
use world::ec2::{Market, RunInstances, Tags, TemplateRef};
use world::github::{DEFAULT_GROUP, JitRequest, Scope};

const MANY: usize = 10_000;

/// Pages: EC2 returns a thousand instances per page, GitHub a hundred runners. The held machines are on EC2's eleventh page.
const PAGES: u64 = 11 + 100;

fn number_of(counts: &Counts, what: &str) -> u64 {
    counts.iter().filter(|((_, call), _)| call == what).map(|(_, times)| times).sum()
}

/// Further machines, which an operator holds.
const HELD: usize = 10;

/// Machines and registrations of one launch.
const PER_LAUNCH: usize = 48;

/// Creates machines with the tags of the stack and of their launch, and the registrations of these launches. The table has none
/// of them: the sweep judges each, and removes nothing yet.
fn populate(sandbox: &Sandbox) -> anyhow::Result<()> {
    sandbox.world.act(|state, now| {
        let mut launch = |version: usize, count: usize, held: bool| -> anyhow::Result<()> {
            let batch = format!("linux.zz9.{version}.1");
            let own = [("drover:stack", "sandbox"), ("drover:pool", "linux"), ("drover:batch", batch.as_str())];
            let hold = held.then_some(("drover:hold", ""));
            let request = RunInstances {
                template: TemplateRef::Name("drover-runner".to_owned()),
                template_version: None,
                min_count: 1,
                max_count: u32::try_from(count)?,
                subnet: "subnet-a".into(),
                instance_type: None,
                market: Market::OnDemand,
                client_token: Some(batch.clone()),
                tags: own.into_iter().chain(hold).map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
                volume_tags: Tags::new(),
            };
            state.ec2.run_instances(request, now)?;
            Ok(())
        };
        launch(0, HELD, true)?;
        for first in (0..MANY).step_by(PER_LAUNCH) {
            launch(first / PER_LAUNCH + 1, PER_LAUNCH.min(MANY - first), false)?;
        }
        let installation = state.github.find_owner("octo-org").and_then(|owner| owner.installation);
        let installation = installation.context("the app is installed")?;
        for number in 0..MANY {
            let (version, index) = (number / PER_LAUNCH + 1, number % PER_LAUNCH);
            let name = format!("drover_sandbox_linux_zz9_{version}_{index}_1");
            let request = JitRequest { name, group: DEFAULT_GROUP, labels: vec!["drover".to_owned()] };
            state.github.generate_jit(installation, &Scope::organization("octo-org"), request, now)?;
        }
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_of_ten_thousand_machines_reads_each_page_once() -> anyhow::Result<()> {
    let mut options = Options { driven: Driven::ByHand, ..Options::default() };
    options.ec2.throttle = false;
    // No machine boots.
    options.ec2.pending = Duration::from_secs(3600);
    options.github.limits.enforced = false;
    // One sweep reads everything, however slow this machine is.
    options.janitor_timeout = PATIENCE;
    let sandbox = Sandbox::start(options).await?;
    // Machines and registrations without a record are left alone for an hour.
    sandbox.apply(&one_pool("orphan_grace = \"1h\"\nstale_grace = \"1h\"")).await?;
    populate(&sandbox)?;

    let before = sandbox.calls.counts();
    let began = Instant::now();
    let report = sandbox.sweep().await?;
    let took = began.elapsed();
    let after = sandbox.calls.counts();
    let made = |what: &str| number_of(&after, what) - number_of(&before, what);
    let (pages, lists) = (made("DescribeInstances"), made("GET /orgs/{org}/actions/runners"));
    println!("a sweep of {MANY} machines and {MANY} runners: {} calls to list them, {took:.2?}", pages + lists);
    ensure!(report["held"] == HELD && report["failed"] == 0, "{report}");
    ensure!(pages + lists == PAGES, "every page once: {pages} of machines, {lists} of runners");
    ensure!(sandbox.world.look(|state| state.ec2.ended().is_empty()), "nothing was to be removed");
    Ok(())
}
