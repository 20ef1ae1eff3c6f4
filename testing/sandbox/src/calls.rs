//! Every request that reaches an emulated service: counted, and, when a test asks for it, traced and made fatal to its
//! caller.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::permissions::Caller;

/// How often what was called: service, operation.
pub type Counts = BTreeMap<(&'static str, String), u64>;

/// When the traced process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// Never: only write down what it calls.
    Never,
    /// Before the call of that number, from 0, takes effect.
    Before(usize),
    /// After it took effect, before its answer arrives.
    After(usize),
}

#[derive(Debug, Default)]
struct Inner {
    counts: Counts,
    /// IAM actions of the calls of each role, if its policies allow them.
    actions: BTreeMap<&'static str, BTreeSet<String>>,
    trace: Option<Trace>,
    /// The processes that were started, by what they sign with.
    processes: BTreeMap<String, u32>,
    chaos: Option<Chaos>,
}

/// Kills that come at random calls.
#[derive(Debug)]
struct Chaos {
    random: SmallRng,
    /// Calls until the next one.
    next_in: u32,
    left: usize,
    done: usize,
}

/// So many calls are between two kills, at least and at most: a function has to get some work done, and the shortest demo
/// makes more calls than this.
const BETWEEN_KILLS: std::ops::Range<u32> = 10..60;

#[derive(Debug)]
struct Trace {
    role: &'static str,
    process: u32,
    kill: Kill,
    calls: Vec<String>,
}

/// The counter and the trace.
#[derive(Debug, Default)]
pub struct Calls(Mutex<Inner>);

/// What is to be done about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answer,
    DieBefore(u32),
    DieAfter(u32),
}

impl Calls {
    /// How often what was called so far.
    pub fn counts(&self) -> Counts {
        self.0.lock().expect("nobody panics while holding it").counts.clone()
    }

    /// The IAM actions that a role has used so far.
    pub fn actions(&self, role: &str) -> BTreeSet<String> {
        self.0.lock().expect("nobody panics while holding it").actions.get(role).cloned().unwrap_or_default()
    }

    pub(crate) fn record_actions(&self, role: &'static str, actions: impl Iterator<Item = String>) {
        self.0.lock().expect("nobody panics while holding it").actions.entry(role).or_default().extend(actions);
    }

    /// From now on, writes down what the process of that role calls, and kills it as told.
    pub fn trace(&self, role: &'static str, process: u32, kill: Kill) {
        let trace = Trace { role, process, kill, calls: Vec::new() };
        self.0.lock().expect("nobody panics while holding it").trace = Some(trace);
    }

    /// What was called since; ends the trace.
    pub fn traced(&self) -> Vec<String> {
        let trace = self.0.lock().expect("nobody panics while holding it").trace.take();
        trace.map(|trace| trace.calls).unwrap_or_default()
    }

    /// A process was started, and signs with that session token.
    pub(crate) fn started(&self, token: String, process: u32) {
        self.0.lock().expect("nobody panics while holding it").processes.insert(token, process);
    }

    /// From now on, kills whoever makes the call that the dice choose, so many times.
    pub fn kill_at_random_calls(&self, seed: u64, times: usize) {
        let mut random = SmallRng::seed_from_u64(seed);
        let next_in = random.random_range(BETWEEN_KILLS);
        let chaos = Chaos { random, next_in, left: times, done: 0 };
        self.0.lock().expect("nobody panics while holding it").chaos = Some(chaos);
    }

    /// How many processes were killed at random calls.
    pub fn killed(&self) -> usize {
        self.0.lock().expect("nobody panics while holding it").chaos.as_ref().map_or(0, |chaos| chaos.done)
    }

    fn begin(&self, caller: &Caller, token: &str, service: &'static str, operation: &str) -> Fate {
        let mut inner = self.0.lock().expect("nobody panics while holding it");
        *inner.counts.entry((service, operation.to_owned())).or_default() += 1;
        let process = inner.processes.get(token).copied();
        if let (Some(chaos), Some(process)) = (&mut inner.chaos, process)
            && chaos.left > 0
        {
            chaos.next_in -= 1;
            if chaos.next_in == 0 {
                chaos.next_in = chaos.random.random_range(BETWEEN_KILLS);
                chaos.left -= 1;
                chaos.done += 1;
                return if chaos.random.random() { Fate::DieBefore(process) } else { Fate::DieAfter(process) };
            }
        }
        let Some(trace) = &mut inner.trace else { return Fate::Answer };
        if *caller != Caller::Role(trace.role) && *caller != Caller::ControlPlane {
            return Fate::Answer;
        }
        let number = trace.calls.len();
        trace.calls.push(format!("{service} {operation}"));
        match trace.kill {
            Kill::Before(at) if at == number => Fate::DieBefore(trace.process),
            Kill::After(at) if at == number => Fate::DieAfter(trace.process),
            Kill::Never | Kill::Before(_) | Kill::After(_) => Fate::Answer,
        }
    }

    /// Counts a call and answers it, unless its caller is to die of it. `token` is the session token it is signed with, if
    /// there is one.
    pub(crate) async fn answer(
        &self,
        caller: &Caller,
        token: &str,
        service: &'static str,
        operation: &str,
        answer: impl Future<Output = Response>,
    ) -> Response {
        match self.begin(caller, token, service, operation) {
            Fate::Answer => answer.await,
            Fate::DieBefore(process) => {
                end(process);
                hang_up()
            }
            Fate::DieAfter(process) => {
                drop(answer.await);
                end(process);
                hang_up()
            }
        }
    }
}

/// It may have ended by itself meanwhile; then there is nobody to kill.
fn end(process: u32) {
    let _ = kill(Pid::from_raw(process.cast_signed()), Signal::SIGKILL);
}

/// An answer that breaks off: to its caller, no answer.
pub(crate) fn hang_up() -> Response {
    let broken = futures::stream::once(async { Err::<String, _>(std::io::Error::other("hung up")) });
    (StatusCode::OK, Body::from_stream(broken)).into_response()
}
