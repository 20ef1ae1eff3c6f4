//! What is left of each account's rate limit.

use std::collections::HashMap;
use std::sync::Mutex;

use domain::ids::Owner;
use engine::metrics::GITHUB_BUDGET;
use engine::ports::Budget;
use jiff::Timestamp;
use reqwest::header::HeaderMap;

/// The budget of each account, as its latest answer reported it. Kept for the life of the process.
#[derive(Debug, Default)]
pub(super) struct Budgets(Mutex<HashMap<Owner, Budget>>);

impl Budgets {
    /// Keeps what an answer's headers report.
    pub(super) fn update(&self, owner: &Owner, headers: &HeaderMap) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
        let reported = || {
            let reset = Timestamp::from_second(i64::try_from(number("x-ratelimit-reset")?).ok()?).ok()?;
            let (limit, remaining) = (number("x-ratelimit-limit")?, number("x-ratelimit-remaining")?);
            Some(Budget { remaining, limit, reset })
        };
        if let Some(reported) = reported() {
            self.0.lock().expect("no thread panics while it holds the lock").insert(owner.clone(), reported);
        }
    }

    /// Records each account's budget as a metric, in percent of the limit.
    pub(super) fn record(&self) {
        for (owner, budget) in self.0.lock().expect("no thread panics while it holds the lock").iter() {
            let percent = 100.0 * budget.remaining as f64 / budget.limit.max(1) as f64;
            GITHUB_BUDGET.record(percent, &[owner.as_str()]);
        }
    }

    /// What is left for an account; None if GitHub has not reported it, or if the hour is over.
    pub(super) fn of(&self, owner: &Owner, now: Timestamp) -> Option<Budget> {
        let budget = self.0.lock().expect("no thread panics while it holds the lock").get(owner).copied()?;
        (now < budget.reset).then_some(budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_known_until_its_hour_is_over() {
        let (budgets, owner): (_, Owner) = (Budgets::default(), "acme".parse().unwrap());
        let now = Timestamp::from_second(1000).unwrap();
        let update = |remaining: &'static str| {
            let pairs =
                [("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", remaining), ("x-ratelimit-reset", "1060")];
            let headers = pairs.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            budgets.update(&owner, &HeaderMap::from_iter(headers));
        };
        assert_eq!(budgets.of(&owner, now), None, "GitHub has not answered yet");
        update("1000");
        let reset = Timestamp::from_second(1060).unwrap();
        assert_eq!(budgets.of(&owner, now), Some(Budget { remaining: 1000, limit: 5000, reset }));
        update("999");
        let same_account = "ACME".parse().unwrap();
        assert_eq!(budgets.of(&same_account, now), Some(Budget { remaining: 999, limit: 5000, reset }));
        assert_eq!(budgets.of(&owner, reset), None);
    }
}
