//! Boot reports: which are recorded, and which missing ones end a machine.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{after, ago, config, later, listed, noon, pool, slot, slots, turn, view};
use domain::config::Pool;
use domain::ids::{ImageId, InstanceId, SlotId};
use domain::policy::PoolView;
use domain::policy::boot::{ObservedReport, awaited, is_expected, note_missed, reporting};
use domain::policy::observe::{Observation, record_observations};
use domain::policy::sweep::{Census, Plan, Reap, plan};
use domain::state::{BootReport, MissedReport, ReportingImage, Slot, StopReason, UnusableReport};
use domain::wire::ObservedInstance;
use serde_json::json;

/// No report.
const NONE: ObservedReport = ObservedReport::Missing;

fn id(index: u8) -> SlotId {
    SlotId { version: 4, index }
}

fn instance(index: u8) -> InstanceId {
    InstanceId::from(format!("i-{index}").as_str())
}

fn image() -> ImageId {
    ImageId::from("ami-1")
}

/// A warm machine that was launched `seconds` before noon.
fn warm(index: u8, seconds: i64) -> Slot {
    let more = json!({ "instance": instance(index), "registration": 0, "wanted": false });
    Slot { id: id(index), ..slot("launched", seconds, more) }
}

/// The same after a sweep recorded its report.
fn reported(index: u8, seconds: i64) -> Slot {
    let report = BootReport { reported_at: ago(seconds - 30), uptime_seconds: 9, prepared_at: None };
    let observed = [Observation::Booted(id(index), report)];
    let read = view([warm(index, seconds).into()]);
    let writes = record_observations(&pool(), &read, &observed, &turn()).expect("it is recorded");
    assert!(writes.event.is_none());
    slots(&writes).remove(0)
}

fn machines(count: u8) -> Vec<ObservedInstance> {
    let of_image = |index| ObservedInstance { id: instance(index), image: Some(image()), ..listed() };
    (0..count).map(of_image).collect()
}

fn swept(
    pools: &[(Pool, PoolView)],
    reports: &BTreeMap<InstanceId, ObservedReport>,
    known: &BTreeMap<ImageId, ReportingImage>,
) -> Plan {
    plan(&Census {
        machines: Some(&machines(9)),
        runners: &BTreeMap::new(),
        pools,
        recorded: &BTreeMap::new(),
        unreadable: &BTreeSet::new(),
        suspects: &BTreeMap::new(),
        reports,
        reporting: known,
        format: config([]).format,
        now: noon(),
    })
}

fn stopped(plan: &Plan) -> Vec<SlotId> {
    let stop = |reap: &Reap| match reap {
        Reap::Stop(_, slot, StopReason::BootFailure) => Some(*slot),
        _ => None,
    };
    plan.reaps.iter().filter_map(stop).collect()
}

#[test]
fn one_report_ends_one_machine_that_has_sent_none() {
    let pools = [(pool(), view([warm(0, 900).into(), warm(1, 900).into(), reported(2, 900).into()]))];
    let missing = BTreeMap::from([(instance(0), NONE), (instance(1), NONE)]);
    let first = swept(&pools, &missing, &BTreeMap::new());
    assert_eq!(stopped(&first), [id(0)], "one at a time");
    let missed = Some(MissedReport { instance: instance(0), at: noon() });
    assert_eq!(first.reporting, BTreeMap::from([(image(), ReportingImage { reported_at: noon(), missed })]));
    assert_eq!(stopped(&swept(&pools, &missing, &first.reporting)), [id(0)], "its stop was not written");
    let rest = [(pool(), view([warm(1, 900).into(), reported(2, 900).into()]))];
    assert_eq!(stopped(&swept(&rest, &missing, &first.reporting)), [], "no machine has reported since");
    let newer =
        Slot { boot: reported(3, 60).boot.map(|it| domain::state::Boot { seen_at: later(60), ..it }), ..warm(3, 60) };
    let replaced = [(pool(), view([warm(1, 900).into(), newer.into()]))];
    assert_eq!(stopped(&swept(&replaced, &missing, &first.reporting)), [id(1)]);
}

#[test]
fn a_machine_is_not_ended_because_of_a_report_that_is_not_expected_or_not_known_to_be_missing() {
    let known = BTreeMap::from([(image(), ReportingImage { reported_at: ago(9000), missed: None })]);
    let old = [(pool(), view([warm(0, 900).into()]))];
    let with = |report: ObservedReport| stopped(&swept(&old, &BTreeMap::from([(instance(0), report)]), &known)).len();
    assert_eq!(with(NONE), 1);
    assert_eq!(with(ObservedReport::Unusable(UnusableReport::Implausible)), 0, "something on the machine runs");
    assert_eq!(stopped(&swept(&old, &BTreeMap::new(), &known)), [], "the reports could not be read");
    let missing = BTreeMap::from([(instance(0), NONE)]);
    assert_eq!(stopped(&swept(&old, &missing, &BTreeMap::new())), [], "no machine of its image has reported");
    let other = BTreeMap::from([(ImageId::from("ami-2"), known[&image()].clone())]);
    assert_eq!(stopped(&swept(&old, &missing, &other)), [], "another image");
    let young = [(pool(), view([warm(0, 479).into()]))];
    assert_eq!(stopped(&swept(&young, &missing, &known)), [], "it may still boot");
    let has_runner = [(pool(), view([slot("configured", 30, json!({ "instance": "i-0" })).into()]))];
    assert_eq!(stopped(&swept(&has_runner, &missing, &known)), [], "GitHub shows whether its runner is up");
}

#[test]
fn a_report_is_recorded_once_and_only_before_its_machine_has_a_runner() {
    let report = BootReport { reported_at: ago(20), uptime_seconds: 9, prepared_at: None };
    let read = BTreeMap::from([(instance(0), ObservedReport::Read(report))]);
    let pools = [(pool(), view([warm(0, 60).into()]))];
    let planned = swept(&pools, &read, &BTreeMap::new());
    assert_eq!(planned.observations[&pool().name], [Observation::Booted(id(0), report)]);
    assert_eq!(planned.reporting, BTreeMap::new(), "the next sweep counts it, once it is recorded");

    let records = |slot: Slot| {
        let seen = [Observation::Booted(id(0), report)];
        record_observations(&pool(), &view([slot.into()]), &seen, &turn()).map(|writes| slots(&writes).remove(0))
    };
    let recorded = records(warm(0, 60)).expect("it is recorded");
    assert_eq!(recorded.boot.map(|boot| (boot.report, boot.seen_at)), Some((report, noon())));
    assert_eq!(awaited(&pool(), &recorded, noon()), None);
    for later in ["configured", "online", "busy", "done"] {
        // A job may have written the report.
        assert_eq!(records(slot(later, 20, json!({}))), None, "{later}");
    }
    assert_eq!(records(recorded.clone()), None, "it was recorded before");
    let keeping = Pool { stopped: 1, ..pool() };
    let awaits = |pool: &Pool, slot: &Slot| awaited(pool, slot, noon()).is_some();
    let prepared = BootReport { prepared_at: Some(ago(5)), ..report };
    let again = |report| {
        record_observations(&keeping, &view([recorded.clone().into()]), &[Observation::Booted(id(0), report)], &turn())
    };
    assert!(awaits(&keeping, &recorded), "it may be stopped once it is prepared");
    assert!(!awaits(&keeping, &Slot { wanted: true, ..recorded.clone() }), "a job needs it");
    assert_eq!(again(report), None, "nothing new");
    let writes = again(prepared).expect("it has prepared itself");
    assert!(!awaits(&keeping, &slots(&writes)[0]));
    assert_eq!(records(Slot { gone_at: Some(ago(1)), ..warm(0, 60) }), None, "its machine has ended");
}

#[test]
fn what_a_runner_or_another_image_reports_is_no_evidence_and_twenty_images_are_remembered() {
    let evidence = |slots: Vec<Slot>, machines: &[ObservedInstance]| {
        let pools = [(pool(), view(slots.into_iter().map(Into::into)))];
        reporting(&BTreeMap::new(), machines, &pools)
    };
    assert_eq!(
        evidence(vec![warm(0, 60), slot("busy", 60, json!({ "instance": "i-1" }))], &machines(2)),
        BTreeMap::new()
    );
    assert_eq!(evidence(vec![reported(0, 60)], &machines(1)).keys().collect::<Vec<_>>(), [&image()]);
    assert_eq!(evidence(vec![reported(0, 60)], &[]), BTreeMap::new(), "EC2 does not list it");

    let many: BTreeMap<ImageId, ReportingImage> = (0..30)
        .map(|index| {
            (ImageId::from(format!("ami-{index:02}")), ReportingImage { reported_at: ago(index), missed: None })
        })
        .collect();
    let kept = reporting(&many, &[], &[]);
    assert_eq!(kept.len(), 20);
    assert!(kept.values().all(|known| known.reported_at > ago(20)), "the newest");
}

#[test]
fn a_missing_report_counts_again_after_the_next_report() {
    let known = |reported: i64, missed: Option<i64>| ReportingImage {
        reported_at: ago(reported),
        missed: missed.map(|at| MissedReport { instance: instance(1), at: ago(at) }),
    };
    assert!(!is_expected(None, &instance(0)));
    assert!(is_expected(Some(&known(10, None)), &instance(0)));
    assert!(!is_expected(Some(&known(10, Some(10))), &instance(0)));
    assert!(is_expected(Some(&known(9, Some(10))), &instance(0)));
    assert!(is_expected(Some(&known(90, Some(10))), &instance(1)), "the same machine");
    let noted = |missed: Option<i64>, index: u8| {
        let mut known = known(90, missed);
        note_missed(&mut known, &instance(index), noon());
        known.missed.map(|missed| (missed.instance, missed.at))
    };
    assert_eq!(noted(None, 0), Some((instance(0), noon())));
    assert_eq!(noted(Some(10), 1), Some((instance(1), ago(10))), "the first time counts");
    assert_eq!(noted(Some(10), 0), Some((instance(0), noon())));
}

#[test]
fn a_machine_without_a_report_counts_as_a_boot_failure_of_its_pool() {
    use domain::policy::reap::{StopSlot, stop_slot};
    let read = view([warm(0, 900).into()]);
    let StopSlot::Claim(writes) = stop_slot(&pool(), &read, id(0), StopReason::BootFailure, &turn()) else {
        panic!("it applies");
    };
    let meta = after(&read, &writes).meta;
    assert_eq!(meta.boot_failures, 1);
    assert_eq!(meta.failures[0].reason, "its agent did not report within boot_grace that the machine has booted");
}
