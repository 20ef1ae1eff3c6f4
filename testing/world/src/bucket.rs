//! Token buckets: the form in which AWS publishes its request limits.

use jiff::Timestamp;

/// A bucket of `size` tokens that refills at a constant rate.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    size: f64,
    per_second: f64,
    level: f64,
    refilled_at: Option<Timestamp>,
}

impl Bucket {
    pub(crate) fn new(size: f64, per_second: f64) -> Self {
        Self { size, per_second, level: size, refilled_at: None }
    }

    /// Takes `amount` tokens if the bucket has as many. Returns whether it has.
    pub(crate) fn take(&mut self, amount: f64, now: Timestamp) -> bool {
        if let Some(refilled_at) = self.refilled_at {
            let passed = now.duration_since(refilled_at).as_secs_f64().max(0.0);
            self.level = (self.level + passed * self.per_second).min(self.size);
        }
        self.refilled_at = Some(self.refilled_at.map_or(now, |before| before.max(now)));
        let enough = self.level >= amount;
        if enough {
            self.level -= amount;
        }
        enough
    }
}
