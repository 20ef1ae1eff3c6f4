//! Every state of the three witnesses has one verdict, and no verdict kills on doubt.

use domain::config::Timings;
use domain::ids::{JobId, RunnerId, SlotId};
use domain::policy::sweep::{Known, RunnerState, Subject, Verdict, judge};
use domain::state::{Condemned, Machine, Runner, Slot, SlotState, Stop, StopReason};
use domain::wire::MachineState;
use jiff::{SignedDuration, Timestamp};

fn noon() -> Timestamp {
    "2026-11-02T12:00:00Z".parse().expect("a time")
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A slot in each state, entered an hour ago, so that every grace is over.
fn slots() -> Vec<Slot> {
    let at = noon() - HOUR;
    let machine = Machine { instance: "i-1".into(), launched_at: at };
    let runner = Runner { runner_id: RunnerId(1), runner_name: "runner".to_owned(), configured_at: at };
    let (m, r, job) = (machine, runner, JobId(5));
    let states = [
        SlotState::Launched(m.clone()),
        SlotState::Configured { machine: m.clone(), runner: r.clone() },
        SlotState::Online { machine: m.clone(), runner: r.clone(), online_at: at },
        SlotState::Busy { machine: m.clone(), runner: r.clone(), job },
        SlotState::Done { machine: m, runner: r, job, done_at: at },
    ];
    let open = states.into_iter().map(|state| Slot {
        id: SlotId { version: 1, index: 0 },
        pool: "linux".parse().expect("a pool"),
        state,
        wanted: true,
        planned_at: at,
        wanted_at: Some(at),
        stop: None,
        registration: 1,
        busy_seen_at: None,
        busy_since: None,
        gone_at: None,
        unregistered_at: None,
        lost_sight: false,
        held: false,
        tries: 0,
        next_at: at,
        revision: 1,
    });
    open.flat_map(|slot| {
        let stopped = Slot { stop: Some(Stop { why: StopReason::Surplus, at, forced: false }), ..slot.clone() };
        [slot, stopped]
    })
    .collect()
}

#[test]
fn no_state_of_the_world_makes_the_janitor_kill_on_doubt() {
    let timings = Timings::default();
    let slots = slots();
    let known = slots.iter().map(Known::Open).chain([
        Known::Nothing,
        Known::BatchOpen,
        Known::Adopted,
        Known::Condemned,
        Known::Closed,
    ]);
    let machines = [
        None,
        Some(MachineState::Pending),
        Some(MachineState::Running),
        Some(MachineState::Stopping),
        Some(MachineState::Stopped),
        Some(MachineState::ShuttingDown),
        Some(MachineState::Terminated),
    ];
    let runners = [
        RunnerState::Unread,
        RunnerState::Unregistered(SignedDuration::ZERO),
        RunnerState::Unregistered(HOUR),
        RunnerState::Offline(SignedDuration::ZERO),
        RunnerState::Offline(HOUR),
        RunnerState::Idle,
        RunnerState::Busy,
    ];
    let mut judged = 0;
    for known in known {
        for state in machines {
            for runner in runners {
                for (hold, old) in [(false, false), (false, true), (true, false), (true, true)] {
                    let age = if old { 13 * HOUR } else { HOUR };
                    let subject = Subject {
                        state,
                        unlisted_for: HOUR,
                        age,
                        stopping_for: HOUR,
                        hold,
                        runner,
                        known,
                        timings: &timings,
                    };
                    let verdict = judge(&subject, noon());
                    let live = state.is_some_and(MachineState::is_live);
                    let ends = matches!(verdict, Verdict::Condemn(_) | Verdict::Stop(_) | Verdict::Finish);
                    let by_age =
                        matches!(verdict, Verdict::Condemn(Condemned::MaxLife) | Verdict::Stop(StopReason::MaxLife));
                    judged += 1;
                    assert!(!ends || live, "nothing ends twice: {subject:?} {verdict:?}");
                    assert_eq!(live && hold, verdict == Verdict::Held, "hold wins: {subject:?} {verdict:?}");
                    assert!(!ends || by_age == old, "age wins: {subject:?} {verdict:?}");
                    let stranger = !matches!(known, Known::Open(_));
                    if ends && !by_age && stranger {
                        assert_ne!(runner, RunnerState::Unread, "a witness was not heard: {subject:?} {verdict:?}");
                        let claimed = matches!(known, Known::Condemned);
                        assert!(claimed || runner != RunnerState::Busy, "it has a job: {subject:?} {verdict:?}");
                    }
                    if let Known::Open(slot) = known {
                        let halted = matches!(state, Some(MachineState::Stopped | MachineState::Stopping));
                        let doubt = matches!(runner, RunnerState::Unread | RunnerState::Busy | RunnerState::Idle);
                        let over = matches!(slot.state, SlotState::Done { .. });
                        assert!(!ends || by_age || halted || over || !doubt, "{subject:?} {verdict:?}");
                    }
                }
            }
        }
    }
    assert_eq!(judged, 15 * 7 * 7 * 4, "every combination");
}

/// A running machine, an hour old.
fn subject<'a>(known: Known<'a>, runner: RunnerState, timings: &'a Timings) -> Subject<'a> {
    Subject {
        state: Some(MachineState::Running),
        unlisted_for: SignedDuration::ZERO,
        age: HOUR,
        stopping_for: SignedDuration::ZERO,
        hold: false,
        runner,
        known,
        timings,
    }
}

#[test]
fn each_row_holds_from_its_moment_on_and_not_a_second_before() {
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
    let judged = |subject: Subject<'_>| judge(&subject, noon());
    let open = |slot: &Slot, runner| judged(subject(Known::Open(slot), runner, &timings));
    let stop = |why| Verdict::Stop(why);
    let offline = RunnerState::Offline;

    // One that booted before it was configured has two minutes to connect, one that boots has eight.
    let young = |slot: &Slot, seconds: i64| {
        let age = SignedDuration::from_secs(seconds);
        judged(Subject { age, ..subject(Known::Open(slot), offline(SignedDuration::ZERO), &timings) })
    };
    assert_eq!(young(&at(&configured, 479), 479), Verdict::Normal);
    assert_eq!(young(&at(&configured, 480), 480), stop(StopReason::BootFailure));
    assert_eq!(young(&at(&configured, 119), 599), Verdict::Normal);
    assert_eq!(young(&at(&configured, 120), 600), stop(StopReason::BootFailure));
    assert_eq!(young(&at(&configured, 120), 599), Verdict::Normal);
    let busy = Slot { busy_seen_at: Some(noon()), ..at(&configured, 900) };
    assert_eq!(open(&busy, offline(SignedDuration::ZERO)), Verdict::Normal, "it has a job, whatever the list says");

    assert_eq!(open(&online, offline(8 * 60 * second - second)), Verdict::Normal);
    assert_eq!(open(&online, offline(8 * 60 * second)), stop(StopReason::Disconnected));
    assert_eq!(open(&online, RunnerState::Unregistered(59 * second)), Verdict::Normal);
    assert_eq!(open(&online, RunnerState::Unregistered(60 * second)), stop(StopReason::RunnerEnded));
    assert_eq!(open(&at(&done, 89), RunnerState::Unread), Verdict::Normal);
    assert_eq!(open(&at(&done, 90), RunnerState::Unread), Verdict::Finish);
    let leased = Slot { next_at: noon() + second, ..at(&done, 90) };
    assert_eq!(open(&leased, RunnerState::Unread), Verdict::Normal, "somebody is at it");

    let with = |change: &dyn Fn(&mut Subject<'_>)| {
        let mut subject = subject(Known::Open(&online), RunnerState::Idle, &timings);
        change(&mut subject);
        judged(subject)
    };
    assert_eq!(with(&|it| it.age = 12 * HOUR - second), Verdict::Normal);
    assert_eq!(with(&|it| it.age = 12 * HOUR), stop(StopReason::MaxLife));
    assert_eq!(with(&|it| it.state = Some(MachineState::Stopped)), stop(StopReason::Halted));
    let stopping = |seconds: i64| {
        with(&|it| {
            it.state = Some(MachineState::Stopping);
            it.stopping_for = SignedDuration::from_secs(seconds);
        })
    };
    assert_eq!((stopping(599), stopping(600)), (Verdict::Normal, stop(StopReason::Halted)));
    let unlisted = |age: i64, seconds: i64| {
        with(&|it| {
            it.state = None;
            (it.age, it.unlisted_for) = (SignedDuration::from_secs(age), SignedDuration::from_secs(seconds));
        })
    };
    assert_eq!(
        (unlisted(299, 60), unlisted(300, 59), unlisted(300, 60)),
        (Verdict::Normal, Verdict::Normal, Verdict::Gone)
    );
    assert_eq!(with(&|it| it.state = Some(MachineState::Terminated)), Verdict::Gone);

    // A stop that is on its way is not stopped again, but for the end of its life; one that came too late is.
    let stopped =
        |state: usize, why| Slot { stop: Some(Stop { why, at: noon(), forced: false }), ..slots()[2 * state].clone() };
    let halted = |slot: &Slot| {
        judged(Subject {
            state: Some(MachineState::Stopped),
            ..subject(Known::Open(slot), RunnerState::Idle, &timings)
        })
    };
    let old =
        |slot: &Slot| judged(Subject { age: 13 * HOUR, ..subject(Known::Open(slot), RunnerState::Idle, &timings) });
    assert_eq!(halted(&stopped(2, StopReason::Surplus)), Verdict::Normal);
    assert_eq!(halted(&stopped(3, StopReason::Surplus)), stop(StopReason::Halted), "it came too late for its job");
    assert_eq!(old(&stopped(2, StopReason::Surplus)), stop(StopReason::MaxLife));
    assert_eq!(old(&stopped(2, StopReason::MaxLife)), Verdict::Normal);

    // Nobody's.
    let nobodys = |known, runner, age: i64, state| {
        judged(Subject { age: SignedDuration::from_secs(age), state: Some(state), ..subject(known, runner, &timings) })
    };
    let orphan = Verdict::Condemn(Condemned::Orphan);
    let (running, none) = (MachineState::Running, RunnerState::Unregistered(SignedDuration::ZERO));
    assert_eq!(nobodys(Known::Nothing, none, 599, running), Verdict::Normal);
    assert_eq!(nobodys(Known::Nothing, none, 600, running), orphan);
    assert_eq!(nobodys(Known::Nothing, none, 1, MachineState::Stopped), orphan);
    assert_eq!(nobodys(Known::Nothing, RunnerState::Busy, 600, running), Verdict::Adopt);
    assert_eq!(nobodys(Known::Closed, RunnerState::Busy, 600, running), Verdict::Adopt);
    assert_eq!(nobodys(Known::Closed, none, 1, running), orphan);
    assert_eq!(nobodys(Known::BatchOpen, none, 900, running), Verdict::Normal);
    assert_eq!(nobodys(Known::Adopted, RunnerState::Busy, 900, running), Verdict::Normal);
    assert_eq!(nobodys(Known::Adopted, RunnerState::Idle, 900, running), orphan);
    assert_eq!(nobodys(Known::Condemned, RunnerState::Idle, 1, running), orphan);
    assert_eq!(nobodys(Known::Nothing, RunnerState::Unread, 900, running), Verdict::Normal);
    assert_eq!(nobodys(Known::BatchOpen, none, 12 * 3600, running), Verdict::Condemn(Condemned::MaxLife));
}
