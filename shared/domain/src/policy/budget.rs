//! Which calls to GitHub may use the end of an account's hourly rate limit.

/// What is left of an account's rate limit for the current hour, as GitHub last reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Requests left.
    pub remaining: u64,
    /// Requests per hour.
    pub limit: u64,
}

/// The last fifth of the hour's requests is reserved for registering and removing runners.
const RESERVED_ONE_IN: u64 = 5;

/// Whether only calls that jobs depend on may be made. False before GitHub has reported a budget.
pub fn is_scarce(budget: Option<Budget>) -> bool {
    budget.is_some_and(|budget| budget.remaining.saturating_mul(RESERVED_ONE_IN) < budget.limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_scarce_below_a_fifth() {
        let left = |remaining| is_scarce(Some(Budget { remaining, limit: 5000 }));
        assert!(!left(1000));
        assert!(left(999) && left(0));
        assert!(!is_scarce(None), "GitHub has not reported a budget");
    }
}
