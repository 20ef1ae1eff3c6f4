//! How many signatures were rejected, and when the next log line about them is due.

use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};

/// Time between two log lines about rejected signatures.
const LINE_EVERY: SignedDuration = SignedDuration::from_secs(10);

/// The rejected signatures of this process.
#[derive(Debug, Default)]
pub(crate) struct Rejections(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    /// Since the last line.
    unlogged: u64,
    line_at: Option<Timestamp>,
}

impl Rejections {
    /// Counts one. If a line is due, returns how many there were since the last line.
    pub(crate) fn add(&self, now: Timestamp) -> Option<u64> {
        let mut counted = self.0.lock().expect("no thread panics while it holds the lock");
        counted.unlogged += 1;
        let is_due = counted.line_at.is_none_or(|at| now.duration_since(at).abs() >= LINE_EVERY);
        is_due.then(|| {
            counted.line_at = Some(now);
            std::mem::take(&mut counted.unlogged)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds_counts_all_rejections() {
        let rejections = Rejections::default();
        let lines: Vec<u64> =
            (0..25_000).filter_map(|ms| rejections.add(Timestamp::from_millisecond(ms).unwrap())).collect();
        assert_eq!(lines, [1, 10_000, 10_000]);
    }
}
