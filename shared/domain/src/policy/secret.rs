//! How often a secret may be read.

use jiff::{SignedDuration, Timestamp};

/// The shortest time between two reads of one secret by one process, whether or not the first one succeeded. Without it, a
/// flood of forged signatures or of refused calls would become a flood of calls to Secrets Manager.
pub const MIN_READ_INTERVAL: SignedDuration = SignedDuration::from_secs(10);

/// Whether a process that began its last read at that time may read the secret now. A clock that was set back does not
/// stop the reads.
pub fn may_read(last_read_at: Option<Timestamp>, now: Timestamp) -> bool {
    last_read_at.is_none_or(|at| now.duration_since(at).abs() >= MIN_READ_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_at_most_once_in_ten_seconds() {
        let at = |seconds| Timestamp::from_second(1_000 + seconds).unwrap();
        assert!(may_read(None, at(0)));
        let allowed: Vec<i64> = (0..30).filter(|seconds| may_read(Some(at(0)), at(*seconds))).collect();
        assert_eq!(allowed, (10..30).collect::<Vec<_>>());
        assert!(may_read(Some(at(0)), at(-3600)), "the clock was set back by an hour");
    }
}
