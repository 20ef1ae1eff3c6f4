//! Where an engine under test stands still: before and after every call of a port.

use std::fmt::{Debug, Write};
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard};
use std::task::{Poll, Waker};

/// One call of a port, for traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call(pub String);

/// On which side of a call an invocation stands. A crash before it means that the call was never made; a crash after it
/// that its answer was never heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The call was not made yet.
    Before,
    /// It took effect.
    After,
}

/// Somebody stands at a call and waits to be let on.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// What lets him on.
    pub(crate) ticket: u64,
    /// On which side.
    pub(crate) side: Side,
    /// The call in words.
    pub(crate) call: String,
    /// Wakes the part of the invocation that waits.
    pub(crate) waker: Waker,
}

/// What happens at every call of a port.
#[derive(Debug, Default)]
pub struct Step {
    mode: Mutex<Mode>,
}

#[derive(Debug, Default)]
enum Mode {
    /// Nothing: the call is made.
    #[default]
    Through,
    /// It is written down, and whoever polls may stop before and after it.
    Recording(Vec<Call>),
    /// Whoever stands there waits for his ticket to be called.
    Scheduled(Desk),
}

#[derive(Debug, Default)]
struct Desk {
    last: u64,
    called: Option<u64>,
    arrivals: Vec<Arrival>,
    /// A digest of the last answer, if anybody wants to know.
    heard: Option<u64>,
}

/// What text comes to: FNV, which is the same everywhere and always.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl std::fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

impl Step {
    fn mode(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().expect("nobody panics while holding it")
    }

    /// From now on every call is written down, and the engine pauses before and after it.
    pub fn record(&self) {
        *self.mode() = Mode::Recording(Vec::new());
    }

    /// What was written down; ends the recording.
    pub fn recorded(&self) -> Vec<Call> {
        match std::mem::take(&mut *self.mode()) {
            Mode::Recording(calls) => calls,
            Mode::Through | Mode::Scheduled(_) => Vec::new(),
        }
    }

    /// From now on every call waits, before and after it, until [`Step::call`] lets it on.
    pub(crate) fn schedule(&self) {
        *self.mode() = Mode::Scheduled(Desk::default());
    }

    /// Who has come to stand at a call since this was last asked.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        match &mut *self.mode() {
            Mode::Scheduled(desk) => std::mem::take(&mut desk.arrivals),
            Mode::Through | Mode::Recording(_) => Vec::new(),
        }
    }

    /// Lets the holder of the ticket on, when it is polled next.
    pub(crate) fn call(&self, ticket: u64) {
        if let Mode::Scheduled(desk) = &mut *self.mode() {
            desk.called = Some(ticket);
        }
    }

    /// From now on it is known what every call was answered.
    pub(crate) fn listen(&self) {
        if let Mode::Scheduled(desk) = &mut *self.mode() {
            desk.heard = Some(0);
        }
    }

    /// A digest of what the last call was answered.
    pub(crate) fn heard(&self) -> u64 {
        match &*self.mode() {
            Mode::Scheduled(desk) => desk.heard.unwrap_or_default(),
            Mode::Through | Mode::Recording(_) => 0,
        }
    }

    fn hear(&self, answer: &impl Debug) {
        if let Mode::Scheduled(Desk { heard: Some(heard), .. }) = &mut *self.mode() {
            let mut digest = Digest::default();
            write!(digest, "{answer:?}").expect("a digest takes everything");
            *heard = digest.value();
        }
    }

    pub(crate) async fn around<T: Debug>(&self, call: impl FnOnce() -> String, act: impl FnOnce() -> T) -> T {
        let scheduled = match &mut *self.mode() {
            Mode::Through => return act(),
            Mode::Recording(calls) => {
                calls.push(Call(call()));
                None
            }
            Mode::Scheduled(_) => Some(call()),
        };
        match scheduled {
            None => {
                pause().await;
                let answer = act();
                pause().await;
                answer
            }
            Some(call) => {
                self.stand(Side::Before, call.clone()).await;
                let answer = act();
                self.hear(&answer);
                self.stand(Side::After, call).await;
                answer
            }
        }
    }

    /// Waits for a ticket of its own to be called.
    async fn stand(&self, side: Side, call: String) {
        let mut call = Some(call);
        let mut ticket = 0;
        poll_fn(|context| {
            let mut mode = self.mode();
            let Mode::Scheduled(desk) = &mut *mode else { return Poll::Ready(()) };
            if let Some(call) = call.take() {
                desk.last += 1;
                ticket = desk.last;
                desk.arrivals.push(Arrival { ticket, side, call, waker: context.waker().clone() });
            }
            if desk.called == Some(ticket) {
                desk.called = None;
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }
}

/// Gives way once.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
