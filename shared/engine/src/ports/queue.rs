//! The queue that feeds the scaler.

use async_trait::async_trait;
use domain::ids::PoolName;
use jiff::SignedDuration;

use crate::ports::source::Source;

/// What the engine writes to the queue.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Sends a message that makes the scaler reconcile a pool after a delay. SQS delays a message by at most 15 minutes.
    async fn nudge(&self, pool: &PoolName, after: SignedDuration) -> Result<(), QueueError>;
}

/// The queue did not confirm a call. A message may have been sent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot use the queue: {message}")]
pub struct QueueError {
    pub message: String,
    pub source: Option<Source>,
}

impl QueueError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }
}
