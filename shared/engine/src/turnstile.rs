//! Lets a few callers through at a time, in turn between the pools that they belong to.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};

use domain::ids::PoolName;
use futures::channel::oneshot::{Sender, channel};

/// At most `room` callers are inside. A waiting caller is let in when another leaves: the pools take turns, and within a
/// pool callers keep their order.
#[derive(Debug)]
pub(crate) struct Turnstile {
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    room: usize,
    /// The pool that was let in last.
    last: Option<PoolName>,
    waiting: BTreeMap<PoolName, VecDeque<Sender<()>>>,
}

/// A caller inside. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Inside<'a>(&'a Turnstile);

impl Turnstile {
    pub(crate) fn new(room: usize) -> Self {
        Self { queue: Mutex::new(Queue { room, last: None, waiting: BTreeMap::new() }) }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no thread panics while it holds the lock")
    }

    /// Waits for the pool's turn.
    pub(crate) async fn enter(&self, pool: &PoolName) -> Inside<'_> {
        let turn = {
            let mut queue = self.queue();
            if queue.room > 0 {
                queue.room -= 1;
                queue.last = Some(pool.clone());
                None
            } else {
                let (sender, turn) = channel();
                queue.waiting.entry(pool.clone()).or_default().push_back(sender);
                Some(turn)
            }
        };
        if let Some(turn) = turn {
            // The sender is dropped only with the turnstile.
            let _ = turn.await;
        }
        Inside(self)
    }
}

impl Queue {
    /// Takes the caller whose turn it is: the first one of the next pool after the last.
    fn next(&mut self) -> Option<Sender<()>> {
        let after = match &self.last {
            Some(last) => (Bound::Excluded(last.clone()), Bound::Unbounded),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let pool = self.waiting.range(after).chain(self.waiting.iter()).map(|(pool, _)| pool.clone()).next()?;
        let callers = self.waiting.get_mut(&pool)?;
        let next = callers.pop_front();
        if callers.is_empty() {
            self.waiting.remove(&pool);
        }
        self.last = Some(pool);
        next
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        // A caller that has stopped waiting is passed over.
        while let Some(next) = queue.next() {
            if next.send(()).is_ok() {
                return;
            }
        }
        queue.room += 1;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn pools_take_turns_and_a_pool_with_many_callers_does_not_delay_another() {
        let turnstile = Turnstile::new(1);
        let (large, small): (PoolName, PoolName) = ("large".parse().unwrap(), "small".parse().unwrap());
        let first = turnstile.enter(&large).now_or_never().expect("there is room");
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(turnstile.enter(&large))).collect();
        let mut other = Box::pin(turnstile.enter(&small));
        assert!(waiting.iter_mut().all(|caller| caller.now_or_never().is_none()));
        assert!((&mut other).now_or_never().is_none());
        drop(first);
        let other = (&mut other).now_or_never().expect("the other pool's turn");
        assert!((&mut waiting[0]).now_or_never().is_none());
        drop(other);
        assert!((&mut waiting[0]).now_or_never().is_some(), "then the first pool's again, in order");
    }
}
