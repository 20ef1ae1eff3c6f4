//! Registering runners, which jobs are re-run, and when a pool is reconciled again.

mod common;

use common::{after, ago, described, instance, later, meta, noon, notice, pool, slot, slots, turn, view};
use domain::config::{Market, MicroUsd, Pool};
use domain::ids::{JobId, RunnerId, RunnerName};
use domain::policy::decide::MAX_LAUNCH;
use domain::policy::nudge;
use domain::policy::nudge::Reader;
use domain::policy::register::{
    NewRunner, due_again, hand_over, labels, next_registration, registration_refused, runner_name,
};
use domain::policy::rerun::{self, Ended, RerunOutcome, RerunStep};
use domain::state::{Circuit, CircuitCause, Instance, LastReading, Meta, Nudge, Rerun, Slot, SlotState};
use domain::wire::{Action, JobNotice, RunJobs};
use serde_json::json;

fn name(registration: u32) -> RunnerName {
    let slot = slot("launched", 60, json!({ "registration": registration }));
    runner_name(&"ci".parse().expect("a stack"), &pool(), &"e1".parse().expect("an epoch"), &slot)
}

#[test]
fn each_registration_attempt_has_its_own_name() {
    assert_eq!(
        (name(1).to_string(), name(2).to_string()),
        (common::RUNNER.to_owned(), "drover_ci_linux_e1_4_0_2".to_owned())
    );
    assert_eq!(next_registration(slot("launched", 60, json!({}))).registration, 2);
}

#[test]
fn a_hand_over_writes_boot_item_slot_and_mapping_together() {
    let name = name(1);
    let runner = NewRunner { name: &name, id: RunnerId(7), jit_config: "secret".to_owned() };
    let launched = slot("launched", 60, json!({}));
    let writes = hand_over(&pool(), "AROA", &launched, instance(), runner, &turn()).expect("it has a machine");
    let configured = &slots(&writes)[0];
    let SlotState::Configured { machine, runner } = &configured.state else { panic!("{configured:?}") };
    assert_eq!((machine.instance.as_str(), runner.runner_id, runner.configured_at), ("i-1", RunnerId(7), noon()));
    assert_eq!((configured.lease.tries, configured.lease.next_at), (0, noon()));
    assert_eq!(common::instances(&writes)[0].runner_name.as_deref(), Some(common::RUNNER));
    let (key, boot) = writes.boot.clone().expect("a boot item");
    assert_eq!((key.as_str(), boot.jit_config.as_str(), boot.max_life_seconds), ("AROA:i-1", "secret", 12 * 3600));
    assert_eq!(boot.expires_at, later(3600).as_second());
    assert!(writes.event.is_some() && writes.puts.len() == 2);
}

/// A machine that comes up late still finds its item, because until the end of `boot_grace` its slot counts on the machine.
#[test]
fn a_boot_item_outlives_the_boot_grace_and_is_kept_for_an_hour_at_least() {
    for (grace, life) in [("0s", 3600), ("8m", 3600), ("30m", 3600), ("1h", 5400), ("3h", 3 * 3600 + 1800)] {
        let mut pool = pool();
        pool.timings.boot_grace = grace.parse().expect("a length of time");
        let name = name(1);
        let runner = NewRunner { name: &name, id: RunnerId(7), jit_config: "secret".to_owned() };
        let launched = slot("launched", 60, json!({}));
        let writes = hand_over(&pool, "AROA", &launched, instance(), runner, &turn()).expect("it has a machine");
        let (_, boot) = writes.boot.expect("a boot item");
        assert_eq!(boot.expires_at, later(life).as_second(), "boot_grace {grace}");
        assert!(boot.expires_at > (noon() + pool.timings.boot_grace.duration()).as_second());
    }
}

#[test]
fn a_hand_over_to_a_warm_machine_that_was_given_to_a_class_says_so_and_begins_a_new_lease() {
    let name = name(1);
    let runner = NewRunner { name: &name, id: RunnerId(7), jit_config: "secret".to_owned() };
    let given = slot("launched", 60, json!({ "class": "linux/8cpu", "tries": 3, "next_at": later(90) }));
    let writes = hand_over(&pool(), "AROA", &given, instance(), runner, &turn()).expect("it has a machine");
    let mapping = &common::instances(&writes)[0];
    assert_eq!((mapping.class.as_ref(), mapping.runner_id), (given.class.as_ref(), Some(RunnerId(7))));
    assert_eq!((slots(&writes)[0].lease.tries, slots(&writes)[0].lease.next_at), (0, noon()));
    let shown = |slot: &Slot| labels(&pool(), slot).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        (shown(&given), shown(&slot("launched", 60, json!({})))),
        (vec!["linux/8cpu".into()], vec!["linux".into()])
    );
}

#[test]
fn only_a_pool_that_measures_describes_the_machine_to_its_agent() {
    let name = name(1);
    let measured = |usage: bool, market: Option<Market>| {
        let runner = NewRunner { name: &name, id: RunnerId(7), jit_config: "secret".to_owned() };
        let instance = Instance { instance_type: Some("m7i.large".into()), market, ..instance() };
        let pool = Pool { usage, ..pool() };
        let launched = slot("launched", 60, json!({ "price_per_hour": 100_800 }));
        let writes = hand_over(&pool, "AROA", &launched, instance, runner, &turn()).expect("it has a machine");
        writes.boot.expect("a boot item").1.usage
    };
    let machine = measured(true, Some(Market::Spot)).expect("it is measured");
    assert_eq!((machine.instance_type.as_str(), machine.market), ("m7i.large", Market::Spot));
    assert_eq!(machine.price_per_hour, Some(MicroUsd(100_800)));
    assert_eq!((measured(false, Some(Market::Spot)), measured(true, None)), (None, None));
}

#[test]
fn a_registration_that_lost_its_race_is_due_again_unless_it_is_claimed_or_not_needed() {
    let at = |state: &str, more| slot(state, 60, more);
    let lost = at("launched", json!({ "tries": 1, "next_at": later(90) }));
    let again = |found: Slot| due_again(&lost, found, noon()).map(|slot| (slot.lease.tries, slot.lease.next_at));
    assert_eq!(again(lost.clone()), Some((1, noon())));
    assert_eq!(again(Slot { revision: 2, ..lost.clone() }), Some((1, noon())), "a sweep changed something else");
    assert_eq!(again(at("launched", json!({ "tries": 2, "next_at": later(95) }))), None, "another one has claimed it");
    let repeated = at("launched", json!({ "tries": 1, "next_at": later(90), "registration": 2 }));
    assert_eq!(again(repeated), None, "another one registers it with another name");
    assert_eq!(again(at("configured", json!({ "tries": 1, "next_at": later(90) }))), None, "it was handed over");
}

#[test]
fn a_planned_slot_is_handed_nothing() {
    let name = name(1);
    let runner = NewRunner { name: &name, id: RunnerId(7), jit_config: String::new() };
    assert_eq!(hand_over(&pool(), "AROA", &slot("planned", 60, json!({})), instance(), runner, &turn()), None);
}

#[test]
fn a_refused_registration_opens_the_circuit_once() {
    let opened = registration_refused(&pool(), &meta(), None, "no group".to_owned(), &turn()).expect("a write");
    let meta = after(&view([]), &opened).meta;
    let Circuit::Open { cause, until, message, .. } = &meta.circuit else { panic!("{meta:?}") };
    assert_eq!((cause, *until, message.as_str()), (&CircuitCause::RegistrationRefused, later(30), "no group"));
    assert_eq!(registration_refused(&pool(), &meta, None, "no group".to_owned(), &turn()), None);
}

/// Whether job 5, which ended ten seconds ago, is owed a re-run if its machine was interrupted and ended that long ago.
fn rerun_owed(pool: &Pool, interrupted: Option<i64>, gone: Option<i64>, attempt: u32, conclusion: &str) -> bool {
    let mut notice = notice(Action::Completed);
    (notice.job.run_attempt, notice.job.conclusion) = (attempt, Some(conclusion.to_owned()));
    notice.job.completed_at = Some(ago(10));
    let ended = Ended::of_notice(&notice).expect("it has ended");
    rerun::owed(pool, &ended, interrupted.map(ago), gone.map(ago), noon()).is_some()
}

#[test]
fn a_failed_first_attempt_is_re_run_if_its_machine_was_lost_and_the_pool_says_so() {
    let pool = Pool { rerun_on_interruption: true, ..pool() };
    assert!(rerun_owed(&pool, Some(60), None, 1, "failure"));
    assert!(!rerun_owed(&common::pool(), Some(60), None, 1, "failure"), "the pool does not ask for it");
    assert!(!rerun_owed(&pool, Some(60), None, 2, "failure"), "it is a re-run");
    assert!(!rerun_owed(&pool, Some(60), None, 1, "success"));
    assert!(!rerun_owed(&pool, None, None, 1, "failure"));
    assert!(rerun_owed(&pool, None, Some(40), 1, "failure"), "the machine ended 30 s before the job");
    assert!(!rerun_owed(&pool, None, Some(39), 1, "failure"), "the machine ended with the job");
    let only_others = Pool { repositories: vec!["octo/gadgets".parse().expect("a repository")], ..pool };
    assert!(!rerun_owed(&only_others, None, Some(40), 1, "failure"), "the machine ended itself because of the job");
    assert_eq!(Ended::of_notice(&notice(Action::InProgress)), None);
}

fn rerun(since: i64) -> Rerun {
    let value = json!({ "job": 5, "pool": "linux", "repository": "octo/widgets", "run_id": 2, "run_attempt": 1,
        "since": ago(since), "tries": 1, "next_at": noon(), "revision": 1 });
    serde_json::from_value(value).expect("a re-run")
}

#[test]
fn a_re_run_is_requested_once_the_run_has_ended() {
    let step = |jobs: &[(u64, &str)], attempt: u32| {
        let job = |(id, status): &(u64, &str)| JobNotice { id: JobId(*id), run_attempt: attempt, ..described(status) };
        let run = RunJobs { jobs: jobs.iter().map(job).collect(), ..RunJobs::default() };
        rerun::next_step(&rerun(60), &run, &Default::default(), noon())
    };
    assert_eq!(step(&[(5, "completed"), (6, "in_progress")], 1), RerunStep::Wait);
    assert_eq!(step(&[(5, "completed"), (6, "completed")], 1), RerunStep::Request(JobId(5)));
    assert_eq!(step(&[(7, "queued")], 2), RerunStep::Wait, "it is not recorded yet");
    assert_eq!(step(&[(7, "completed")], 2), RerunStep::UnderWay, "an older version recorded neither name nor runner");
}

#[test]
fn a_re_run_is_given_up_after_a_day() {
    let day = 24 * 3600;
    let waits = rerun::wait(&pool(), &rerun(day - 1), noon()).expect("it is tried again");
    assert!(waits.lease.next_at > noon() && waits.lease.next_at <= later(60), "{waits:?}");
    assert_eq!(rerun::wait(&pool(), &rerun(day), noon()), None);
    let closed = rerun::close(&pool(), rerun(day), &RerunOutcome::RunNeverEnded, &turn());
    assert_eq!((closed.deletes.len(), closed.event.is_some()), (1, true));
}

#[test]
fn a_nudge_is_sent_unless_one_is_under_way_or_the_janitor_runs_first() {
    let due = |nudge: Option<i64>, at| {
        let nudge = nudge.map(|late| Nudge { pool: pool().name, due_at: ago(late), revision: 3 });
        nudge::due(&pool().name, nudge.as_ref(), at, noon()).map(|nudge| (nudge.due_at, nudge.revision))
    };
    assert_eq!(due(None, later(55)), Some((later(55), 0)));
    assert_eq!(due(None, later(56)), None);
    assert_eq!(due(None, ago(9)), Some((noon(), 0)), "never in the past");
    assert_eq!(due(Some(4), later(1)), None, "one is under way");
    assert_eq!(due(Some(5), later(1)), Some((later(1), 3)), "it is lost, and replaced");
    assert_eq!(due(Some(-30), later(30)), None, "one is due by then");
    assert_eq!(due(Some(-30), later(29)), Some((later(29), 3)), "it would come too late");
}

#[test]
fn facts_are_read_by_the_invocation_that_answers_a_nudge_and_a_large_pool_only_after_a_pause() {
    let nudge = |late| Nudge { pool: pool().name, due_at: ago(late), revision: 3 };
    let decided =
        |items, ago_seconds| Meta { last_reading: Some(LastReading { at: ago(ago_seconds), items }), ..common::meta() };
    let reader = |meta: Meta, sent: Option<Nudge>| nudge::reader(&meta, sent.as_ref(), noon());
    assert_eq!(reader(common::meta(), None), Reader::This);
    assert_eq!(reader(common::meta(), Some(nudge(-1))), Reader::Another, "it is due soon");
    assert_eq!(reader(common::meta(), Some(nudge(-2))), Reader::This, "it is due too late for new facts");
    assert_eq!(
        reader(common::meta(), Some(nudge(0))),
        Reader::WhoeverDeletes(nudge(0)),
        "no need to wait for its message"
    );
    assert_eq!(reader(decided(4000, 1), None), Reader::Later(later(1)), "4,000 items: two seconds");
    assert_eq!(reader(decided(4000, 2), None), Reader::This);
    assert_eq!(reader(decided(5 * MAX_LAUNCH as u32 - 1, 0), None), Reader::This, "a small pool is read at once");
    assert!(matches!(reader(decided(5 * MAX_LAUNCH as u32, 0), None), Reader::Later(_)));
    assert_eq!(reader(decided(1_000_000, 9), None), Reader::Later(later(1)), "never longer than ten seconds");
    assert_eq!(
        reader(decided(1_000_000, 0), Some(nudge(0))),
        Reader::Later(later(10)),
        "another one has decided since"
    );
}
