//! Ten thousand machines and as many runners: what one sweep asks for.

use std::time::Duration;

use anyhow::{Context, ensure};
use sandbox::calls::Counts;
use sandbox::hurry::one_pool;
use sandbox::sandbox::{Driven, Options, Sandbox};
use tokio::time::Instant;
use world::ec2::{Market, RunInstances, Tags, TemplateRef};
use world::github::{DEFAULT_GROUP, JitRequest, Scope};

const MANY: usize = 10_000;

/// EC2 gives a thousand instances a page, and GitHub a hundred runners; the eleventh page is for the few held ones.
const LISTINGS: u64 = 11 + 100;

fn of(counts: &Counts, what: &str) -> u64 {
    counts.iter().filter(|((_, call), _)| call == what).map(|(_, times)| times).sum()
}

/// Some more that carry a launch's tag, so that they are judged, and an operator's hold.
const HELD: usize = 10;

/// Machines of the stack, and registrations of its runners: the largest census there can be, with nothing in it to remove.
fn populate(sandbox: &Sandbox) -> anyhow::Result<()> {
    sandbox.world.act(|state, now| {
        let own = [("drover:stack", "sandbox"), ("drover:pool", "linux")];
        let more = [("drover:batch", "linux.zz9.1.1"), ("drover:hold", "")];
        let tags = |pairs: &[(&str, &str)]| -> Tags {
            own.iter().chain(pairs).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        for number in 0..=MANY / 1000 {
            let (count, tags) = if number == 0 { (HELD, tags(&more)) } else { (1000, tags(&[])) };
            let count = u32::try_from(count)?;
            let request = RunInstances {
                template: TemplateRef::Name("drover-runner".to_owned()),
                template_version: None,
                min_count: count,
                max_count: count,
                subnet: "subnet-a".into(),
                instance_type: None,
                market: Market::OnDemand,
                client_token: Some(number.to_string()),
                tags,
                volume_tags: Tags::new(),
            };
            state.ec2.run_instances(request, now)?;
        }
        let installation = state.github.find_owner("octo-org").and_then(|owner| owner.installation);
        let installation = installation.context("the app is installed")?;
        for number in 0..MANY {
            let name = format!("drover_sandbox_linux_zz9_1_{number}_1");
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
    // Registrations that nobody knows are spared for as long as this.
    sandbox.apply(&one_pool("stale_grace = \"1h\"")).await?;
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
