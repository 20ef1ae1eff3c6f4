//! Errors of GitHub's API.

use jiff::Timestamp;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// 401.
    #[error("bad credentials")]
    Unauthorized,
    /// 403: the credentials are valid, but do not allow this.
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
        /// When the limit is reset.
        reset: Timestamp,
    },
    /// 403 with `retry-after`.
    #[error("you have exceeded a secondary rate limit")]
    SecondaryLimit {
        /// When the limit ends.
        until: Timestamp,
    },
    /// GitHub answered with only a status.
    #[error("GitHub answered {0}")]
    Broken(u16),
    /// The caller gets no answer, so the driver must drop the connection.
    #[error("the reply was lost")]
    NoReply,
}

impl Failure {
    /// The HTTP status of the answer; `None` if there is no answer.
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
