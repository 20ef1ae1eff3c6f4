//! What a webhook changes: the job's facts, the waiting job, the slot and the instance of its runner.

mod common;

use common::{ago, config, facts, instance, job, noon, notice, pool, slot, slots};
use domain::config::Pool;
use domain::ids::JobId;
use domain::log::{LONGEST_NAME, Statement, Transaction, What};
use domain::policy::due::{Effect, next_effect};
use domain::policy::record::{Recorder, Recording, sort};
use domain::policy::route::Unrouted;
use domain::state::{
    ClosedRunner, Instance, Item, Job, Key, Meta, Nudge, Rank, Slot, SlotState, UnroutedJob, WaitingJob,
};
use domain::wire::{Action, Notice, RunnerNotice};
use serde_json::json;

fn record(notice: &Notice, stored: impl IntoIterator<Item = Item>) -> Result<Recording, Unrouted> {
    let (stack, config, notices) = ("ci".parse().expect("a stack"), config([pool()]), [notice]);
    let mut recorder = Recorder::new(&stack, &config, &notices);
    stored.into_iter().for_each(|item| recorder.add(item).expect("a kind that the recorder reads"));
    recorder.record(noon())
}

fn recorded(notice: &Notice, stored: impl IntoIterator<Item = Item>) -> Recording {
    record(notice, stored).expect("the job belongs to a pool")
}

fn waiting(recording: &Recording) -> Option<(bool, bool)> {
    let found =
        recording.writes.puts.iter().find_map(|item| if let Item::Waiting(it) = item { Some(it) } else { None });
    found.map(|waiting| (waiting.open, waiting.check_at == noon()))
}

#[test]
fn a_new_job_waits_and_its_pool_is_reconciled() {
    let new = recorded(&notice(Action::Queued), []);
    assert_eq!(
        (new.is_new, new.pools, waiting(&recorded(&notice(Action::Queued), []))),
        (true, vec![pool().name], Some((true, false)))
    );
    let gated = recorded(&notice(Action::Waiting), []);
    assert_eq!(waiting(&gated), Some((false, true)), "GitHub is asked before the gate opens");
}

#[test]
fn the_event_of_a_queued_job_names_its_workflow_and_the_job_shortened() {
    let named = |action| {
        let mut notice = notice(action);
        notice.job.workflow = Some("é".repeat(300));
        let event = recorded(&notice, []).writes.event.expect("it is an event");
        let What::Recorded { statements } = event.what else { panic!("{event:?}") };
        let [Statement { workflow, name, .. }] = &statements[..] else { panic!("{statements:?}") };
        (workflow.clone(), name.clone())
    };
    let expected = (Some("é".repeat(LONGEST_NAME)), Some("build".to_owned()));
    assert_eq!((named(Action::Queued), named(Action::Waiting)), (expected.clone(), expected));
    assert_eq!(named(Action::Completed), (None, None), "the event of its beginning has them");
}

#[test]
fn a_repeated_webhook_changes_nothing() {
    let again = recorded(&notice(Action::Queued), [facts(&[Action::Queued]).into(), job(120).into()]);
    assert!(again.writes.is_empty() && !again.is_new, "{again:?}");
}

#[test]
fn a_gate_closes_an_open_job_and_later_news_only_asks_github() {
    let stored =
        |actions: &[Action], open| [facts(actions).into(), domain::state::WaitingJob { open, ..job(120) }.into()];
    let closed = recorded(&notice(Action::Waiting), stored(&[Action::Queued], true));
    assert_eq!(waiting(&closed), Some((false, true)));
    let news = recorded(&notice(Action::Queued), stored(&[Action::Waiting], true));
    assert_eq!(waiting(&news), Some((true, true)), "an open job stays open");
    let mut old = notice(Action::Queued);
    old.received_at = job(120).checked_at;
    assert_eq!(waiting(&recorded(&old, stored(&[Action::Waiting], true))), None, "GitHub was asked since");
}

#[test]
fn a_started_job_no_longer_waits_and_its_slot_and_instance_have_it() {
    let stored = [
        facts(&[Action::Queued]).into(),
        job(120).into(),
        slot("online", 60, json!({ "busy_seen_at": noon(), "busy_since": ago(9), "tries": 3 })).into(),
        instance().into(),
    ];
    let started = recorded(&notice(Action::InProgress), stored);
    let written = slots(&started.writes);
    let [busy] = &written[..] else { panic!("one slot: {started:?}") };
    assert!(matches!(busy.state, SlotState::Busy { job: JobId(5), .. }));
    assert_eq!((busy.busy_seen_at, busy.busy_since), (None, None));
    assert_eq!((busy.lease.tries, busy.lease.next_at, busy.claims.len()), (0, noon(), 1));
    let [mapped] = &common::instances(&started.writes)[..] else { panic!("one instance: {started:?}") };
    assert_eq!((mapped.job, mapped.claimed_jobs()), (Some(JobId(5)), vec![JobId(5)]));
    assert_eq!(mapped.repository.as_ref().map(ToString::to_string).as_deref(), Some("octo/widgets"));
    assert_eq!(started.writes.deletes, [(Key::Waiting(pool().name, JobId(5)), 1)]);
    assert_eq!(started.taken_by.map(|slot| slot.id), Some(busy.id));
    assert_eq!(started.after.map(|job| job.rank), Some(Rank::Started));
}

#[test]
fn the_end_of_a_job_is_written_to_its_slot_and_not_to_the_instance() {
    let claims = || json!([{ "job": 5, "repository": "octo/app" }]);
    let mapped =
        Instance { claims: serde_json::from_value(claims()).expect("claims"), job: Some(JobId(5)), ..instance() };
    let busy = || slot("busy", 60, json!({ "claims": claims() }));
    let stored = [facts(&[Action::Queued, Action::InProgress]).into(), busy().into(), mapped.into()];
    let ended = recorded(&notice(Action::Completed), stored);
    let written = slots(&ended.writes);
    let [done] = &written[..] else { panic!("one slot: {ended:?}") };
    assert!(matches!(done.state, SlotState::Done { .. }) && done.claims.iter().all(|claim| claim.ended), "{done:?}");
    assert_eq!(common::instances(&ended.writes), []);
}

#[test]
fn the_instance_is_read_for_a_new_job_and_where_an_interruption_leads_to_a_re_run() {
    let read = |pool: Pool, slot: Slot, action: Action| {
        let (stack, config, notice) = ("ci".parse().expect("a stack"), config([pool]), notice(action));
        let notices = [&notice];
        let mut recorder = Recorder::new(&stack, &config, &notices);
        recorder.add(slot.into()).expect("a slot");
        recorder.instance_key(noon()).is_some()
    };
    let busy = || slot("busy", 60, json!({ "claims": [{ "job": 5, "repository": "octo/app" }] }));
    let reruns = || Pool { rerun_on_interruption: true, ..pool() };
    assert!(read(pool(), slot("online", 60, json!({})), Action::InProgress));
    assert!(read(pool(), slot("online", 60, json!({})), Action::Completed), "the report of its start is lost");
    assert!(!read(pool(), busy(), Action::Completed));
    assert!(read(reruns(), busy(), Action::Completed));
    assert!(!read(reruns(), busy(), Action::InProgress), "nothing is new");
}

#[test]
fn a_pool_is_read_only_after_reports_that_may_need_a_decision() {
    let settled = || Item::from(common::meta());
    let online = || slot("online", 60, json!({}));
    let pools = |notice: &Notice, stored: Vec<Item>| recorded(notice, stored).pools;
    let started = |meta: Item, waiting: Option<WaitingJob>, slot: Slot| {
        let mut stored = vec![facts(&[Action::Queued]).into(), slot.into(), instance().into(), meta];
        stored.extend(waiting.map(Item::from));
        pools(&notice(Action::InProgress), stored)
    };
    let read = vec![pool().name];
    assert_eq!(started(settled(), Some(job(120)), online()), [], "one job and one slot less");
    let not_demand = WaitingJob { run_over_at: Some(ago(1)), ..job(120) };
    assert_eq!(started(settled(), Some(not_demand), online()), read, "the supply shrinks, and the demand does not");
    assert_eq!(started(settled(), None, online()), read, "a runner took a job that was not known to wait");
    assert_eq!(started(settled(), Some(job(15 * 60)), online()), read, "it has a check run");
    let stop = json!({ "stop": { "why": "surplus", "at": noon() } });
    assert_eq!(started(settled(), Some(job(120)), slot("online", 60, stop)), read, "it was no supply");
    for unsettled in [Meta { has_jobs_behind: true, ..common::meta() }, Meta { boot_failures: 1, ..common::meta() }] {
        assert_eq!(started(unsettled.into(), Some(job(120)), online()), read);
    }

    let ended = |slot: Slot| {
        let stored = vec![facts(&[Action::InProgress]).into(), slot.into(), instance().into(), settled()];
        pools(&notice(Action::Completed), stored)
    };
    assert_eq!(ended(slot("busy", 60, json!({}))), [], "its machine ends later");
    assert_eq!(ended(online()), read, "its beginning was not reported: the supply shrinks");
    assert_eq!(ended(slot("busy", 60, json!({ "gone_at": ago(1) }))), read, "its machine has ended");
    assert_eq!(pools(&notice(Action::Queued), vec![]), read);
    let other = recorded(&forged(Action::InProgress, 9), [online().into(), instance().into(), settled()]);
    assert_eq!(other.pools, read, "the job belongs to no pool");
}

#[test]
fn a_late_start_does_not_move_a_slot_back() {
    let stored = [facts(&[Action::Completed]).into(), slot("done", 9, json!({})).into()];
    let late = recorded(&notice(Action::InProgress), stored);
    assert_eq!(slots(&late.writes), []);
}

/// A report about a job of another repository, on a runner that poses as that of the slot.
fn forged(action: Action, job: u64) -> Notice {
    let mut forged = notice(action);
    forged.job.id = JobId(job);
    forged.job.labels = vec!["forged".to_owned()];
    forged.repository = "octo/other".parse().expect("a repository");
    forged
}

/// The slot after the report. It is unchanged if nothing is written.
fn slot_after(notice: &Notice, slot: Slot) -> Slot {
    let written = record(notice, [slot.clone().into(), instance().into()]).map(|recording| slots(&recording.writes));
    written.unwrap_or_default().pop().unwrap_or(slot)
}

#[test]
fn a_forged_claim_does_not_hide_the_end_of_the_real_job() {
    let online = || slot("online", 60, json!({}));
    // The forged job is reported first.
    let both = slot_after(&notice(Action::InProgress), slot_after(&forged(Action::InProgress, 9), online()));
    assert_eq!(both.claims.iter().map(|claim| claim.job.0).collect::<Vec<_>>(), [9, 5]);
    let ended = slot_after(&forged(Action::Completed, 9), both);
    assert!(matches!(ended.state, SlotState::Busy { .. }), "the real job still runs: {ended:?}");
    assert!(matches!(slot_after(&notice(Action::Completed), ended).state, SlotState::Done { .. }));
    // Only the forged job is reported: the real one is recorded when its report comes.
    let done = slot_after(&forged(Action::Completed, 9), online());
    assert!(matches!(done.state, SlotState::Done { .. }));
    let gone = |slot: Slot| Slot { gone_at: Some(ago(1)), unregistered_at: Some(ago(1)), ..slot };
    assert!(gone(done.clone()).is_over());
    let real = gone(slot_after(&notice(Action::InProgress), done));
    assert!(!real.is_over() && real.has_open_claim());
    assert_eq!(next_effect(&real), Some(Effect::CheckLostJob(real.id)));
    assert!(slot_after(&notice(Action::Completed), real).is_over());
}

#[test]
fn a_job_that_failed_on_a_reclaimed_machine_is_owed_a_re_run_even_if_another_job_is_claimed() {
    let pool = Pool { rerun_on_interruption: true, ..pool() };
    let stack = "ci".parse().expect("a stack");
    let mut failed = notice(Action::Completed);
    failed.job.conclusion = Some("failure".to_owned());
    let owed = |slot: Slot, mapped: Instance| {
        let (config, notices) = (config([pool.clone()]), [&failed]);
        let mut recorder = Recorder::new(&stack, &config, &notices);
        [slot.into(), mapped.into()].into_iter().for_each(|item| recorder.add(item).expect("a kind that it reads"));
        let writes = recorder.record(noon()).expect("the job belongs to a pool").writes;
        writes.puts.iter().filter(|item| matches!(item, Item::Rerun(_))).count()
    };
    let reclaimed = || Instance { interrupted_at: Some(ago(60)), ..instance() };
    let forged = slot_after(&forged(Action::InProgress, 9), slot("online", 60, json!({})));
    let older = slot("busy", 60, json!({ "stop": { "why": "interrupted", "at": ago(60) } }));
    assert_eq!(owed(slot("busy", 60, json!({})), reclaimed()), 1);
    assert_eq!(owed(forged.clone(), reclaimed()), 1, "another job was claimed before");
    let ended = slot_after(&self::forged(Action::Completed, 9), forged);
    assert_eq!(owed(ended, reclaimed()), 1, "the end of another job was reported before");
    assert_eq!(owed(older, instance()), 1, "an older version recorded the interruption");
    assert_eq!(owed(slot("busy", 60, json!({})), instance()), 0);
    assert_eq!(owed(slot("done", 60, json!({})), reclaimed()), 0, "the end was recorded before");
}

#[test]
fn the_first_report_of_an_end_is_found_behind_that_of_the_beginning() {
    let pool = Pool { rerun_on_interruption: true, ..pool() };
    let (stack, config) = ("ci".parse().expect("a stack"), config([pool.clone()]));
    let mut failed = notice(Action::Completed);
    failed.job.conclusion = Some("failure".to_owned());
    let owed = |stored: Vec<Item>| {
        let started = notice(Action::InProgress);
        let notices = [&started, &failed];
        let mut recorder = Recorder::new(&stack, &config, &notices);
        let reclaimed = Instance { interrupted_at: Some(ago(60)), ..instance() };
        stored.into_iter().chain([reclaimed.into()]).for_each(|item| recorder.add(item).expect("a kind that it reads"));
        let writes = recorder.record(noon()).expect("the job belongs to a pool").writes;
        writes.puts.iter().filter(|item| matches!(item, Item::Rerun(_))).count()
    };
    let online = || Item::from(slot("online", 60, json!({})));
    assert_eq!(owed(vec![online()]), 1);
    assert_eq!(owed(vec![online(), facts(&[Action::Completed]).into()]), 0, "the job's facts have the end");
    assert_eq!(owed(vec![slot("done", 9, json!({})).into(), facts(&[Action::Queued]).into()]), 0, "the slot has it");
}

#[test]
fn a_job_whose_slot_was_closed_before_its_webhooks_came_is_owed_its_re_run() {
    let pool = Pool { rerun_on_interruption: true, ..pool() };
    let (stack, config) = ("ci".parse().expect("a stack"), config([pool.clone()]));
    let lost = slot("configured", 60, json!({ "gone_at": ago(50), "unregistered_at": ago(40) }));
    let closed = ClosedRunner::of(&lost, false, ago(30)).expect("no job is known");
    let mut failed = notice(Action::Completed);
    failed.job.conclusion = Some("timed_out".to_owned());
    let recorded = |notice: &Notice, mapped: Instance| {
        let notices = [notice];
        let mut recorder = Recorder::new(&stack, &config, &notices);
        let key = recorder.closed_runner_key().expect("its slot is not stored");
        assert_eq!((key.pk().as_str(), recorder.instance_key(noon())), ("RUNNER#drover_ci_linux_e1_4_0_1", None));
        recorder.add(closed.clone().into()).expect("a closed runner");
        assert_eq!(recorder.instance_key(noon()), Some(Key::Instance("i-1".into())));
        recorder.add(mapped.into()).expect("an instance");
        let recording = recorder.record(noon()).expect("the job belongs to a pool");
        assert_eq!(recording.pools, [common::pool().name]);
        recording.writes
    };
    let reruns = |writes: &Transaction| writes.puts.iter().filter(|item| matches!(item, Item::Rerun(_))).count();
    let reclaimed = Instance { interrupted_at: Some(ago(60)), ..instance() };
    assert_eq!(reruns(&recorded(&failed, reclaimed.clone())), 1);
    let started = recorded(&notice(Action::InProgress), reclaimed);
    let [mapped] = &common::instances(&started)[..] else { panic!("one instance: {started:?}") };
    assert_eq!((reruns(&started), mapped.claimed_jobs()), (0, vec![JobId(5)]), "it has not ended");
    assert_eq!(reruns(&recorded(&failed, mapped.clone())), 1, "and now it has");
    let unknown = recorded(&failed, instance());
    assert_eq!(reruns(&unknown), 0, "nothing shows that EC2 reclaimed the machine");
    assert_eq!(common::instances(&unknown)[0].claimed_jobs(), [JobId(5)], "a late report of EC2 finds the job");
}

#[test]
fn the_runner_of_a_closed_slot_is_kept_unless_the_end_of_its_own_job_is_recorded() {
    let is_kept = |slot: &Slot, was_interrupted| ClosedRunner::of(slot, was_interrupted, noon()).is_some();
    let started = slot_after(&notice(Action::InProgress), slot("online", 60, json!({})));
    assert!(is_kept(&started, false), "its job has not ended");
    let done = slot_after(&notice(Action::Completed), started);
    assert!(!is_kept(&done, false), "its job has ended");
    assert!(is_kept(&done, true), "EC2 reclaimed it, and the job may be an impostor's");
    let another = slot_after(&forged(Action::Completed, 12), done);
    assert!(is_kept(&another, false), "one of the two jobs is an impostor's");
}

#[test]
fn a_slot_keeps_four_claims_and_drops_ended_ones_first() {
    let claim = |slot, job| slot_after(&forged(Action::InProgress, job), slot);
    let full = (11..=14).fold(slot("online", 60, json!({})), claim);
    let jobs = |slot: &Slot| slot.claims.iter().map(|claim| claim.job.0).collect::<Vec<_>>();
    assert_eq!(jobs(&claim(full.clone(), 15)), [11, 12, 13, 14], "none has ended");
    let one_ended = slot_after(&forged(Action::Completed, 12), full);
    assert_eq!(jobs(&claim(one_ended, 15)), [11, 13, 14, 15]);
}

#[test]
fn a_runner_must_match_in_scope_id_and_name() {
    let online = || [Item::from(slot("online", 60, json!({})))];
    let changed = |change: &dyn Fn(&mut Notice)| {
        let mut notice = notice(Action::InProgress);
        change(&mut notice);
        record(&notice, online()).map(|recording| slots(&recording.writes).len())
    };
    let runner =
        |id: u64, name: &str| Some(RunnerNotice { id: domain::ids::RunnerId(id), name: name.to_owned(), group: None });
    assert_eq!(changed(&|_| {}), Ok(1));
    assert_eq!(changed(&|it| it.job.runner = runner(8, common::RUNNER)), Ok(0), "another id");
    assert_eq!(changed(&|it| it.job.runner = runner(7, "drover_ci_linux_e1_4_0_2")), Ok(0), "another registration");
    let grouped = |own: Option<u64>, named: Option<u64>| {
        let mut notice = notice(Action::InProgress);
        notice.job.runner.as_mut().expect("a runner").group = named;
        let slot = slot("online", 60, json!({ "runner_group": own }));
        record(&notice, [slot.into()]).map(|recording| slots(&recording.writes).len())
    };
    assert_eq!(grouped(Some(3), Some(1)), Ok(0), "another group");
    assert_eq!((grouped(Some(3), Some(3)), grouped(Some(3), None), grouped(None, Some(1))), (Ok(1), Ok(1), Ok(1)));
    assert_eq!(changed(&|it| it.job.runner = runner(7, "drover_ci2_linux_e1_4_0_1")), Ok(0), "another stack");
    let elsewhere = changed(&|it| it.repository = "mona/widgets".parse().expect("a repository"));
    assert_eq!(elsewhere, Err(Unrouted::Owner), "another owner");
}

#[test]
fn a_second_job_on_a_runner_is_claimed_for_its_instance_too() {
    let first = Instance { job: Some(JobId(9)), ..instance() }.claimed(claim(9));
    let both = slot("busy", 60, json!({ "job": 9, "claims": [{ "job": 9 }] }));
    let second = recorded(&notice(Action::InProgress), [both.into(), first.into()]);
    let [mapped] = &common::instances(&second.writes)[..] else { panic!("one instance: {second:?}") };
    assert_eq!((mapped.job, mapped.claimed_jobs()), (Some(JobId(9)), vec![JobId(9), JobId(5)]));
}

fn claim(job: u64) -> domain::state::Claim {
    serde_json::from_value(json!({ "job": job })).expect("a claim")
}

#[test]
fn the_first_webhook_of_a_job_that_was_found_long_ago_begins_its_wait() {
    let day = 24 * 3600;
    let found = Job { queued_at: ago(day + 60), queued_webhook_at: None, ..facts(&[Action::Queued]) };
    let stored = || [found.clone().into(), WaitingJob { open: false, queued_at: ago(day + 60), ..job(120) }.into()];
    let late = recorded(&notice(Action::Queued), stored());
    let moved = late.writes.puts.iter().find_map(|item| if let Item::Waiting(it) = item { Some(it) } else { None });
    assert_eq!(moved.expect("it waits anew").opened_at, Some(noon()));
}

fn kept_unrouted(notices: &[Notice], stored: impl IntoIterator<Item = Item>) -> (usize, usize) {
    let (stack, config) = ("ci".parse().expect("a stack"), config([pool()]));
    let notices: Vec<&Notice> = notices.iter().collect();
    let mut recorder = Recorder::new(&stack, &config, &notices);
    stored.into_iter().for_each(|item| recorder.add(item).expect("a kind that the recorder reads"));
    let writes = recorder.keep_unrouted(noon());
    (writes.puts.len(), writes.deletes.len())
}

#[test]
fn a_job_of_no_pool_is_kept_until_it_starts_or_a_runner_of_the_stack_has_it() {
    let of = |action| {
        let mut foreign = notice(action);
        foreign.job.labels = vec!["gpu".to_owned()];
        foreign
    };
    let before = || Item::from(UnroutedJob::new(of(Action::Queued), ago(60)));
    assert_eq!(kept_unrouted(&[of(Action::Queued)], []), (1, 0));
    assert_eq!(kept_unrouted(&[of(Action::Queued)], [before()]), (0, 0));
    assert_eq!(kept_unrouted(&[of(Action::InProgress)], [before()]), (0, 1));
    assert_eq!(kept_unrouted(&[of(Action::InProgress)], []), (0, 0));
    assert_eq!(kept_unrouted(&[of(Action::Queued)], [facts(&[Action::Queued]).into()]), (0, 0), "a pool has had it");
    let taken = recorded(&of(Action::InProgress), [before(), slot("online", 60, json!({})).into(), instance().into()]);
    assert!(taken.writes.deletes.iter().any(|(key, _)| *key == Key::Unrouted(JobId(5))), "{taken:?}");
}

#[test]
fn a_slot_runs_a_job_of_no_pool() {
    let mut foreign = notice(Action::InProgress);
    foreign.job.labels = vec!["gpu".to_owned()];
    let taken = recorded(&foreign, [slot("online", 60, json!({})).into(), instance().into()]);
    assert_eq!((slots(&taken.writes).len(), taken.after, taken.pools), (1, None, vec![pool().name]));
}

#[test]
fn the_end_of_a_job_is_recorded_although_its_pool_was_dropped() {
    let dropped = |action| Job { pool: "dropped".parse().expect("a name"), ..facts(&[action]) };
    let done = recorded(&notice(Action::Completed), [dropped(Action::InProgress).into()]);
    let after = done.after.expect("it is recorded");
    assert_eq!((after.rank, after.pool.as_str(), done.is_new), (Rank::Done, "dropped", false));
    assert!(after.expires_at.is_some() && done.writes.event.is_some());
    assert!(done.writes.puts.contains(&after.into()), "{:?}", done.writes);
    // Nothing changes.
    assert!(record(&notice(Action::Completed), [dropped(Action::Completed).into()]).is_err());
}

#[test]
fn a_job_stays_in_its_first_pool() {
    let other = Pool { name: "other".parse().expect("a pool"), priority: 1, ..pool() };
    let (stack, config, queued) =
        ("ci".parse().expect("a stack"), config([other.clone(), pool()]), notice(Action::Queued));
    let notices = [&queued];
    let mut recorder = Recorder::new(&stack, &config, &notices);
    assert_eq!(recorder.first_keys(), [Key::Job(JobId(5)), Key::Waiting(other.name, JobId(5))]);
    recorder.add(facts(&[Action::Queued]).into()).expect("a job");
    assert_eq!(recorder.other_waiting_key(), Some(Key::Waiting(pool().name, JobId(5))));
    let nudge = Nudge { pool: pool().name, due_at: noon(), revision: 1 };
    assert_eq!(recorder.add(nudge.into()), Err(Key::Nudge(pool().name)));
}

#[test]
fn a_waiting_job_moves_to_a_pool_of_the_new_owner_if_githubs_answer_shows_the_transfer() {
    let theirs = Pool { name: "theirs".parse().expect("a pool"), owner: "mona".parse().expect("an owner"), ..pool() };
    let (stack, config) = ("ci".parse().expect("a stack"), config([pool(), theirs.clone()]));
    let transferred = |notice: Notice, rank: Action| {
        let notice = Notice { repository: "mona/widgets".parse().expect("a repository"), ..notice };
        let notices = [&notice];
        let mut recorder = Recorder::new(&stack, &config, &notices);
        recorder.add(facts(&[rank]).into()).expect("a job");
        assert_eq!(recorder.other_waiting_key(), Some(Key::Waiting(pool().name, JobId(5))));
        if rank == Action::Queued {
            let unknown = WaitingJob { open: false, unknown_since: Some(ago(60)), launches: vec![ago(9)], ..job(120) };
            recorder.add(unknown.into()).expect("a waiting job");
        }
        recorder.record(noon()).expect("the job belongs to a pool")
    };
    let answer = |action| {
        Notice::asked("mona/widgets".parse().expect("a repository"), false, action, notice(action).job, noon())
    };
    let moved = transferred(answer(Action::Queued), Action::Queued);
    assert_eq!(moved.pools, [theirs.name.clone(), pool().name]);
    assert_eq!(moved.writes.deletes, [(Key::Waiting(pool().name, JobId(5)), 1)]);
    let waiting = moved.writes.puts.iter().find_map(|item| if let Item::Waiting(it) = item { Some(it) } else { None });
    let waiting = waiting.expect("it waits");
    assert_eq!((&waiting.pool, waiting.repository.to_string().as_str()), (&theirs.name, "mona/widgets"));
    assert_eq!((waiting.revision, waiting.launches.len()), (0, 1), "its launches still count");
    assert_eq!((waiting.open, waiting.check_at, waiting.unknown_since), (true, noon(), None));
    let job = moved.after.expect("the job");
    assert_eq!((job.pool, job.repository.to_string().as_str()), (theirs.name.clone(), "mona/widgets"));
    let is_moved = |recording: Recording| recording.pools.contains(&theirs.name);
    assert!(!is_moved(transferred(notice(Action::Queued), Action::Queued)), "a webhook may be old");
    assert!(!is_moved(transferred(answer(Action::InProgress), Action::InProgress)), "it runs");
}

#[test]
fn only_jobs_with_queued_notices_alone_are_likely_new() {
    let (queued, started) = (notice(Action::Queued), notice(Action::InProgress));
    let mut foreign = notice(Action::Queued);
    (foreign.job.id, foreign.job.labels) = (JobId(6), vec!["gpu".to_owned()]);
    let config = config([pool()]);
    let alone = sort(&config, &[queued.clone(), queued.clone()]);
    assert_eq!((alone.likely_new.len(), alone.others.len(), alone.by_job[&JobId(5)].len()), (1, 0, 2));
    let both = sort(&config, &[queued, started, foreign].map(|it| it));
    assert_eq!((both.likely_new.len(), both.others), (0, vec![JobId(5), JobId(6)]));
}
