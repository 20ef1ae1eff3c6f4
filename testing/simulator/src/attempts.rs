//! S9: what may follow from EC2's answers to one attempt of a launch.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use domain::ids::BatchTag;
use domain::log::{Transaction, What};
use domain::state::{Batch, Item};
use jiff::{SignedDuration, Timestamp};
use world::ec2::Code;

/// The pools of a simulated world all have the default `confirm_gap`.
const CONFIRM_GAP: SignedDuration = SignedDuration::from_secs(60);

/// The answers to each attempt, as far as an invocation learned them.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<BTreeMap<BatchTag, Attempt>>);

#[derive(Debug, Default)]
struct Attempt {
    calls: u32,
    /// The last answer was a refusal that EC2 would repeat.
    refused: bool,
    /// A call may have launched something although its answer does not say so.
    unanswered: bool,
    /// When the first and the last look-up since the last unanswered call found nothing.
    missing: Option<(Timestamp, Timestamp)>,
}

impl Attempts {
    fn all(&self) -> MutexGuard<'_, BTreeMap<BatchTag, Attempt>> {
        self.0.lock().expect("no thread panics while it holds the lock")
    }

    /// EC2 answered RunInstances; `code` is None if it launched instances.
    pub(crate) fn answered(&self, tag: &BatchTag, code: Option<&str>) {
        let code = code.map(|code| Code::ALL.iter().find(|known| known.as_str() == code).copied());
        let mut all = self.all();
        let attempt = all.entry(tag.clone()).or_default();
        attempt.calls += 1;
        attempt.refused = code.flatten().is_some_and(is_refusal);
        match code {
            Some(Some(code)) if is_used_token(code) => attempt.unanswered = true,
            Some(code) if code.is_none_or(|code| matches!(code, Code::InternalError | Code::Unavailable)) => {
                attempt.unanswered = true;
                attempt.missing = None;
            }
            Some(_) | None => {}
        }
    }

    /// A look-up by the attempt's tag found nothing.
    pub(crate) fn found_nothing(&self, tag: &BatchTag, at: Timestamp) {
        let mut all = self.all();
        let attempt = all.entry(tag.clone()).or_default();
        attempt.missing = Some(attempt.missing.map_or((at, at), |(first, _)| (first, at)));
    }

    /// What is wrong with a write to a batch, `before` it was written.
    /// The look-ups may be closer together by as much as the clocks of functions differ.
    pub(crate) fn check(
        &self,
        before: &Item,
        transaction: &Transaction,
        clocks_differ_by: SignedDuration,
    ) -> Option<String> {
        let Item::Batch(before) = before else { return None };
        let all = self.all();
        let attempt = all.get(&before.tag())?;
        let after = transaction.puts.iter().find_map(|item| match item {
            Item::Batch(after) if after.version == before.version && after.pool == before.pool => Some(after),
            _ => None,
        });
        // Only the invocation that made the last call can have written this.
        let put_off = |after: &Batch| after.attempt == before.attempt && after.lease.tries == before.lease.tries;
        let calls = before.lease.tries;
        // A failed table or an old version may have lost the other answers.
        let is_clear = before.answered + 1 == calls && attempt.calls == calls && !attempt.unanswered;
        if after.is_some_and(put_off) && is_clear && attempt.refused {
            return Some(format!("S9: {} was refused, and counts as perhaps launched", before.tag()));
        }
        let is_given_up = after.is_none_or(|after| after.attempt > before.attempt);
        let refused = transaction.event.as_ref().is_some_and(|event| matches!(event.what, What::Refused { .. }));
        let gap = CONFIRM_GAP - clocks_differ_by;
        let is_certain = attempt.missing.is_some_and(|(first, last)| last.duration_since(first) >= gap);
        (is_given_up && refused && attempt.unanswered && !is_certain)
            .then(|| format!("S9: {} was given up, although a call without an answer may have launched", before.tag()))
    }
}

/// A complete 4xx answer that is neither about the rate of calls, nor about the caller or the token.
fn is_refusal(code: Code) -> bool {
    let is_other = matches!(code, Code::Throttling | Code::RequestExpired | Code::AuthFailure) || is_used_token(code);
    (400..500).contains(&code.status()) && !is_other
}

/// An earlier call with the token may have launched machines.
fn is_used_token(code: Code) -> bool {
    matches!(code, Code::IdempotentParameterMismatch | Code::IdempotentInstanceTerminated)
}
