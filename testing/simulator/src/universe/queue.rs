//! The ports of the queue and the clock.

use async_trait::async_trait;
use domain::ids::PoolName;
use domain::wire::{MESSAGE_VERSION, Message};
use engine::ports::{Clock, Queue, QueueError};
use jiff::{SignedDuration, Timestamp};

use crate::call::Call;
use crate::universe::Universe;

#[async_trait]
impl Queue for Universe {
    async fn nudge(&self, pool: &PoolName, after: SignedDuration) -> Result<(), QueueError> {
        let send = || {
            let mut state = self.state();
            if std::mem::take(&mut state.queue_fault) {
                return Err(QueueError::new("no reply"));
            }
            let at = state.now + after;
            state.messages.push_back((at, Message::Nudge { v: MESSAGE_VERSION, pool: pool.clone() }));
            Ok(())
        };
        self.steps.around(|| Call::Nudge(pool.clone()), send).await
    }
}

#[async_trait]
impl Clock for Universe {
    fn now(&self) -> Timestamp {
        Universe::now(self)
    }

    /// Never returns: the simulator ends invocations that take too long.
    async fn sleep_until(&self, _: Timestamp) {
        std::future::pending().await
    }
}
