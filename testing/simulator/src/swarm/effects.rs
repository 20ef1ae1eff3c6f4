//! The calls of the ports by what they are for: the rows of the reach table.

use crate::steps::Side;

/// Every effect: what a function may end before or after.
pub const EFFECTS: &[&str] = &[
    "get",
    "query",
    "commit Recorded",
    "commit Checked",
    "commit Decided",
    "commit Refused",
    "commit Resumed",
    "commit Bound",
    "commit HandedOver",
    "commit Observed",
    "commit Stopped",
    "commit Unregistered",
    "commit Closed",
    "commit CircuitOpened",
    "commit Notified",
    "commit Rerun",
    "commit Swept",
    "commit Condemned",
    "commit Adopted",
    "commit quietly",
    "commit other",
    "RunInstances",
    "TerminateInstances",
    "DescribeInstances",
    "GetConsoleOutput",
    "generate-jitconfig",
    "list runners",
    "DELETE runner",
    "GET jobs of run",
    "GET job",
    "GET runs",
    "GET deliveries",
    "redeliver",
    "check run",
    "rerun",
    "nudge",
    "other",
];

fn place(name: &str) -> usize {
    EFFECTS.iter().position(|effect| *effect == name).expect("a name of the table above")
}

/// Which effect a call is, by its words.
pub fn effect_of(call: &str) -> usize {
    if let Some(what) = call.strip_prefix("commit ") {
        let what = what.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        if what.bytes().all(|byte| byte.is_ascii_digit()) {
            return place("commit quietly");
        }
        let known = EFFECTS.iter().position(|effect| effect.strip_prefix("commit ").is_some_and(|known| known == what));
        return known.unwrap_or_else(|| place("commit other"));
    }
    let known = EFFECTS.iter().position(|effect| !effect.starts_with("commit") && call.starts_with(effect));
    known.unwrap_or_else(|| place("other"))
}

/// How long it takes, from and to, in milliseconds.
pub(super) fn takes(effect: usize) -> (i64, i64) {
    match EFFECTS[effect] {
        "RunInstances" => (400, 3000),
        "TerminateInstances" | "DescribeInstances" | "GetConsoleOutput" => (100, 700),
        "generate-jitconfig" | "list runners" | "DELETE runner" | "GET job" | "GET jobs of run" | "GET runs"
        | "GET deliveries" | "redeliver" | "check run" | "rerun" | "other" => (100, 900),
        "nudge" => (5, 30),
        _ => (2, 15),
    }
}

/// How much more often a function ends there than at the most frequent calls, so that the rare ones are reached, too. What is
/// not done is tried again: an end before it is had several times, one after it once, and so is the likelier.
pub(super) fn weight(effect: usize, side: Side) -> f64 {
    let (before, after) = weights(effect);
    if side == Side::Before { before } else { after }
}

/// Whether it happens so seldom that storms alone would hardly ever interrupt it.
pub(super) fn is_rare(effect: usize) -> bool {
    weights(effect).1 > 2.0
}

fn weights(effect: usize) -> (f64, f64) {
    match EFFECTS[effect] {
        "get" | "query" | "commit quietly" => (0.5, 0.5),
        "commit Recorded" | "commit HandedOver" | "generate-jitconfig" | "GET job" => (1.0, 1.0),
        "list runners" | "commit Bound" | "commit Decided" | "commit Observed" | "RunInstances"
        | "DescribeInstances" => (2.0, 2.0),
        "GET deliveries" | "DELETE runner" | "nudge" => (5.0, 10.0),
        "GET jobs of run" | "check run" | "commit Notified" | "commit Stopped" | "commit Unregistered" => (16.0, 32.0),
        "commit Swept" | "redeliver" | "rerun" => (30.0, 60.0),
        "commit Resumed" => (40.0, 80.0),
        "commit Rerun" => (50.0, 300.0),
        "commit Adopted" => (30.0, 400.0),
        "commit CircuitOpened" | "commit Checked" | "commit Condemned" => (37.5, 300.0),
        _ => (8.0, 16.0),
    }
}
