//! Every combination of the three sources has one verdict, and none terminates a machine that may have a job.

mod common;

use common::noon;
use domain::config::Timings;
use domain::ids::{JobId, RunnerId, SlotId};
use domain::policy::sweep::{
    Recorded, RunnerState, SlotSubject, SlotVerdict, UnownedSubject, UnownedVerdict, judge_slot, judge_unowned,
};
use domain::state::{Condemned, Lease, Machine, Runner, Slot, SlotState, Stop, StopReason};
use domain::wire::MachineState;
use jiff::SignedDuration;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A slot in each state with a machine, running and stopped. Each state began an hour ago, so that every grace is over.
fn slots() -> Vec<Slot> {
    let at = noon() - HOUR;
    let machine = Machine::launched("i-1".into(), at);
    let runner =
        Runner { runner_id: RunnerId(1), runner_name: "runner".to_owned(), configured_at: at, runner_group: None };
    let aside = Machine { stopped_at: Some(at), ..machine.clone() };
    let (m, r, job) = (machine, runner, JobId(5));
    let states = [
        SlotState::Launched(m.clone()),
        SlotState::Configured { machine: m.clone(), runner: r.clone() },
        SlotState::Online { machine: m.clone(), runner: r.clone(), online_at: at },
        SlotState::Busy { machine: m.clone(), runner: r.clone(), job },
        SlotState::Done { machine: m.clone(), runner: r, job, done_at: at },
        SlotState::Prepared(aside.clone()),
        SlotState::Stopped(aside.clone()),
        SlotState::Started(Machine { started_at: Some(at), ..aside }),
    ];
    let open = states.into_iter().map(|state| Slot {
        id: SlotId { version: 1, index: 0 },
        pool: "linux".parse().expect("a pool"),
        class: None,
        price_per_hour: None,
        warm_as: None,
        state,
        wanted: true,
        planned_at: at,
        wanted_at: Some(at),
        stop: None,
        registration: 1,
        claims: Vec::new(),
        busy_seen_at: None,
        busy_since: None,
        gone_at: None,
        unregistered_at: None,
        job_check_ended: false,
        charge_returned: false,
        boot: None,
        held: false,
        lease: Lease::due(at),
        revision: 1,
    });
    open.flat_map(|slot| {
        let stopped = Slot { stop: Some(Stop { why: StopReason::Surplus, at, forced: false }), ..slot.clone() };
        [slot, stopped]
    })
    .collect()
}

const MACHINES: [Option<MachineState>; 7] = [
    None,
    Some(MachineState::Pending),
    Some(MachineState::Running),
    Some(MachineState::Stopping),
    Some(MachineState::Stopped),
    Some(MachineState::ShuttingDown),
    Some(MachineState::Terminated),
];

const RUNNERS: [RunnerState; 8] = [
    RunnerState::Unread,
    RunnerState::Unregistered(SignedDuration::ZERO),
    RunnerState::Unregistered(HOUR),
    RunnerState::Offline(SignedDuration::ZERO),
    RunnerState::Offline(HOUR),
    RunnerState::Idle(SignedDuration::ZERO),
    RunnerState::Idle(HOUR),
    RunnerState::Busy,
];

/// Every state of machine and runner, held or not, past max life or not.
fn combinations() -> impl Iterator<Item = (Option<MachineState>, RunnerState, bool, bool)> {
    MACHINES.into_iter().flat_map(|state| {
        RUNNERS.into_iter().flat_map(move |runner| {
            [(false, false), (false, true), (true, false), (true, true)].map(|(hold, old)| (state, runner, hold, old))
        })
    })
}

fn age(old: bool) -> SignedDuration {
    if old { 13 * HOUR } else { HOUR }
}

#[test]
fn no_combination_ends_a_slots_machine_that_may_have_a_job() {
    let timings = Timings::default();
    let mut judged = 0;
    for slot in &slots() {
        for (state, runner, hold, old) in combinations() {
            let subject = SlotSubject {
                slot,
                state,
                unlisted_for: HOUR,
                age: age(old),
                stopping_for: HOUR,
                running_for: HOUR,
                hold,
                runner,
                lacks_report: false,
                timings: &timings,
                format: 2,
            };
            let verdict = judge_slot(&subject, noon());
            let live = state.is_some_and(MachineState::is_live);
            let ends = matches!(verdict, SlotVerdict::Stop(_));
            let by_age = verdict == SlotVerdict::Stop(StopReason::MaxLife);
            let halted = matches!(state, Some(MachineState::Stopped | MachineState::Stopping));
            let doubt = matches!(runner, RunnerState::Unread | RunnerState::Busy | RunnerState::Idle(_));
            // The deregistration shows whether GitHub's report of the job, or of its end, was right.
            let denied = matches!(slot.state, SlotState::Busy { .. }) && runner == RunnerState::Idle(HOUR);
            let over = matches!(slot.state, SlotState::Done { .. }) || denied;
            judged += 1;
            assert!(!ends || live, "an ended machine is not ended again: {subject:?} {verdict:?}");
            assert_eq!(live && hold, verdict == SlotVerdict::Held, "hold wins: {subject:?} {verdict:?}");
            if slot.is_set_aside() {
                assert!(!by_age, "it does not age: {subject:?}");
                assert!(!ends || verdict == SlotVerdict::Stop(StopReason::NotReady), "{subject:?} {verdict:?}");
                continue;
            }
            assert!(!ends || by_age == old, "age wins: {subject:?} {verdict:?}");
            assert!(!ends || by_age || halted || over || !doubt, "{subject:?} {verdict:?}");
        }
    }
    assert_eq!(judged, 16 * 7 * 8 * 4, "every combination");
}

#[test]
fn no_combination_ends_an_unowned_machine_that_may_have_a_job() {
    let timings = Timings::default();
    let mut judged = 0;
    let all = [Recorded::Nothing, Recorded::BatchOpen, Recorded::Adopted, Recorded::Condemned, Recorded::Closed];
    for recorded in all {
        for (state, runner, hold, old) in combinations() {
            let Some(state) = state else { continue };
            let subject =
                UnownedSubject { recorded, state, age: age(old), stopping_for: HOUR, hold, runner, timings: &timings };
            let verdict = judge_unowned(&subject);
            let live = state.is_live();
            let ends = matches!(verdict, UnownedVerdict::Condemn(_));
            let by_age = verdict == UnownedVerdict::Condemn(Condemned::MaxLife);
            judged += 1;
            assert!(!ends || live, "an ended machine is not ended again: {subject:?} {verdict:?}");
            assert_eq!(live && hold, verdict == UnownedVerdict::Held, "hold wins: {subject:?} {verdict:?}");
            assert!(!ends || by_age == old, "age wins: {subject:?} {verdict:?}");
            if ends && !by_age {
                assert_ne!(runner, RunnerState::Unread, "a source was not read: {subject:?} {verdict:?}");
                assert!(!doubtful(runner), "one reading may lack its runner: {subject:?} {verdict:?}");
                let claimed = recorded == Recorded::Condemned;
                assert!(claimed || runner != RunnerState::Busy, "it has a job: {subject:?} {verdict:?}");
            }
        }
    }
    assert_eq!(judged, 5 * 6 * 8 * 4, "every combination");
}

/// Whether only one reading has shown that no runner has a job.
fn doubtful(runner: RunnerState) -> bool {
    match runner {
        RunnerState::Unregistered(time) | RunnerState::Offline(time) | RunnerState::Idle(time) => time.is_zero(),
        RunnerState::Unread | RunnerState::Busy => false,
    }
}

/// A slot's running machine, an hour old.
fn subject<'a>(slot: &'a Slot, runner: RunnerState, timings: &'a Timings) -> SlotSubject<'a> {
    SlotSubject {
        slot,
        state: Some(MachineState::Running),
        unlisted_for: SignedDuration::ZERO,
        age: HOUR,
        stopping_for: SignedDuration::ZERO,
        running_for: SignedDuration::ZERO,
        hold: false,
        runner,
        lacks_report: false,
        timings,
        format: 2,
    }
}

#[test]
fn each_verdict_applies_from_its_exact_moment() {
    let timings = Timings::default();
    let second = SignedDuration::from_secs(1);
    let of = |name: usize| slots()[2 * name].clone();
    let at = |slot: &Slot, seconds: i64| {
        let at = noon() - SignedDuration::from_secs(seconds);
        let state = match slot.state.clone() {
            SlotState::Configured { machine, runner } => {
                SlotState::Configured { machine, runner: Runner { configured_at: at, ..runner } }
            }
            SlotState::Done { machine, runner, job, .. } => SlotState::Done { machine, runner, job, done_at: at },
            other => other,
        };
        Slot { state, ..slot.clone() }
    };
    let (configured, online, done) = (of(1), of(2), of(4));
    let judged = |subject: SlotSubject<'_>| judge_slot(&subject, noon());
    let open = |slot: &Slot, runner| judged(subject(slot, runner, &timings));
    let stop = |why| SlotVerdict::Stop(why);
    let offline = RunnerState::Offline;

    // A machine that had booted before it was configured has two minutes to connect, one that still boots has eight.
    let young = |slot: &Slot, seconds: i64| {
        let age = SignedDuration::from_secs(seconds);
        judged(SlotSubject { age, ..subject(slot, offline(SignedDuration::ZERO), &timings) })
    };
    assert_eq!(young(&at(&configured, 479), 479), SlotVerdict::Normal);
    assert_eq!(young(&at(&configured, 480), 480), stop(StopReason::BootFailure));
    assert_eq!(young(&at(&configured, 119), 599), SlotVerdict::Normal);
    assert_eq!(young(&at(&configured, 120), 600), stop(StopReason::BootFailure));
    assert_eq!(young(&at(&configured, 120), 599), SlotVerdict::Normal);
    // A machine without a runner has eight minutes to report.
    let silent = |slot: &Slot, seconds: i64, state: MachineState| {
        let age = SignedDuration::from_secs(seconds);
        let subject = subject(slot, RunnerState::Unregistered(SignedDuration::ZERO), &timings);
        judged(SlotSubject { age, state: Some(state), lacks_report: true, ..subject })
    };
    let launched = of(0);
    for state in [MachineState::Pending, MachineState::Running] {
        assert_eq!(silent(&launched, 479, state), SlotVerdict::Normal);
        assert_eq!(silent(&launched, 480, state), stop(StopReason::BootFailure));
    }
    assert_eq!(silent(&launched, 480, MachineState::Stopping), SlotVerdict::Normal);
    assert_eq!(open(&launched, RunnerState::Unread), SlotVerdict::Normal, "no report is expected");
    for with_a_runner in [&online, &of(3)] {
        assert_eq!(silent(with_a_runner, 480, MachineState::Running), SlotVerdict::Normal);
    }
    let busy = Slot { busy_seen_at: Some(noon()), ..at(&configured, 900) };
    assert_eq!(
        open(&busy, offline(SignedDuration::ZERO)),
        SlotVerdict::Normal,
        "it has a job, although the list shows none"
    );

    assert_eq!(open(&online, offline(8 * 60 * second - second)), SlotVerdict::Normal);
    assert_eq!(open(&online, offline(8 * 60 * second)), stop(StopReason::Disconnected));
    assert_eq!(open(&online, RunnerState::Unregistered(59 * second)), SlotVerdict::Normal);
    assert_eq!(open(&online, RunnerState::Unregistered(60 * second)), stop(StopReason::RunnerEnded));
    assert_eq!(open(&at(&done, 89), RunnerState::Unread), SlotVerdict::Normal);
    assert_eq!(open(&at(&done, 90), RunnerState::Unread), stop(StopReason::JobDone));
    let old_format = judged(SlotSubject { format: 1, ..subject(&done, RunnerState::Unread, &timings) });
    assert_eq!(old_format, stop(StopReason::RunnerEnded), "older versions cannot read the other reason");
    let retiring = Slot { stop: Some(Stop { why: StopReason::JobDone, at: noon(), forced: false }), ..at(&done, 90) };
    assert_eq!(open(&retiring, RunnerState::Unread), SlotVerdict::Normal, "it is being retired");
    let SlotState::Done { machine, runner, job, done_at } = at(&done, 90).state else { panic!("its job is done") };
    let booting = |seconds: i64| {
        let runner = Runner { configured_at: noon() - second * seconds as i32, ..runner.clone() };
        let state = SlotState::Done { machine: machine.clone(), runner, job, done_at };
        open(&Slot { state, ..done.clone() }, offline(SignedDuration::ZERO))
    };
    assert_eq!((booting(479), booting(480)), (SlotVerdict::Normal, stop(StopReason::JobDone)), "a forged report");
    let busy = of(3);
    assert_eq!(open(&busy, RunnerState::Idle(59 * second)), SlotVerdict::Normal);
    assert_eq!(open(&busy, RunnerState::Idle(60 * second)), stop(StopReason::JobDone));
    let seen = Slot { busy_seen_at: Some(noon()), ..busy.clone() };
    assert_eq!(open(&seen, RunnerState::Idle(60 * second)), SlotVerdict::Normal, "GitHub refused a deregistration");
    assert_eq!(open(&busy, offline(8 * 60 * second - second)), SlotVerdict::Normal);
    assert_eq!(open(&busy, offline(8 * 60 * second)), stop(StopReason::JobDone));

    let with = |change: &dyn Fn(&mut SlotSubject<'_>)| {
        let mut subject = subject(&online, RunnerState::Idle(SignedDuration::ZERO), &timings);
        change(&mut subject);
        judged(subject)
    };
    assert_eq!(with(&|it| it.age = 12 * HOUR - second), SlotVerdict::Normal);
    assert_eq!(with(&|it| it.age = 12 * HOUR), stop(StopReason::MaxLife));
    assert_eq!(with(&|it| it.state = Some(MachineState::Stopped)), stop(StopReason::Halted));
    let stopping = |seconds: i64| {
        with(&|it| {
            it.state = Some(MachineState::Stopping);
            it.stopping_for = SignedDuration::from_secs(seconds);
        })
    };
    assert_eq!((stopping(599), stopping(600)), (SlotVerdict::Normal, stop(StopReason::Halted)));
    let unlisted = |age: i64, seconds: i64| {
        with(&|it| {
            it.state = None;
            (it.age, it.unlisted_for) = (SignedDuration::from_secs(age), SignedDuration::from_secs(seconds));
        })
    };
    assert_eq!(
        (unlisted(299, 60), unlisted(300, 59), unlisted(300, 60)),
        (SlotVerdict::Normal, SlotVerdict::Normal, SlotVerdict::Gone)
    );
    assert_eq!(with(&|it| it.state = Some(MachineState::Terminated)), SlotVerdict::Gone);

    // A slot that is being retired is stopped again for max life only. A stop that does not end a job is replaced.
    let stopped =
        |state: usize, why| Slot { stop: Some(Stop { why, at: noon(), forced: false }), ..slots()[2 * state].clone() };
    let halted = |slot: &Slot| {
        judged(SlotSubject {
            state: Some(MachineState::Stopped),
            ..subject(slot, RunnerState::Idle(SignedDuration::ZERO), &timings)
        })
    };
    let old = |slot: &Slot| {
        judged(SlotSubject { age: 13 * HOUR, ..subject(slot, RunnerState::Idle(SignedDuration::ZERO), &timings) })
    };
    assert_eq!(halted(&stopped(2, StopReason::Surplus)), SlotVerdict::Normal);
    assert_eq!(halted(&stopped(3, StopReason::Surplus)), stop(StopReason::Halted), "a surplus does not end a job");
    assert_eq!(old(&stopped(2, StopReason::Surplus)), stop(StopReason::MaxLife));
    assert_eq!(old(&stopped(2, StopReason::MaxLife)), SlotVerdict::Normal);
}

#[test]
fn a_machine_that_is_set_aside_does_not_age_and_counts_as_broken_only_once_it_runs_again() {
    let timings = Timings::default();
    let (none, minute) = (RunnerState::Unregistered(SignedDuration::ZERO), SignedDuration::from_mins(1));
    let judged = |slot: &Slot, change: &dyn Fn(&mut SlotSubject<'_>)| {
        let mut subject = SlotSubject { age: 1000 * HOUR, ..subject(slot, none, &timings) };
        change(&mut subject);
        judge_slot(&subject, noon())
    };
    let (prepared, stopped, started) = (slots()[10].clone(), slots()[12].clone(), slots()[14].clone());
    let is_stopped = |it: &mut SlotSubject<'_>| it.state = Some(MachineState::Stopped);
    for slot in [&prepared, &stopped] {
        assert_eq!(judged(slot, &is_stopped), SlotVerdict::Normal);
        assert_eq!(judged(slot, &|_| ()), SlotVerdict::Normal, "EC2 may be asked to stop it, or its list is old");
        let stopping = |it: &mut SlotSubject<'_>| {
            (it.state, it.stopping_for) = (Some(MachineState::Stopping), 10 * minute);
        };
        assert_eq!(judged(slot, &stopping), SlotVerdict::Stop(StopReason::NotReady), "EC2 does not get on");
    }
    let runs = |minutes: i32| move |it: &mut SlotSubject<'_>| it.running_for = minute * minutes;
    assert_eq!(judged(&stopped, &runs(9)), SlotVerdict::Normal);
    assert_eq!(judged(&stopped, &runs(10)), SlotVerdict::Stop(StopReason::NotReady), "somebody started it");
    // From its start on it is a machine like any other.
    let restarted = |minutes: i32| {
        let at = noon() - minute * minutes;
        let SlotState::Started(machine) = started.state.clone() else { panic!("it is started") };
        let slot = Slot { state: SlotState::Started(Machine { started_at: Some(at), ..machine }), ..started.clone() };
        judged(&slot, &|it| (it.age, it.state) = (minute * minutes, Some(MachineState::Stopped)))
    };
    assert_eq!(restarted(4), SlotVerdict::Normal, "EC2's list may be older than the start");
    assert_eq!(restarted(5), SlotVerdict::Stop(StopReason::Halted));
    assert_eq!(judged(&started, &|_| ()), SlotVerdict::Stop(StopReason::MaxLife));
}

#[test]
fn each_verdict_of_an_unowned_machine_applies_from_its_exact_moment() {
    let timings = Timings::default();
    let unowned = |recorded, runner, age: i64, state| {
        judge_unowned(&UnownedSubject {
            recorded,
            state,
            age: SignedDuration::from_secs(age),
            stopping_for: SignedDuration::ZERO,
            hold: false,
            runner,
            timings: &timings,
        })
    };
    let orphan = UnownedVerdict::Condemn(Condemned::Orphan);
    let confirmed = SignedDuration::from_secs(120);
    let (running, none) = (MachineState::Running, RunnerState::Unregistered(confirmed));
    assert_eq!(unowned(Recorded::Nothing, none, 599, running), UnownedVerdict::Normal);
    assert_eq!(unowned(Recorded::Nothing, none, 600, running), orphan);
    assert_eq!(unowned(Recorded::Nothing, none, 1, MachineState::Stopped), orphan);
    assert_eq!(unowned(Recorded::Nothing, RunnerState::Busy, 600, running), UnownedVerdict::Adopt);
    assert_eq!(unowned(Recorded::Closed, RunnerState::Busy, 600, running), UnownedVerdict::Adopt);
    assert_eq!(unowned(Recorded::Closed, none, 1, running), orphan);
    assert_eq!(unowned(Recorded::BatchOpen, none, 900, running), UnownedVerdict::Normal);
    assert_eq!(unowned(Recorded::Adopted, RunnerState::Busy, 900, running), UnownedVerdict::Normal);
    assert_eq!(unowned(Recorded::Adopted, RunnerState::Idle(confirmed), 900, running), orphan);
    assert_eq!(unowned(Recorded::Condemned, RunnerState::Idle(confirmed), 1, running), orphan);
    assert_eq!(unowned(Recorded::Condemned, RunnerState::Busy, 1, running), orphan);
    let doubtful = SignedDuration::from_secs(119);
    for recorded in [Recorded::Nothing, Recorded::Adopted, Recorded::Condemned, Recorded::Closed] {
        for runner in [RunnerState::Unregistered(doubtful), RunnerState::Offline(doubtful), RunnerState::Idle(doubtful)]
        {
            assert_eq!(unowned(recorded, runner, 900, running), UnownedVerdict::Normal, "{recorded:?} {runner:?}");
        }
    }
    assert_eq!(unowned(Recorded::Nothing, RunnerState::Unread, 900, running), UnownedVerdict::Normal);
    assert_eq!(unowned(Recorded::BatchOpen, none, 12 * 3600, running), UnownedVerdict::Condemn(Condemned::MaxLife));
}
