//! Which pool a job belongs to, and which nearest miss is reported if it belongs to none.

mod common;
#[path = "common/shapes.rs"]
mod shapes;

use std::collections::BTreeSet;

use common::{ago, noon};
use domain::config::Pool;
use domain::policy::route::{Routable, Unrouted, meant, route, wrong_shape};
use domain::policy::unrouted::{self, Step, next_step};
use domain::state::UnroutedJob;
use domain::wire::{Action, Message, Notice};

fn pool(name: &str, owner: &str, labels: &[&str], change: impl FnOnce(Pool) -> Pool) -> Pool {
    change(Pool {
        name: name.parse().expect("a pool"),
        owner: owner.parse().expect("a scope"),
        labels: labels.iter().map(|label| label.parse().expect("a label")).collect(),
        ..common::pool()
    })
}

fn routed(pools: &[Pool], repository: &str, public: bool, labels: &[&str]) -> Result<String, Unrouted> {
    let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    let repository = repository.parse().expect("a repository");
    let found =
        route(pools, &Routable { repository: &repository, public, labels: &labels }).map(|pool| pool.name.to_string());
    for pool in pools.iter().filter(|pool| found.as_ref() == Ok(&pool.name.to_string())) {
        assert!(pool.serves(&repository), "the pool of a job serves the job's repository");
    }
    found
}

#[test]
fn a_job_goes_to_the_first_pool_that_has_all_its_labels() {
    let pools = [
        pool("small", "octo", &["linux", "x64"], |pool| pool),
        pool("big", "octo", &["linux", "x64", "big"], |pool| Pool { priority: 200, ..pool }),
        pool("tools", "mona/tools", &["linux"], |pool| Pool { allow_public: true, ..pool }),
        pool("only", "octo", &["gpu"], |pool| Pool { repositories: vec!["octo/ml".parse().expect("one")], ..pool }),
    ];
    for (repository, labels, expected) in [
        ("octo/widgets", &["linux"][..], "small"),
        ("Octo/Widgets", &["X64", "LINUX"], "small"),
        ("octo/widgets", &["linux", "big"], "big"),
        ("mona/tools", &["linux"], "tools"),
        ("octo/ML", &["gpu"], "only"),
    ] {
        assert_eq!(routed(&pools, repository, false, labels).as_deref(), Ok(expected), "{repository} {labels:?}");
    }
    assert_eq!(routed(&pools, "mona/tools", true, &["linux"]).as_deref(), Ok("tools"));
    let serves = |name: usize, repository: &str| pools[name].serves(&repository.parse().expect("a repository"));
    assert!(serves(0, "octo/anything") && !serves(0, "mona/tools"));
    assert!(serves(3, "octo/ml") && !serves(3, "octo/widgets"));
    assert!(serves(2, "mona/tools") && !serves(2, "mona/others"));
}

#[test]
fn priority_decides_and_then_the_name_in_any_order_of_the_file() {
    let named = |name: &str, priority: i32| pool(name, "octo", &["linux"], |pool| Pool { priority, ..pool });
    for pools in [[named("a", 100), named("b", 100)], [named("b", 100), named("a", 100)]] {
        assert_eq!(routed(&pools, "octo/widgets", false, &["linux"]).as_deref(), Ok("a"));
    }
    for pools in [[named("a", 101), named("b", 100)], [named("b", 100), named("a", 101)]] {
        assert_eq!(routed(&pools, "octo/widgets", false, &["linux"]).as_deref(), Ok("b"));
    }
}

#[test]
fn the_nearest_miss_is_reported() {
    let own =
        pool("own", "octo", &["linux"], |pool| Pool { repositories: vec!["octo/a".parse().expect("one")], ..pool });
    let other = pool("other", "mona", &["linux"], |pool| pool);
    let drained = Pool { draining: true, ..own.clone() };
    for (pools, repository, public, labels, expected) in [
        (&[][..], "octo/a", false, &["linux"][..], Unrouted::NoPools),
        (std::slice::from_ref(&own), "octo/a", false, &[], Unrouted::Group),
        (std::slice::from_ref(&own), "mona/a", false, &[], Unrouted::Unlabelled),
        (std::slice::from_ref(&own), "octo/a", false, &["linux", "a,b"], Unrouted::Unlabelled),
        (std::slice::from_ref(&other), "octo/a", false, &["linux"], Unrouted::Owner),
        (&[other.clone(), own.clone()], "octo/b", false, &["linux"], Unrouted::Repository),
        (&[other.clone(), own.clone()], "octo/a", false, &["gpu"], Unrouted::Labels),
        (&[other.clone(), own.clone()], "octo/a", true, &["linux"], Unrouted::Public),
        (std::slice::from_ref(&drained), "octo/a", false, &["linux"], Unrouted::Draining),
        // Draining is the nearest miss only if everything else fits.
        (std::slice::from_ref(&drained), "octo/a", false, &["gpu"], Unrouted::Labels),
        (std::slice::from_ref(&drained), "mona/a", false, &["linux"], Unrouted::Owner),
    ] {
        assert_eq!(routed(pools, repository, public, labels), Err(expected), "{repository} {public} {labels:?}");
    }
}

#[test]
fn the_author_is_told_of_the_pool_that_a_misspelt_label_means() {
    let plain = |pool| pool;
    let pools = [pool("linux", "acme", &["linux"], plain), pool("gpu", "acme", &["gpu"], plain)];
    let labels = ["linux", "gpu-large"].map(str::to_owned);
    let repository = "acme/app".parse().expect("a repository");
    let meant = meant(&pools, &Routable { repository: &repository, public: false, labels: &labels });
    assert_eq!(meant.map(|pool| pool.name.as_str()), Some("gpu"), "pool linux has the label linux");
}

#[test]
fn the_author_of_an_ignored_job_is_not_notified_before_another_runner_had_a_minute_to_take_it() {
    let config = common::config([common::pool()]);
    let step = |seconds: i64| {
        let mut notice = Notice { received_at: ago(seconds), ..common::notice(Action::Queued) };
        notice.job.labels = vec!["linux-large".to_owned()];
        next_step(&config, &UnroutedJob::new(notice, ago(seconds)), noon())
    };
    assert_eq!(step(59), Step::Wait);
    assert!(matches!(step(60), Step::Notify(_)), "{:?}", step(60));
}

fn queued(repository: &str, labels: &[&str]) -> Notice {
    let repository = repository.parse().expect("a repository");
    let mut notice = Notice { repository, ..common::notice(Action::Queued) };
    notice.job.labels = labels.iter().map(|label| (*label).to_owned()).collect();
    notice
}

#[test]
fn a_queued_job_that_no_pool_accepts_is_kept_if_a_pool_for_it_may_follow() {
    let config = common::config([common::pool()]);
    let kept = |notices: &[&Notice]| unrouted::kept(&config, notices, noon());
    let first = queued("octo/widgets", &["gpu"]);
    let ended = Notice { action: Action::Completed, ..first.clone() };
    assert_eq!(kept(&[&first]), Some(UnroutedJob::new(first.clone(), noon())));
    assert_eq!((kept(&[&first, &ended]), kept(&[])), (None, None), "it no longer waits");
    assert!(kept(&[&first, &Notice { action: Action::Waiting, ..first.clone() }]).is_some());
    for (notice, expected) in [
        (&first, true),
        (&queued("octo/widgets", &["ubuntu-latest", "gpu"]), true),
        (&queued("octo/widgets", &[]), true),
        (&queued("mona/widgets", &["gpu"]), false),
        (&queued("octo/widgets", &["Ubuntu-latest"]), false),
        (&queued("octo/widgets", &["windows-2025"]), false),
        (&queued("octo/widgets", &["macos-15"]), false),
    ] {
        let labels = &notice.job.labels;
        assert_eq!(unrouted::may_be_kept(&config, notice), expected, "{} {labels:?}", notice.repository);
    }
}

#[test]
fn the_pools_are_read_again_if_a_queued_job_belongs_to_none_of_them() {
    let config = common::config([common::pool()]);
    let has = |notice: &Notice| unrouted::has_unrouted(&config, &[Message::WorkflowJob(Box::new(notice.clone()))]);
    let unknown = queued("octo/widgets", &["gpu"]);
    assert!(has(&unknown) && has(&Notice { action: Action::Waiting, ..unknown.clone() }));
    assert!(!has(&queued("octo/widgets", &["linux"])));
    assert!(!has(&Notice { action: Action::Completed, ..unknown }));
    assert!(!unrouted::has_unrouted(&config, &[]));
}

#[test]
fn a_job_that_no_pool_accepted_is_routed_once_one_does_and_expires_after_a_day() {
    let config = common::config([common::pool()]);
    let step = |labels: &[&str], seconds: i64, notified: bool| {
        let notice = Notice { received_at: ago(seconds), ..queued("octo/widgets", labels) };
        let job = UnroutedJob { notified, ..UnroutedJob::new(notice, ago(seconds)) };
        next_step(&config, &job, noon())
    };
    let day = 24 * 3600;
    assert_eq!((step(&["linux"], 60, false), step(&["linux"], day, false)), (Step::Route, Step::Route));
    assert_eq!((step(&["linux-large"], day, true), step(&["linux-large"], day - 1, true)), (Step::Expired, Step::Wait));
    assert_eq!(step(&["gpu"], 600, false), Step::Wait, "it is meant for other runners");
}

#[test]
fn a_shape_is_the_only_label_and_one_that_the_pool_allows() {
    let any = Pool { name: "any".parse().expect("a pool"), labels: BTreeSet::new(), ..shapes::pool() };
    let other = Pool { name: "any-2".parse().expect("a pool"), ..any.clone() };
    let pools = [any, other];
    let repository = "octo/a".parse().expect("a repository");
    let routed = |labels: &[&str]| {
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let job = Routable { repository: &repository, public: false, labels: &labels };
        match route(&pools, &job) {
            Ok(pool) => format!("{} as {:?}", pool.name, pool.class_of(&labels).map(|class| class.to_string())),
            Err(Unrouted::Shape) => wrong_shape(&pools, &job).expect("a mistake").1.to_string(),
            Err(why) => why.as_str().to_owned(),
        }
    };
    assert_eq!(routed(&["ANY/8cpu/arm64"]), r#"any as Some("any/8cpu/arm64")"#);
    assert_eq!(routed(&["any-2/8cpu"]), r#"any-2 as Some("any-2/8cpu")"#);
    assert_eq!(routed(&["any/64cpu"]), "the pool allows 1..32 vCPUs, and the label asks for 64");
    assert_eq!(
        routed(&["any/8gpu"]),
        r#""8gpu" is no term; write 8cpu, 32gb, 200disk, x64, arm64, spot or on-demand, separated by slashes"#
    );
    assert_eq!(
        routed(&["any/8cpu", "self-hosted"]),
        r#""any/8cpu" must be the job's only label: with another one, other jobs could take its machine"#
    );
    assert_eq!(routed(&["any/20disk"]), "the pool allows a disk of 40..500 GiB, and the label asks for 20");
    assert_eq!(routed(&["anyone/8cpu"]), "PoolName");
}

#[test]
fn what_the_author_of_a_wrong_label_wrote_is_shown_as_it_is_and_only_where_the_pool_serves_the_repository() {
    let any = Pool { name: "any".parse().expect("a pool"), labels: BTreeSet::new(), ..shapes::pool() };
    let labels = vec!["any/[Update](https://evil.example)`".to_owned(), "x".to_owned()];
    let of = |public| {
        let mut notice = common::notice(Action::Queued);
        notice.job.labels.clone_from(&labels);
        let notice = Notice { public, received_at: ago(600), ..notice };
        let job = UnroutedJob::new(notice, ago(600));
        match next_step(&common::config([any.clone()]), &job, noon()) {
            Step::Notify(update) => update.summary,
            step => panic!("{step:?}"),
        }
    };
    let [before, block, after] =
        of(false).split("```").map(str::to_owned).collect::<Vec<_>>().try_into().expect("a block");
    assert!(block.contains("[Update](https://evil.example)") && !(before + &after).contains("evil"), "{block}");
    assert!(!of(true).contains("evil"), "the pool serves no public repositories");
}
