//! The port of the queue.

use async_trait::async_trait;
use domain::ids::PoolName;
use domain::wire::{MESSAGE_VERSION, Message};
use engine::ports::{Queue, QueueError};
use jiff::SignedDuration;

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
