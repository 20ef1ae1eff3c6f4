//! How GitHub refuses.

use jiff::Timestamp;

/// Why a call brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// 401.
    #[error("bad credentials")]
    Unauthorized,
    /// 403: the credentials are good, but not for this.
    #[error("{0}")]
    Forbidden(String),
    /// 404.
    #[error("not found")]
    NotFound,
    /// 409.
    #[error("{0}")]
    Conflict(String),
    /// 422.
    #[error("{0}")]
    Unprocessable(String),
    /// 403 with `x-ratelimit-remaining: 0`.
    #[error("API rate limit exceeded")]
    PrimaryLimit {
        /// When requests are allowed again.
        reset: Timestamp,
    },
    /// 403 with `retry-after`.
    #[error("you have exceeded a secondary rate limit")]
    SecondaryLimit {
        /// When to try again.
        until: Timestamp,
    },
    /// GitHub broke, with this status.
    #[error("GitHub answered {0}")]
    Broken(u16),
    /// The caller gets no answer at all: the driver must drop the connection.
    #[error("the reply was lost")]
    NoReply,
}

impl Failure {
    /// The HTTP status of the answer; none when there is no answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Failure::Unauthorized => Some(401),
            Failure::Forbidden(_) | Failure::PrimaryLimit { .. } | Failure::SecondaryLimit { .. } => Some(403),
            Failure::NotFound => Some(404),
            Failure::Conflict(_) => Some(409),
            Failure::Unprocessable(_) => Some(422),
            Failure::Broken(status) => Some(*status),
            Failure::NoReply => None,
        }
    }
}
