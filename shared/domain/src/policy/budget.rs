//! Which calls to GitHub may use the end of an account's hourly rate limit.

use jiff::{SignedDuration, Timestamp};

/// What is left of an account's rate limit for the current hour, as GitHub last reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Requests left.
    pub remaining: u64,
    /// Requests per hour.
    pub limit: u64,
    /// When GitHub restores the full limit.
    pub reset: Timestamp,
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

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// The last fifth of the hour's requests is reserved for registering and removing runners.
const RESERVED_PERCENT: u64 = 20;

/// Questions, and the ends of check runs, leave this much more, in proportion to the rest of the hour.
const LEFT_BY_QUESTIONS_PERCENT: u64 = 40;

/// Calls that no machine waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Optional {
    /// The check run that tells an author why the job waits.
    Notice,
    /// The end of such a check run. The jobs of a burst start within minutes, and each may have one.
    Closing,
    /// A search for jobs of which no webhook came. Searches have a share of their own ([`pay`]).
    Search,
    /// A question about an open job, which most likely still waits. Those about a long queue would use up in
    /// half an hour what runners and authors need in the second half.
    Question,
}

/// Whether so little of the hour's budget is left that these calls must not be made. False before GitHub has reported a budget.
pub fn is_scarce(budget: Option<Budget>, calls: Optional, now: Timestamp) -> bool {
    budget.is_some_and(|budget| {
        let rest = budget.reset.duration_since(now).clamp(SignedDuration::ZERO, HOUR).as_secs().unsigned_abs();
        let percent = match calls {
            Optional::Notice | Optional::Search => RESERVED_PERCENT,
            Optional::Question | Optional::Closing => {
                RESERVED_PERCENT + LEFT_BY_QUESTIONS_PERCENT * rest / HOUR.as_secs().unsigned_abs()
            }
        };
        budget.remaining.saturating_mul(100) < budget.limit.saturating_mul(percent)
    })
}

/// Whether enough of the hour's budget is left to search known repositories beyond the share: as much as questions leave. A job of
/// which no webhook came is not served before a search finds it, and one that is asked about most likely still waits. After a table
/// is lost, the jobs of several hundred runs must be found, and the share pays for a thousand calls per hour.
pub fn is_ample(budget: Option<Budget>, now: Timestamp) -> bool {
    budget.is_some() && !is_scarce(budget, Optional::Question, now)
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
        let large = Some(Budget { remaining: 1, limit: 12_500, reset: now });
        assert_eq!(price(large), SignedDuration::from_millis(1440));
    }

    #[test]
    fn notices_leave_a_fifth_of_a_budget_and_questions_three_fifths_until_the_hour_ends() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let least = |calls, minutes| {
            let reset = now + SignedDuration::from_mins(minutes);
            let budget = |remaining| Some(Budget { remaining, limit: 5000, reset });
            (0..=5000).find(|remaining| !is_scarce(budget(*remaining), calls, now)).unwrap()
        };
        assert_eq!([60, 30, 0].map(|minutes| least(Optional::Question, minutes)), [3000, 2000, 1000]);
        assert_eq!([60, 30, 0].map(|minutes| least(Optional::Notice, minutes)), [1000, 1000, 1000]);
        assert!(!is_scarce(None, Optional::Question, now), "GitHub has not reported a budget");
    }

    #[test]
    fn known_repositories_are_searched_beyond_the_share_as_long_as_questions_are_asked() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let least = |minutes| {
            let reset = now + SignedDuration::from_mins(minutes);
            (0..=5000)
                .find(|remaining| is_ample(Some(Budget { remaining: *remaining, limit: 5000, reset }), now))
                .unwrap()
        };
        assert_eq!([60, 30, 0].map(least), [3000, 2000, 1000]);
        assert!(!is_ample(None, now), "GitHub has not reported a budget");
    }
}
