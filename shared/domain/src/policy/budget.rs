//! Which calls to GitHub may use the end of an account's hourly rate limit.

use jiff::{SignedDuration, Timestamp};

/// What is left of an account's rate limit for the current hour, as GitHub last reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Requests left.
    pub remaining: u64,
    /// Requests per hour.
    pub limit: u64,
}

/// The part of an account's hourly limit that reading lists may use. Registrations keep four fifths.
const LISTS_ONE_IN: i32 = 5;

/// GitHub's smallest hourly limit of an installation.
const SMALLEST_LIMIT: u64 = 5000;

/// How long an account that reads nothing saves its share.
const SAVED: SignedDuration = SignedDuration::from_mins(6);

/// How long it takes until an account's share has paid for one call: 3.6 s with the smallest limit.
pub fn price(budget: Option<Budget>) -> SignedDuration {
    let limit = budget.map_or(SMALLEST_LIMIT, |budget| budget.limit.max(1));
    SignedDuration::from_hours(1) * LISTS_ONE_IN / i32::try_from(limit).unwrap_or(i32::MAX)
}

/// The same for lists of runners. They use at most three fifths of the share; the rest is for searching repositories.
pub fn price_of_lists(budget: Option<Budget>) -> SignedDuration {
    price(budget) * 5 / 3
}

/// Whether an account's share pays for a search now. `paid_until` is what [`pay`] returned last.
pub fn may_search(paid_until: Option<Timestamp>, now: Timestamp) -> bool {
    paid_until.is_none_or(|paid| paid <= now)
}

/// Until when an account's share is used up, after calls that counted towards the hourly limit.
pub fn pay(paid_until: Option<Timestamp>, calls: u32, budget: Option<Budget>, now: Timestamp) -> Timestamp {
    let saved_from = now - SAVED;
    paid_until.unwrap_or(saved_from).max(saved_from) + price(budget) * i32::try_from(calls).unwrap_or(i32::MAX)
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
    fn an_account_spends_a_fifth_of_its_budget_on_lists_and_saves_a_little() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let mut paid = None;
        let mut calls = 0;
        for second in 0..3600 {
            let at = now + SignedDuration::from_secs(second);
            while may_search(paid, at) {
                paid = Some(pay(paid, 2, None, at));
                calls += 2;
            }
        }
        assert!((1000..=1104).contains(&calls), "a fifth of 5,000, and six minutes of savings: {calls}");
        let large = Some(Budget { remaining: 1, limit: 12_500 });
        assert_eq!(price(large), SignedDuration::from_millis(1440));
    }

    #[test]
    fn a_budget_is_scarce_below_a_fifth() {
        let left = |remaining| is_scarce(Some(Budget { remaining, limit: 5000 }));
        assert!(!left(1000));
        assert!(left(999) && left(0));
        assert!(!is_scarce(None), "GitHub has not reported a budget");
    }
}
