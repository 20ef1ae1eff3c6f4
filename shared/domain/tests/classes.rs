//! What the classes of a pool with shapes share, and what concerns one of them only.

mod common;
#[path = "common/shapes.rs"]
mod shapes;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{after, ago, job, later, noon, slot, turn};
use domain::config::{Label, LaunchOption, Machines, Market, MarketChoice, MicroUsd, Pool, Rates, Tuple};
use domain::ids::{InstanceType, JobId};
use domain::policy::PoolView;
use domain::policy::class::{for_class, part};
use domain::policy::decide::decide;
use domain::policy::launch::{Refused, RefusedFor, refused};
use domain::policy::market::{catalogue, is_catalogue_due};
use domain::policy::notify::{Reader, reasons};
use domain::policy::share::{self, suspected};
use domain::policy::tuple::{Budget, free_options};
use domain::state::{
    Batch, Circuit, CircuitCause, ClassState, Cooldown, Failure, Item, Lease, Meta, Slot, SlotState, StopReason,
    WaitingJob,
};
use serde_json::json;

fn label(terms: &str) -> Label {
    format!("linux/{terms}").parse().expect("a label")
}

/// A pool in two subnets whose smallest shape fits these types and four others.
fn pool(market: MarketChoice) -> Pool {
    let pool = shapes::pool();
    let mut catalogue = shapes::catalogue();
    let small = catalogue.types[&InstanceType::from("m7i.large")].clone();
    for name in ["m7a.large", "c7i.xlarge", "c7a.xlarge", "r7i.large"] {
        catalogue.types.insert(name.into(), small.clone());
    }
    Pool { market, max: 20, machines: Some(Arc::new(Machines { catalogue, spot: None })), ..pool }
}

fn job_of(id: u64, class: &Label) -> WaitingJob {
    WaitingJob { id: JobId(id), class: Some(class.clone()), ..job(60) }
}

fn read(meta: Meta, items: impl IntoIterator<Item = Item>) -> PoolView {
    PoolView::new(meta, items)
}

fn options(pool: &Pool, class: &Label, meta: &Meta) -> Vec<LaunchOption> {
    free_options(&for_class(pool, Some(class), meta), meta, Budget::of(pool, MicroUsd(0)), noon()).collect()
}

/// A job of the class waits, and a launch of a machine for it, as the class's first option, is due.
fn planned(pool: &Pool, class: &Label) -> PoolView {
    let tuple = options(pool, class, &common::meta()).remove(0).tuple;
    let planned = json!({ "state": "planned", "class": class, "launched_at": null, "registration": 0 });
    let batch = Batch {
        pool: pool.name.clone(),
        version: 4,
        epoch: "e1".parse().expect("an epoch"),
        class: Some(class.clone()),
        attempt: 1,
        count: 1,
        tuple: Some(tuple),
        lease: Lease::due(noon()),
        missing_since: None,
        unanswered: 0,
        answered: 0,
        answers: Vec::new(),
        planned_at: noon(),
        revision: 1,
    };
    read(common::meta(), [job_of(5, class).into(), slot("planned", 0, planned).into(), batch.into()])
}

/// EC2 refuses the launch's present attempt.
fn no(pool: &Pool, view: &PoolView, about: RefusedFor, code: &str) -> (Tuple, PoolView) {
    let batch = &view.batches[&4];
    let tuple = batch.tuple.clone().expect("an attempt");
    let why = Refused { about, code: code.to_owned(), message: "no".to_owned() };
    let next = after(view, &refused(pool, view, batch, &tuple, &why, &turn()));
    (tuple, next)
}

#[test]
fn after_several_refusals_with_one_code_the_other_market_is_tried_and_then_the_circuit_opens() {
    let (pool, class) = (pool(MarketChoice::SpotThenOnDemand), label("2cpu"));
    let mut view = planned(&pool, &class);
    let all = options(&pool, &class, &view.meta).len();
    assert!(all > 20, "{all} options");
    let mut tried = Vec::new();
    while view.batches.contains_key(&4) {
        let (tuple, next) = no(&pool, &view, RefusedFor::Tuple, "InvalidAMIID.NotFound");
        tried.push(tuple);
        view = next;
    }
    let on_demand = tried.iter().position(|tuple| tuple.market == Market::OnDemand).expect("it is tried");
    assert!(on_demand <= 6 && tried.len() <= 12, "{tried:#?}");
    let circuit = &view.meta.classes[&class].circuit;
    assert!(matches!(circuit, Circuit::Open { cause, .. } if cause.code() == "InvalidAMIID.NotFound"), "{circuit:?}");
    assert_eq!(view.meta.circuit, Circuit::Closed);
}

#[test]
fn several_refused_types_say_nothing_about_another_template_another_volume_or_later() {
    let pool = pool(MarketChoice::OnDemand);
    let meta = common::meta();
    let refused = |terms: &str, version: u64, until: i64| {
        let all = options(&pool, &label(terms), &meta);
        let mut types = BTreeMap::new();
        for option in &all {
            types.entry(option.tuple.instance_type.clone()).or_insert_with(Vec::new).push(option.tuple.clone());
        }
        let three = types.into_values().take(3).flatten();
        let cool = |tuple: Tuple| Cooldown {
            tuple: Tuple { template_version: version, ..tuple },
            until: later(until),
            seconds: 60,
            code: "InvalidAMIID.NotFound".to_owned(),
        };
        Meta { cooldowns: three.map(cool).collect(), ..meta.clone() }
    };
    let left = |terms: &str, meta: &Meta| options(&pool, &label(terms), meta).len();
    let all = left("2cpu", &meta);
    assert_eq!(left("2cpu", &refused("2cpu", 1, 60)), 0, "three types in two subnets");
    assert_eq!(left("2cpu", &refused("2cpu", 1, 0)), all, "the cool-downs are over");
    assert_eq!(left("2cpu", &refused("2cpu", 2, 60)), all, "of another version");
    assert_eq!(left("2cpu/100disk", &refused("2cpu", 1, 60)), 0, "the volume is not the reason");
    assert_eq!(left("2cpu/500disk", &refused("2cpu/500disk", 1, 60)), 0);
    assert_eq!(left("2cpu", &refused("2cpu/500disk", 1, 60)), all, "the volume may be the reason");
    assert_eq!(left("2cpu/100disk", &refused("2cpu/500disk", 1, 60)), all);
}

#[test]
fn types_that_ec2_has_no_capacity_for_say_nothing_about_others() {
    let (pool, class) = (pool(MarketChoice::SpotThenOnDemand), label("2cpu"));
    let mut view = planned(&pool, &class);
    let all = options(&pool, &class, &view.meta).len();
    for refusals in 1..=8 {
        view = no(&pool, &view, RefusedFor::Capacity, "InsufficientInstanceCapacity").1;
        assert_eq!(options(&pool, &class, &view.meta).len(), all - refusals);
    }
}

#[test]
fn a_volume_that_ec2_refuses_leaves_the_machine_to_other_classes() {
    let (pool, large) = (pool(MarketChoice::OnDemand), label("2cpu/500disk"));
    let before = planned(&pool, &large);
    for (about, code, lost) in
        [(RefusedFor::Tuple, "UnauthorizedOperation", 0), (RefusedFor::Capacity, "InsufficientInstanceCapacity", 1)]
    {
        let (_, view) = no(&pool, &before, about, code);
        for (class, lost) in [(&large, 1), (&label("2cpu/100disk"), lost), (&label("2cpu"), lost)] {
            let free = |view: &PoolView| options(&pool, class, &view.meta).len();
            assert_eq!(free(&view), free(&before) - lost, "{class} after {code}");
        }
    }
}

/// The state of a class whose circuit has been open for `since` seconds.
fn failing(since: i64) -> ClassState {
    let circuit = Circuit::Open {
        until: later(600),
        backoff_seconds: 300,
        since: ago(since),
        cause: CircuitCause::LaunchRefused("InvalidAMIID.NotFound".to_owned()),
        message: "no".to_owned(),
    };
    ClassState { circuit, boot_failures: 0, failures: Vec::new(), answers: Vec::new() }
}

#[test]
fn a_class_that_has_not_failed_may_try_a_machine_at_once_although_several_others_fail() {
    let (pool, class) = (pool(MarketChoice::OnDemand), label("4cpu"));
    let classes = [("1cpu", 300), ("2cpu", 200), ("8cpu", 100)];
    let classes: BTreeMap<Label, ClassState> = classes.map(|(it, since)| (label(it), failing(since))).into();
    let meta = Meta { classes, config_hash: pool.config_hash(), ..common::meta() };
    let jobs: Vec<Item> = (5..10).map(|id| job_of(id, &class).into()).collect();
    let view = read(meta.clone(), jobs);
    let circuit = suspected(&pool, &meta, &view, Some(&class), noon()).expect("the template is suspected");
    // EC2's times have whole seconds: a machine that is launched now must not look older than the circuit.
    assert!(
        matches!(circuit, Circuit::Open { until, since, .. } if until == noon() && since == ago(300)),
        "{circuit:?}"
    );
    let decision = decide(&pool, &view, &turn()).expect("a launch");
    assert_eq!(decision.batch.map(|batch| batch.count), Some(1), "one machine for five jobs");
}

#[test]
fn a_changed_pool_closes_the_circuits_of_machines_without_a_class_too() {
    let (pool, class) = (pool(MarketChoice::OnDemand), label("2cpu"));
    let classes = [(class.clone(), failing(300))].into();
    let open = failing(300).circuit;
    let meta = Meta { circuit: open, boot_failures: 3, classes, config_hash: "before".to_owned(), ..common::meta() };
    let decision = decide(&pool, &read(meta, [job_of(5, &class).into()]), &turn()).expect("a launch");
    assert_eq!((&decision.meta.circuit, decision.meta.boot_failures), (&Circuit::Closed, 0));
    assert_eq!(decision.meta.classes, BTreeMap::new());
    assert!(decision.batch.is_some());
}

#[test]
fn a_job_gets_a_warm_machine_of_an_older_launch_template() {
    let (mut pool, class) = (pool(MarketChoice::OnDemand), label("2cpu"));
    let tuple = options(&pool, &class, &common::meta()).remove(0).tuple;
    let warm = json!({ "wanted": false, "registration": 0, "warm_as": tuple });
    let shapes = pool.shapes.as_mut().expect("a pool with shapes");
    shapes.launch_templates.values_mut().for_each(|template| template.version += 1);
    let slot = |more| -> Slot { slot("launched", 300, more) };
    let view = read(common::meta(), [job_of(5, &class).into(), slot(warm).into()]);
    let decision = decide(&pool, &view, &turn()).expect("a machine is given");
    let given: Vec<_> = decision.slots.iter().map(|slot| (slot.class.as_ref(), slot.wanted)).collect();
    assert_eq!((given, decision.batch), (vec![(Some(&class), true)], None));
}

/// A warm machine that class `2cpu` may be given.
fn warm(pool: &Pool, version: u64, more: serde_json::Value) -> Slot {
    let tuple = options(pool, &label("2cpu"), &common::meta()).remove(0).tuple;
    let mut all = json!({
        "id": format!("{version}.0"), "instance": format!("i-{version}"), "wanted": false, "registration": 0,
        "warm_as": tuple, "launched_at": ago(600),
    });
    all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    slot("launched", 600, all)
}

#[test]
fn a_class_is_given_free_machines_first_those_that_are_up() {
    let (pool, class) = (pool(MarketChoice::OnDemand), label("2cpu"));
    let given = |slots: Vec<Slot>, jobs: usize| {
        let view = read(common::meta(), slots.into_iter().map(Item::from));
        let given = share::given(&for_class(&pool, Some(&class), &view.meta), &view, &class, jobs, noon(), later(90));
        assert!(
            given.iter().all(|it| it.wanted && it.warm_as.is_none() && it.class.as_ref() == Some(&class)),
            "{given:?}"
        );
        given.iter().map(|slot| slot.id.version).collect::<Vec<_>>()
    };
    let (up, coming) = (warm(&pool, 9, json!({})), warm(&pool, 4, json!({ "launched_at": ago(11) })));
    assert_eq!(given(vec![coming.clone(), up.clone()], 1), [9]);
    assert_eq!(given(vec![coming, up.clone()], 2), [9, 4]);
    for other in [
        Slot { wanted: true, ..up.clone() },
        Slot { class: Some(label("4cpu")), ..up.clone() },
        Slot { gone_at: Some(ago(5)), ..up.clone() },
        Slot { warm_as: None, ..up.clone() },
        Slot { held: true, ..up.clone() },
        Slot { state: SlotState::Planned, ..up },
    ] {
        assert_eq!(given(vec![other.clone()], 1), [0; 0], "{other:?}");
    }
}

#[test]
fn a_class_gets_the_room_of_machines_that_are_set_aside_or_that_no_job_of_another_class_needs() {
    let (pool, class) = (pool(MarketChoice::OnDemand), label("8cpu"));
    let ended = |items: Vec<Item>, machines: usize| {
        let view = read(common::meta(), items);
        share::room(&view, &class, machines, noon(), later(90)).iter().map(|slot| slot.id.version).collect::<Vec<_>>()
    };
    let free = || warm(&pool, 4, json!({}));
    let aside = |more: serde_json::Value| {
        let mut all =
            json!({ "id": "9.0", "instance": "i-9", "wanted": false, "registration": 0, "stopped_at": ago(60) });
        all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        Item::from(slot("stopped", 600, all))
    };
    assert_eq!(ended(vec![free().into(), aside(json!({}))], 2), [9, 4]);
    assert_eq!(ended(vec![free().into(), aside(json!({}))], 1), [9], "first what is set aside");
    assert_eq!(ended(vec![free().into(), aside(json!({ "held": true }))], 2), [4]);
    let ending = free().stopped(StopReason::Surplus, ago(9), ago(9));
    assert_eq!(ended(vec![ending.into(), aside(json!({}))], 1), [0; 0], "one is being ended");
    let of = |label: &Label| Slot { class: Some(label.clone()), ..free() };
    assert_eq!(ended(vec![of(&label("2cpu")).into()], 1), [4]);
    assert_eq!(ended(vec![of(&label("2cpu")).into(), job_of(5, &label("2cpu")).into()], 1), [0; 0], "a job needs it");
    assert_eq!(ended(vec![of(&class).into()], 1), [0; 0], "it is the class's own");
    for other in [
        Slot { held: true, ..free() },
        Slot { gone_at: Some(ago(5)), ..free() },
        slot("online", 60, json!({ "id": "4.0", "wanted": false })),
    ] {
        assert_eq!(ended(vec![other.clone().into()], 1), [0; 0], "{other:?}");
    }
}

/// Each job asks for a label of its own.
fn jobs_of_many_classes(count: u64) -> Vec<WaitingJob> {
    (1..=count).map(|id| job_of(id, &label(&format!("2cpu/{}gb", id + 3)))).collect()
}

#[test]
fn of_one_repository_the_oldest_fifty_classes_are_demand() {
    let behind = |jobs: Vec<WaitingJob>| {
        let behind = read(common::meta(), jobs.into_iter().map(Item::from)).behind(noon());
        behind.into_iter().map(|job| job.0).collect::<Vec<_>>()
    };
    let jobs = jobs_of_many_classes(53);
    let again = WaitingJob { id: JobId(54), ..jobs[0].clone() };
    let other = WaitingJob { id: JobId(55), repository: "octo/gadgets".parse().expect("a name"), ..jobs[52].clone() };
    assert_eq!(behind(jobs[..50].to_vec()), [0; 0]);
    assert_eq!(behind([&jobs[..], &[again, other]].concat()), [51, 52, 53], "neither of a known class nor of another");
    assert_eq!(behind(jobs[1..].to_vec()), [52, 53], "one follows");
}

#[test]
fn a_class_whose_jobs_are_all_behind_keeps_no_machine_and_is_not_decided() {
    let pool = Pool { paused: true, ..pool(MarketChoice::OnDemand) };
    let jobs = jobs_of_many_classes(51);
    let idle = |job: &WaitingJob| {
        let of_class = json!({ "instance": "i-4", "wanted": true, "registration": 0, "class": job.class });
        slot("launched", 600, of_class)
    };
    let stopped = |job: &WaitingJob| {
        let view = read(common::meta(), jobs.iter().cloned().map(Item::from).chain([idle(job).into()]));
        let decision = decide(&pool, &view, &turn()).expect("something changes");
        assert!(decision.meta.has_jobs_behind);
        decision.slots.iter().filter(|slot| slot.stop.is_some()).count()
    };
    assert_eq!((stopped(&jobs[49]), stopped(&jobs[50])), (0, 1));
}

#[test]
fn a_template_is_suspected_until_a_machine_of_it_works() {
    let (pool, class) = (pool(MarketChoice::OnDemand), label("4cpu"));
    let of = |labels: &[&str]| labels.iter().map(|it| (label(it), failing(300))).collect::<BTreeMap<_, _>>();
    let is_suspected = |labels: &[&str], slots: Vec<Slot>| {
        let meta = Meta { classes: of(labels), ..common::meta() };
        let view = read(meta.clone(), slots.into_iter().map(Item::from));
        suspected(&pool, &meta, &view, Some(&class), noon()).is_some()
    };
    let three = ["1cpu", "2cpu", "8cpu"];
    assert!(is_suspected(&three, vec![]) && !is_suspected(&three[1..], vec![]));
    assert!(!is_suspected(&["1cpu", "2cpu", "8cpu/arm64"], vec![]), "it has another template");
    assert!(!is_suspected(&["1cpu", "2cpu", "4cpu"], vec![]), "the class itself is one of them");
    let working = |state: &str, launched: i64, label: &str| {
        slot(state, launched, json!({ "class": self::label(label), "launched_at": ago(launched) }))
    };
    assert!(!is_suspected(&three, vec![working("online", 300, "1cpu")]), "a machine works that is not older");
    assert!(is_suspected(&three, vec![working("online", 301, "1cpu")]));
    assert!(is_suspected(&three, vec![working("launched", 60, "1cpu")]), "it has not come up yet");
    assert!(is_suspected(&three, vec![working("online", 60, "1cpu/arm64")]), "it has another template");
}

#[test]
fn only_a_pool_that_needs_prices_has_launch_options_of_its_own() {
    let plain = common::pool();
    assert_eq!(for_class(&plain, None, &common::meta()), plain);
    assert!(for_class(&pool(MarketChoice::OnDemand), None, &common::meta()).options.is_some());
}

#[test]
fn a_job_behind_one_that_the_cap_has_no_room_for_is_told_so() {
    let (large, small) = (label("8cpu/32gb"), label("2cpu"));
    let pool = Pool { price_per_hour: Some(MicroUsd(300_000)), ..pool(MarketChoice::OnDemand) };
    let older = WaitingJob { queued_at: ago(600), ..job_of(4, &large) };
    let view = read(common::meta(), [older.clone().into(), job_of(5, &small).into()]);
    let why = |job: &WaitingJob| reasons(&pool, &view, job, Reader::Author, noon());
    let behind = "an older job with the label linux/8cpu/32gb comes first, and the pool's cap leaves no room for it";
    assert_eq!(why(&job_of(5, &small))[0], behind);
    assert!(why(&older)[0].contains("0.30 USD per hour"), "{:?}", why(&older));
    assert!(part(&pool, &view, Some(&small)).1.is_short(noon()));
}

#[test]
fn what_is_remembered_of_many_failing_classes_fits_into_the_item() {
    let failure = |seconds: i64| Failure {
        at: noon(),
        instance: Some("i-0123456789abcdef0".into()),
        launched_at: ago(seconds),
        reason: "r".repeat(500),
        console: "c".repeat(2500),
    };
    let mut of_class = failing(60);
    (0..5).for_each(|seconds| failure(seconds).keep(&mut of_class.failures));
    let lengths: Vec<usize> = of_class.failures.iter().map(|failure| failure.console.len()).collect();
    assert_eq!(lengths, [0, 0, 2500], "the console of the last machine");
    let classes: BTreeMap<Label, ClassState> =
        (1..300).map(|cpus| (label(&format!("{cpus}cpu")), of_class.clone())).collect();
    let present = classes.keys().cloned().collect::<Vec<_>>();
    let mut meta = Meta { classes, ..common::meta() };
    meta.forget_classes(&present.iter().map(Some).collect(), noon());
    let bytes = serde_json::to_string(&meta).expect("it is written").len();
    assert!((100_000..300_000).contains(&bytes), "{bytes} bytes of 400 KB");
}

#[test]
fn a_subnet_that_ec2_does_not_know_is_asked_about_once_a_day() {
    let pool = pool(MarketChoice::OnDemand);
    let gone = Pool { subnets: vec!["subnet-a".into(), "subnet-gone".into()], ..pool.clone() };
    let known = shapes::catalogue();
    assert!(is_catalogue_due(std::slice::from_ref(&gone), Some(&known), noon()));
    let read = catalogue(
        std::slice::from_ref(&gone),
        Vec::new(),
        known.zones,
        &Rates::of("us-east-1".to_owned()),
        None,
        noon(),
    );
    assert!(!is_catalogue_due(std::slice::from_ref(&gone), Some(&read), later(60)));
    assert!(is_catalogue_due(&[gone], Some(&read), later(24 * 3600)));
}
