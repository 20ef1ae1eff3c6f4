//! Every state of the three witnesses has one verdict, and no verdict kills on doubt.

use domain::ids::{JobId, RunnerId, SlotId};
use domain::item::Condemned;
use domain::pool::Timings;
use domain::slot::{Machine, Runner, Slot, SlotState, Stop, StopReason};
use domain::sweep::{Known, MachineState, RunnerState, Subject, Verdict, judge};
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
