//! Where an engine under test can be held up: before and after every call of a port.

use std::fmt::{Debug, Write};
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard};
use std::task::{Poll, Waker};

use crate::call::Call;
use crate::digest::Digest;

/// The side of a call on which an invocation is held up. After a crash before the call, the call was never made; after a
/// crash after the call, the call took effect and its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Before,
    After,
}

/// A part of an invocation that has come to a call and waits to be released.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Releases it, see [`Steps::release`].
    pub(crate) ticket: u64,
    pub(crate) side: Side,
    pub(crate) call: Call,
    pub(crate) waker: Waker,
}

/// What happens at every call of a port.
#[derive(Debug, Default)]
pub struct Steps {
    mode: Mutex<Mode>,
}

#[derive(Debug, Default)]
enum Mode {
    /// Nothing: the call is made at once.
    #[default]
    Immediate,
    /// Every call is written down and yields once before and once after it, so that the caller may stop polling there.
    Recording(Vec<Call>),
    /// Every call waits until its ticket is released.
    Scheduled(Schedule),
}

#[derive(Debug, Default)]
struct Schedule {
    last_ticket: u64,
    released: Option<u64>,
    arrivals: Vec<Arrival>,
    /// A digest of the last answer; None if answers are not digested.
    answer: Option<u64>,
    /// The calls that were made and their answers, as text; None if they are not kept.
    told: Option<Vec<(Call, String)>>,
}

impl Steps {
    fn mode(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().expect("no thread panics while it holds the lock")
    }

    /// Starts to write down every call. The engine yields before and after each.
    pub fn record(&self) {
        *self.mode() = Mode::Recording(Vec::new());
    }

    /// Ends the recording and returns the calls.
    pub fn recorded(&self) -> Vec<Call> {
        match std::mem::take(&mut *self.mode()) {
            Mode::Recording(calls) => calls,
            Mode::Immediate | Mode::Scheduled(_) => Vec::new(),
        }
    }

    /// From now on every call waits before and after it until [`Steps::release`].
    pub(crate) fn schedule(&self) {
        *self.mode() = Mode::Scheduled(Schedule::default());
    }

    /// From now on every call is made at once.
    pub(crate) fn at_once(&self) {
        *self.mode() = Mode::Immediate;
    }

    /// Takes the parts of invocations that have come to a call.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        match &mut *self.mode() {
            Mode::Scheduled(schedule) => std::mem::take(&mut schedule.arrivals),
            Mode::Immediate | Mode::Recording(_) => Vec::new(),
        }
    }

    /// Lets the holder of the ticket go on when it is polled next.
    pub(crate) fn release(&self, ticket: u64) {
        if let Mode::Scheduled(schedule) = &mut *self.mode() {
            schedule.released = Some(ticket);
        }
    }

    /// From now on answers are digested.
    pub(crate) fn digest_answers(&self) {
        if let Mode::Scheduled(schedule) = &mut *self.mode() {
            schedule.answer = Some(0);
        }
    }

    /// A digest of the answer to the last call.
    pub(crate) fn answer(&self) -> u64 {
        match &*self.mode() {
            Mode::Scheduled(schedule) => schedule.answer.unwrap_or_default(),
            Mode::Immediate | Mode::Recording(_) => 0,
        }
    }

    /// From now on calls and answers are kept as text.
    pub(crate) fn keep_answers(&self) {
        if let Mode::Scheduled(schedule) = &mut *self.mode() {
            schedule.told = Some(Vec::new());
        }
    }

    /// Takes the calls that were made since the last time, with their answers.
    pub(crate) fn take_answers(&self) -> Vec<(Call, String)> {
        match &mut *self.mode() {
            Mode::Scheduled(Schedule { told: Some(told), .. }) => std::mem::take(told),
            Mode::Scheduled(_) | Mode::Immediate | Mode::Recording(_) => Vec::new(),
        }
    }

    fn note(&self, call: &Call, answer: &impl Debug) {
        let Mode::Scheduled(schedule) = &mut *self.mode() else { return };
        if let Some(last) = &mut schedule.answer {
            let mut digest = Digest::default();
            write!(digest, "{answer:?}").expect("writing to a digest does not fail");
            *last = digest.value();
        }
        if let Some(told) = &mut schedule.told {
            told.push((call.clone(), format!("{answer:?}")));
        }
    }

    /// Makes a call, held up before and after it as the mode says.
    pub(crate) async fn around<T: Debug>(&self, call: impl FnOnce() -> Call, make: impl FnOnce() -> T) -> T {
        let scheduled = match &mut *self.mode() {
            Mode::Immediate => return make(),
            Mode::Recording(calls) => {
                calls.push(call());
                None
            }
            Mode::Scheduled(_) => Some(call()),
        };
        match scheduled {
            None => {
                yield_once().await;
                let answer = make();
                yield_once().await;
                answer
            }
            Some(call) => {
                self.wait(Side::Before, call.clone()).await;
                let answer = make();
                self.note(&call, &answer);
                self.wait(Side::After, call).await;
                answer
            }
        }
    }

    /// Takes a ticket and waits for its release.
    async fn wait(&self, side: Side, call: Call) {
        let mut call = Some(call);
        let mut ticket = 0;
        poll_fn(|context| {
            let mut mode = self.mode();
            let Mode::Scheduled(schedule) = &mut *mode else { return Poll::Ready(()) };
            if let Some(call) = call.take() {
                schedule.last_ticket += 1;
                ticket = schedule.last_ticket;
                schedule.arrivals.push(Arrival { ticket, side, call, waker: context.waker().clone() });
            }
            if schedule.released == Some(ticket) {
                schedule.released = None;
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
