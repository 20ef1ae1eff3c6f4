//! The queue that feeds the scaler.

use async_trait::async_trait;
use domain::ids::PoolName;
use jiff::SignedDuration;

use super::ErrorKind;

/// The queue, as far as the engine writes to it.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Asks for another look at a pool, so long from now (SQS: at most 15 minutes).
    async fn nudge(&self, pool: &PoolName, after: SignedDuration) -> Result<(), QueueError>;
}

/// The queue did not take it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot use the queue: {message}")]
pub struct QueueError {
    /// What is in the way.
    pub trouble: ErrorKind,
    /// In words.
    pub message: String,
}

impl QueueError {
    /// With a [`ErrorKind::Away`].
    pub fn away(message: impl Into<String>) -> Self {
        Self { trouble: ErrorKind::Away, message: message.into() }
    }
}
