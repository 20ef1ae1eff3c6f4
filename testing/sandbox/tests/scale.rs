//! Ten thousand machines and as many runners: what one sweep asks for.

use std::time::Duration;

use anyhow::{Context, ensure};
use sandbox::calls::Counts;
use sandbox::sandbox::{Driven, Options, Sandbox};
use sandbox::short_timings::one_pool;
use tokio::time::Instant;
use world::ec2::{Market, RunInstances, Tags, TemplateRef};
use world::github::{DEFAULT_GROUP, JitRequest, Scope};

const MANY: usize = 10_000;

/// EC2 gives a thousand instances a page, and GitHub a hundred runners; the eleventh page is for the few held ones.
const LISTINGS: u64 = 11 + 100;

fn of(counts: &Counts, what: &str) -> u64 {
    counts.iter().filter(|((_, call), _)| call == what).map(|(_, times)| times).sum()
}

/// Some more that an operator holds.
const HELD: usize = 10;

/// Machines and registrations of one launch.
const A_LAUNCH: usize = 48;

/// Machines of the stack that no table knows, each with its launch's tag, and registrations of those launches: the largest
/// census there can be, all of it to be judged, and nothing in it to remove yet.
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
        for first in (0..MANY).step_by(A_LAUNCH) {
            launch(first / A_LAUNCH + 1, A_LAUNCH.min(MANY - first), false)?;
        }
        let installation = state.github.find_owner("octo-org").and_then(|owner| owner.installation);
        let installation = installation.context("the app is installed")?;
        for number in 0..MANY {
            let (version, index) = (number / A_LAUNCH + 1, number % A_LAUNCH);
            let name = format!("drover_sandbox_linux_zz9_{version}_{index}_1");
            let request = JitRequest { name, group: DEFAULT_GROUP, labels: vec!["drover".to_owned()] };
            state.github.generate_jit(installation, &Scope::organization("octo-org"), request, now)?;
        }
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_of_ten_thousand_asks_for_each_page_once() -> anyhow::Result<()> {
    let mut options = Options { driven: Driven::ByHand, ..Options::default() };
    options.ec2.throttle = false;
    // They stay as they are: nothing boots.
    options.ec2.pending = Duration::from_secs(3600);
    options.github.limits.enforced = false;
    let sandbox = Sandbox::start(options).await?;
    // Machines and registrations that nobody knows are spared for as long as this.
    sandbox.apply(&one_pool("orphan_grace = \"1h\"\nstale_grace = \"1h\"")).await?;
    populate(&sandbox)?;

    let before = sandbox.calls.counts();
    let began = Instant::now();
    let report = sandbox.sweep().await?;
    let took = began.elapsed();
    let after = sandbox.calls.counts();
    let made = |what: &str| of(&after, what) - of(&before, what);
    let (pages, lists) = (made("DescribeInstances"), made("GET /orgs/{org}/actions/runners"));
    println!("a sweep of {MANY} machines and {MANY} runners: {} calls to list them, {took:.2?}", pages + lists);
    ensure!(report["held"] == HELD && report["failed"] == 0, "{report}");
    ensure!(pages + lists == LISTINGS, "every page once: {pages} of machines, {lists} of runners");
    ensure!(sandbox.world.look(|state| state.ec2.ended().is_empty()), "nothing was to be removed");
    Ok(())
}
