//! Upgrades and rollbacks while jobs run.
//!
//! A function of an old version is today's engine behind an [`OldVersionStore`].

mod story;

use domain::config::{Day, MarketChoice, Pool, Schedule, TimeZoneName};
use domain::log::Transaction;
use domain::policy::format::unsupported_by;
use domain::state::{Config, FORMAT, Function, FunctionName, Item};
use engine::pools::PoolsError;
use engine::ports::Store;
use engine::sweep::{Mode, sweep};
use futures::executor::block_on;
use jiff::SignedDuration;
use simulator::old_version::{OldVersion, OldVersionStore};
use simulator::{Universe, pool, shapes_pool};
use story::everything_is_over;
use world::ec2;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// The versions that run at a time. While functions are deployed, warm environments of the old version still answer.
#[derive(Clone, Copy, Debug)]
enum Deployed {
    Old,
    Both,
    Present,
}

impl Deployed {
    fn is_old(self, turn: i64) -> bool {
        match self {
            Deployed::Old => true,
            Deployed::Both => turn % 2 == 0,
            Deployed::Present => false,
        }
    }
}

fn run(universe: &Universe, version: &OldVersion, deployed: Deployed, time: SignedDuration) {
    for _ in 0..time.as_secs() {
        universe.tick();
        let second = universe.now().as_second();
        if deployed.is_old(second) {
            universe.scale_in(async |context, messages| {
                let table = OldVersionStore::new(universe, context, version);
                universe.scaler(&table.context(context), messages).await
            });
        } else {
            universe.scale();
        }
        if second % 60 == 0 {
            universe
                .invoke(async |context| {
                    let table = OldVersionStore::new(universe, context, version);
                    let old = table.context(context);
                    sweep(if deployed.is_old(second / 60) { &old } else { context }, Mode::Repair).await
                })
                .expect("the table can be read");
        }
    }
}

fn set_format(universe: &Universe, format: u32) {
    let config = Config { format, ..universe.config() };
    block_on(universe.store.commit(&Transaction::new().put(config))).expect("nobody else writes");
}

/// Jobs of all kinds: some end soon, some run through every deployment.
fn queue_jobs(universe: &Universe) {
    for minutes in [1, 3, 15] {
        universe.queue_job(&["linux"], MINUTE * minutes);
    }
}

#[test]
fn a_stack_is_upgraded_and_rolled_back_with_jobs_running() {
    for seed in 0..8 {
        let version = OldVersion::of_format(1);
        let universe = Universe::new(700 + seed, vec![pool("linux", 100)]);
        let order =
            [Deployed::Old, Deployed::Both, Deployed::Present, Deployed::Both, Deployed::Old, Deployed::Present];
        for deployed in order {
            queue_jobs(&universe);
            run(&universe, version, deployed, MINUTE * 4);
        }
        everything_is_over(&universe);
        assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 3 * order.len() as u64, "seed {seed}");
    }
}

#[test]
fn a_stack_gets_a_pool_with_shapes_and_is_rolled_back_with_jobs_running() {
    for seed in 0..4 {
        let version = OldVersion::of_format(2);
        let universe = Universe::new(720 + seed, vec![pool("linux", 100)]);
        for deployed in [Deployed::Old, Deployed::Both, Deployed::Present] {
            queue_jobs(&universe);
            run(&universe, version, deployed, MINUTE * 4);
        }
        universe.change_pools(|pools| {
            let mut any = shapes_pool("any", 20);
            for template in any.shapes.iter_mut().flat_map(|shapes| shapes.launch_templates.values_mut()) {
                template.id.clone_from(&pools[0].launch_template.id);
            }
            pools.push(any);
        });
        assert_eq!(universe.config().format, 3);
        queue_jobs(&universe);
        let shapes = ["any/2cpu", "any/8cpu/arm64", "any/2cpu/on-demand/100disk"];
        let jobs = shapes.map(|label| universe.queue_job(&[label], MINUTE * 6));
        run(&universe, version, Deployed::Present, MINUTE * 4);
        // The pool file first, while its jobs run.
        universe.drain_only(Some("any"));
        run(&universe, version, Deployed::Present, MINUTE * 12);
        universe.change_pools(|pools| pools.retain(|pool| pool.name.as_str() != "any"));
        assert!(universe.config().format < 3);
        for deployed in [Deployed::Both, Deployed::Old] {
            queue_jobs(&universe);
            run(&universe, version, deployed, MINUTE * 4);
        }
        everything_is_over(&universe);
        for job in jobs {
            universe.github(|github, _| {
                assert!(github.job(world::github::JobId(job.0)).is_some_and(|job| job.served_once()))
            });
        }
        assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 3 * 6 + 3, "seed {seed}");
    }
}

#[test]
fn a_stack_gets_schedules_and_is_rolled_back_with_jobs_running() {
    for seed in 0..4 {
        let version = OldVersion::of_format(2);
        let universe = Universe::new(730 + seed, vec![pool("linux", 100)]);
        for deployed in [Deployed::Old, Deployed::Both, Deployed::Present] {
            queue_jobs(&universe);
            run(&universe, version, deployed, MINUTE * 4);
        }
        universe.change_pools(|pools| {
            let time_zone = TimeZoneName::known("Europe/Berlin").expect("a time zone");
            let time = |text: &str| text.parse().expect("a time of day");
            let (from, to) = (time("00:00"), time("24:00"));
            pools[0].schedules.push(Schedule { days: [Day::Mon].into(), from, to, time_zone, warm: 2, stopped: 0 });
        });
        assert_eq!(universe.config().format, 4);
        run(&universe, version, Deployed::Present, MINUTE * 3);
        assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 3 * 3 + 2, "two warm machines");
        queue_jobs(&universe);
        run(&universe, version, Deployed::Present, MINUTE * 4);
        // The pool file first, while jobs run.
        universe.change_pools(|pools| pools[0].schedules.clear());
        assert_eq!(universe.config().format, 1);
        for deployed in [Deployed::Both, Deployed::Old] {
            queue_jobs(&universe);
            run(&universe, version, deployed, MINUTE * 4);
        }
        everything_is_over(&universe);
    }
}

#[test]
fn a_stack_gets_stopped_machines_and_is_rolled_back_with_jobs_running() {
    for seed in 0..4 {
        let version = OldVersion::of_format(4);
        let on_demand = Pool { market: MarketChoice::OnDemand, ..pool("linux", 100) };
        let universe = Universe::new(740 + seed, vec![on_demand]);
        for deployed in [Deployed::Old, Deployed::Both, Deployed::Present] {
            queue_jobs(&universe);
            run(&universe, version, deployed, MINUTE * 4);
        }
        universe.change_pools(|pools| pools[0].stopped = 2);
        assert_eq!(universe.config().format, 5);
        run(&universe, version, Deployed::Present, MINUTE * 6);
        let stopped = || universe.ec2(|ec2, _| ec2.alive().filter(|it| it.state == ec2::State::Stopped).count());
        let starts = || universe.ec2(|ec2, _| ec2.instances().map(|machine| machine.starts).sum::<u32>());
        assert_eq!((stopped(), starts()), (2, 0));
        for _ in 0..3 {
            universe.queue_job(&["linux"], MINUTE * 15);
        }
        run(&universe, version, Deployed::Present, MINUTE * 8);
        assert_eq!((stopped(), starts()), (2, 2), "two jobs run on started machines, which are replaced");
        // The pool file first, while jobs run. It is applied again until the machines that were stopped have ended.
        universe.change_pools(|pools| pools[0].stopped = 0);
        assert_eq!(universe.config().format, 5, "jobs run on machines that were stopped");
        queue_jobs(&universe);
        let minutes = (1..60).find(|_| {
            run(&universe, version, Deployed::Present, MINUTE);
            universe.change_pools(|_| {});
            universe.config().format == 1
        });
        assert!(minutes.is_some_and(|minutes| minutes > 5), "the jobs need seven more minutes: {minutes:?}");
        assert_eq!(stopped(), 0);
        for deployed in [Deployed::Both, Deployed::Old] {
            queue_jobs(&universe);
            run(&universe, version, deployed, MINUTE * 4);
        }
        everything_is_over(&universe);
    }
}

#[test]
fn functions_write_nothing_while_the_format_of_the_table_is_newer_than_theirs() {
    let universe = Universe::new(710, vec![pool("linux", 100)]);
    queue_jobs(&universe);
    universe.run(SignedDuration::from_secs(20));
    set_format(&universe, FORMAT + 1);
    queue_jobs(&universe);
    let before = universe.store.items();
    for _ in 0..90 {
        universe.tick();
        universe.scale();
    }
    let swept = universe.invoke(async |context| sweep(context, Mode::Repair).await);
    assert!(matches!(swept, Err(PoolsError::TooNew(_))), "{swept:?}");
    assert_eq!(universe.store.items(), before);
    set_format(&universe, FORMAT);
    universe.run(MINUTE);
    everything_is_over(&universe);
    assert_eq!(universe.ec2(|ec2, _| ec2.launches()), 6, "the messages went back to the queue, and none was lost");
}

#[test]
fn both_functions_report_their_format_within_two_minutes_of_their_deployment() {
    let universe = Universe::new(711, vec![pool("linux", 100)]);
    let recorded = |universe: &Universe| -> Vec<Function> {
        let functions = universe.store.items().into_iter();
        functions.filter_map(|item| if let Item::Function(function) = item { Some(function) } else { None }).collect()
    };
    assert_eq!(unsupported_by(FORMAT, &recorded(&universe)), FunctionName::ALL);
    // No job is queued: the janitor wakes the scaler.
    universe.run(MINUTE * 2);
    assert_eq!(unsupported_by(FORMAT, &recorded(&universe)), []);
    let before = universe.store.items();
    universe.run(MINUTE * 2);
    let functions = |items: Vec<Item>| -> Vec<Item> {
        items.into_iter().filter(|item| matches!(item, Item::Function(_))).collect()
    };
    assert_eq!(functions(universe.store.items()), functions(before), "they are written once");
}
