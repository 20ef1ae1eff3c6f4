//! Token buckets, which is how AWS publishes its request limits.

use jiff::Timestamp;

/// A bucket of `size` tokens which fills at a steady rate.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    size: f64,
    per_second: f64,
    level: f64,
    seen: Option<Timestamp>,
}

impl Bucket {
    pub(crate) fn new(size: f64, per_second: f64) -> Self {
        Self { size, per_second, level: size, seen: None }
    }

    /// Takes `amount` tokens, or none.
    pub(crate) fn take(&mut self, amount: f64, now: Timestamp) -> bool {
        if let Some(seen) = self.seen {
            let passed = now.duration_since(seen).as_secs_f64().max(0.0);
            self.level = (self.level + passed * self.per_second).min(self.size);
        }
        self.seen = Some(self.seen.map_or(now, |seen| seen.max(now)));
        let enough = self.level >= amount;
        if enough {
            self.level -= amount;
        }
        enough
    }
}
