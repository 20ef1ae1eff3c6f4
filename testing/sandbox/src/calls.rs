//! Counts every request to an emulated service. A test can also trace the requests of a process and kill it at one of
//! them, or lose the answer to one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{AddAssign, Range};
use std::sync::Mutex;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::permissions::Caller;

/// The number of calls, by service and operation.
pub type Counts = BTreeMap<(&'static str, String), u64>;

/// When the traced process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// Never, only trace its calls.
    Never,
    /// Before the call with this index takes effect.
    Before(usize),
    /// After the call with this index took effect, before its answer arrives.
    After(usize),
}

#[derive(Debug, Default)]
struct Inner {
    counts: Counts,
    /// Calls answered with an HTTP status from 400 on.
    refused: Counts,
    /// IAM actions of the calls of each role, if its policies allow them.
    actions: BTreeMap<&'static str, BTreeSet<String>>,
    trace: Option<Trace>,
    /// How many answers are still to be lost.
    to_lose: Counts,
    /// The started processes, by session token.
    processes: BTreeMap<String, u32>,
    chaos: Option<Chaos>,
    /// None unless it is measured.
    capacity: Option<Capacity>,
    /// The role whose capacity is measured. None for all callers.
    measured: Option<&'static str>,
    /// What was written while the capacity was measured, by kind of item.
    written: BTreeMap<String, Written>,
}

/// Items of one kind that were written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// How often one was put.
    pub puts: u64,
    /// The size of all of these, in bytes, as DynamoDB counts it.
    pub bytes: u64,
    /// How often one was deleted.
    pub deletes: u64,
}

impl AddAssign for Written {
    fn add_assign(&mut self, more: Self) {
        self.puts += more.puts;
        self.bytes += more.bytes;
        self.deletes += more.deletes;
    }
}

/// DynamoDB's capacity units.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Capacity {
    /// Of up to 4 KB each, in a consistent read.
    pub read: f64,
    /// Of up to 1 KB each; in a transaction each write takes two.
    pub write: f64,
}

/// The size of an item in bytes: names and values, as the page "DynamoDB item sizes and formats" of AWS's guide describes it.
fn item_size(item: &Value) -> u64 {
    let attributes = item.as_object().into_iter().flatten();
    attributes.map(|(name, value)| name.len() as u64 + value_size(value)).sum()
}

fn value_size(value: &Value) -> u64 {
    let Some((kind, value)) = value.as_object().and_then(|value| value.iter().next()) else { return 0 };
    match (kind.as_str(), value) {
        ("S", Value::String(text)) => text.len() as u64,
        // One byte for two digits, and one more.
        ("N", Value::String(number)) => number.trim_start_matches('-').len().div_ceil(2) as u64 + 1,
        ("L", Value::Array(values)) => 3 + values.iter().map(|value| 1 + value_size(value)).sum::<u64>(),
        ("M", Value::Object(values)) => {
            3 + values.iter().map(|(name, value)| 1 + name.len() as u64 + value_size(value)).sum::<u64>()
        }
        _ => 1,
    }
}

/// Kills that come at random calls.
#[derive(Debug)]
struct Chaos {
    random: SmallRng,
    /// The number of calls until the next kill.
    next_in: u32,
    between: Range<u32>,
    kills_left: usize,
    kills: usize,
}

/// The number of calls between two kills. A function must get some work done, and the shortest demo makes more calls.
pub const CALLS_BETWEEN_KILLS: Range<u32> = 10..60;

#[derive(Debug)]
struct Trace {
    role: &'static str,
    process: u32,
    kill: Kill,
    calls: Vec<String>,
}

/// The counts and the trace.
#[derive(Debug, Default)]
pub struct Calls(Mutex<Inner>);

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answer,
    LoseAnswer,
    DieBefore(u32),
    DieAfter(u32),
}

impl Calls {
    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.0.lock().expect("nobody panics while holding it").counts.clone()
    }

    /// The calls so far that were answered with an HTTP status from 400 on.
    pub fn refused(&self) -> Counts {
        self.0.lock().expect("nobody panics while holding it").refused.clone()
    }

    /// The IAM actions that a role has used so far.
    pub fn actions(&self, role: &str) -> BTreeSet<String> {
        self.0.lock().expect("nobody panics while holding it").actions.get(role).cloned().unwrap_or_default()
    }

    pub(crate) fn record_actions(&self, role: &'static str, actions: impl Iterator<Item = String>) {
        self.0.lock().expect("nobody panics while holding it").actions.entry(role).or_default().extend(actions);
    }

    /// Starts to trace the calls of a process, and kills it at the given call.
    pub fn trace(&self, role: &'static str, process: u32, kill: Kill) {
        let trace = Trace { role, process, kill, calls: Vec::new() };
        self.0.lock().expect("nobody panics while holding it").trace = Some(trace);
    }

    /// Ends the trace and returns its calls, for example `EC2 RunInstances`.
    pub fn traced(&self) -> Vec<String> {
        let trace = self.0.lock().expect("nobody panics while holding it").trace.take();
        trace.map(|trace| trace.calls).unwrap_or_default()
    }

    /// Starts to measure the capacity that DynamoDB consumes.
    pub fn measure_capacity(&self) {
        self.measure(None);
    }

    /// Starts to measure the capacity that DynamoDB consumes for calls of this role.
    pub fn measure_capacity_of(&self, role: &'static str) {
        self.measure(Some(role));
    }

    fn measure(&self, role: Option<&'static str>) {
        let mut inner = self.0.lock().expect("nobody panics while holding it");
        inner.measured = role;
        inner.capacity = Some(Capacity::default());
        inner.written.clear();
    }

    /// The items written since [`Self::measure_capacity`], by kind.
    pub fn written(&self) -> BTreeMap<String, Written> {
        self.0.lock().expect("nobody panics while holding it").written.clone()
    }

    /// Notes the items of a request that DynamoDB has answered.
    pub(crate) fn wrote(&self, request: &Value) {
        let mut inner = self.0.lock().expect("nobody panics while holding it");
        let kind = |key: &Value| {
            let beginning =
                |part: &str| key[part]["S"].as_str().unwrap_or_default().split('#').next().unwrap_or_default();
            match (beginning("pk"), beginning("sk")) {
                ("POOL", sk) => format!("POOL {sk}"),
                (_, "") => "boot item".to_owned(),
                (pk, _) => pk.to_owned(),
            }
        };
        for part in request["TransactItems"].as_array().into_iter().flatten() {
            if part["Put"].is_object() {
                let item = &part["Put"]["Item"];
                let written = inner.written.entry(kind(item)).or_default();
                written.puts += 1;
                written.bytes += item_size(item);
            } else if part["Delete"].is_object() {
                inner.written.entry(kind(&part["Delete"]["Key"])).or_default().deletes += 1;
            }
        }
    }

    /// The capacity consumed since [`Self::measure_capacity`]. None if it is not measured.
    pub fn capacity(&self) -> Option<Capacity> {
        self.0.lock().expect("nobody panics while holding it").capacity
    }

    /// Whether calls of this caller are measured.
    pub(crate) fn measures(&self, caller: &Caller) -> bool {
        let inner = self.0.lock().expect("nobody panics while holding it");
        inner.capacity.is_some() && inner.measured.is_none_or(|role| *caller == Caller::Role(role))
    }

    pub(crate) fn consumed(&self, operation: &str, units: f64) {
        let mut inner = self.0.lock().expect("nobody panics while holding it");
        let Some(capacity) = &mut inner.capacity else { return };
        match operation {
            "GetItem" | "BatchGetItem" | "Query" | "Scan" | "TransactGetItems" => capacity.read += units,
            _ => capacity.write += units,
        }
    }

    /// The started processes of a function.
    pub fn processes(&self, function: &str) -> Vec<u32> {
        let inner = self.0.lock().expect("nobody panics while holding it");
        let of_function = |token: &str| token.rsplit_once('-').is_some_and(|(name, _)| name == function);
        inner.processes.iter().filter(|(token, _)| of_function(token)).map(|(_, process)| *process).collect()
    }

    /// Registers a started process, which signs with this session token.
    pub(crate) fn started(&self, token: String, process: u32) {
        self.0.lock().expect("nobody panics while holding it").processes.insert(token, process);
    }

    /// Starts to kill processes at random calls, up to this number of kills and with this number of calls between two. With 0 kills,
    /// the killing ends.
    pub fn kill_at_random_calls(&self, seed: u64, times: usize, between: Range<u32>) {
        let mut random = SmallRng::seed_from_u64(seed);
        let next_in = random.random_range(between.clone());
        let mut inner = self.0.lock().expect("nobody panics while holding it");
        let kills = inner.chaos.as_ref().map_or(0, |chaos| chaos.kills);
        inner.chaos = Some(Chaos { random, next_in, between, kills_left: times, kills });
    }

    /// The number of processes killed at random calls.
    pub fn killed(&self) -> usize {
        self.0.lock().expect("nobody panics while holding it").chaos.as_ref().map_or(0, |chaos| chaos.kills)
    }

    /// The next calls of this kind take effect, but their caller gets no answer.
    pub fn lose_answers(&self, service: &'static str, operation: &str, times: u64) {
        let mut inner = self.0.lock().expect("nobody panics while holding it");
        inner.to_lose.insert((service, operation.to_owned()), times);
    }

    fn begin(&self, caller: &Caller, token: &str, service: &'static str, operation: &str) -> Fate {
        let mut inner = self.0.lock().expect("nobody panics while holding it");
        *inner.counts.entry((service, operation.to_owned())).or_default() += 1;
        if let Some(left @ 1..) = inner.to_lose.get_mut(&(service, operation.to_owned())) {
            *left -= 1;
            return Fate::LoseAnswer;
        }
        let process = inner.processes.get(token).copied();
        if let (Some(chaos), Some(process)) = (&mut inner.chaos, process)
            && chaos.kills_left > 0
        {
            chaos.next_in -= 1;
            if chaos.next_in == 0 {
                chaos.next_in = chaos.random.random_range(chaos.between.clone());
                chaos.kills_left -= 1;
                chaos.kills += 1;
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

    /// Counts a call and answers it, or kills its caller. `token` is the session token of the signature, or empty.
    pub(crate) async fn answer(
        &self,
        caller: &Caller,
        token: &str,
        service: &'static str,
        operation: &str,
        answer: impl Future<Output = Response>,
    ) -> Response {
        match self.begin(caller, token, service, operation) {
            Fate::Answer => {
                let answer = answer.await;
                if answer.status().as_u16() >= 400 {
                    let mut inner = self.0.lock().expect("nobody panics while holding it");
                    *inner.refused.entry((service, operation.to_owned())).or_default() += 1;
                }
                answer
            }
            Fate::LoseAnswer => {
                drop(answer.await);
                hang_up()
            }
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

/// Kills a process, which may have ended by itself.
fn end(process: u32) {
    let _ = kill(Pid::from_raw(process.cast_signed()), Signal::SIGKILL);
}

/// An answer that breaks off, which the caller treats as no answer.
pub(crate) fn hang_up() -> Response {
    let broken = futures::stream::once(async { Err::<String, _>(std::io::Error::other("hung up")) });
    (StatusCode::OK, Body::from_stream(broken)).into_response()
}
