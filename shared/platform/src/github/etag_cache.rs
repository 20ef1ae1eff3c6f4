//! Answers that GitHub need not send again, and what it said of our budget.
//!
//! Both live as long as the process: losing them costs a few calls, never correctness.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use domain::ids::Owner;
use engine::metrics::GITHUB_BUDGET;
use engine::ports::Budget;
use jiff::Timestamp;
use reqwest::header::HeaderMap;

/// All answers together. A function has 128 MB for everything.
const LARGEST: usize = 8 << 20;

/// A larger answer is not worth the others that it would drive out.
const LARGEST_ANSWER: usize = LARGEST / 8;

/// An answer and its entity tag: sent with the next question, it makes GitHub say "not modified", for free.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) tag: String,
    pub(crate) body: Vec<u8>,
}

/// The answers to what was asked last.
#[derive(Debug, Default)]
pub(crate) struct Answers(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_path: HashMap<String, (Arc<Known>, u64)>,
    size: usize,
    uses: u64,
}

impl Answers {
    pub(crate) fn known(&self, path: &str) -> Option<Arc<Known>> {
        let mut kept = self.0.lock().expect("nobody panics while holding it");
        kept.uses += 1;
        let uses = kept.uses;
        let (known, used) = kept.by_path.get_mut(path)?;
        *used = uses;
        Some(known.clone())
    }

    /// Remembers an answer; forgets those not asked for the longest, to make room.
    pub(crate) fn keep(&self, path: String, known: Known) {
        let size = known.body.len();
        if size > LARGEST_ANSWER {
            return;
        }
        let mut kept = self.0.lock().expect("nobody panics while holding it");
        kept.forget(&path);
        while kept.size + size > LARGEST {
            let oldest = kept.by_path.iter().min_by_key(|(_, (_, used))| *used).map(|(path, _)| path.clone());
            let Some(oldest) = oldest else { break };
            kept.forget(&oldest);
        }
        kept.uses += 1;
        kept.size += size;
        let uses = kept.uses;
        kept.by_path.insert(path, (Arc::new(known), uses));
    }
}

impl Kept {
    fn forget(&mut self, path: &str) {
        if let Some((known, _)) = self.by_path.remove(path) {
            self.size -= known.body.len();
        }
    }
}

/// What each account's installation may still ask in this hour, by its latest answer.
#[derive(Debug, Default)]
pub(crate) struct Budgets(Mutex<HashMap<Owner, Reported>>);

#[derive(Debug, Clone, Copy)]
struct Reported {
    budget: Budget,
    reset: Timestamp,
}

impl Budgets {
    pub(crate) fn hear(&self, owner: &Owner, headers: &HeaderMap) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
        let heard = || {
            let reset = Timestamp::from_second(i64::try_from(number("x-ratelimit-reset")?).ok()?).ok()?;
            let (limit, remaining) = (number("x-ratelimit-limit")?, number("x-ratelimit-remaining")?);
            Some(Reported { budget: Budget { remaining, limit }, reset })
        };
        if let Some(budget) = heard() {
            self.0.lock().expect("nobody panics while holding it").insert(owner.clone(), budget);
        }
    }

    /// Takes the figure of each: as a share of what an hour allows.
    pub(crate) fn measure(&self) {
        for (owner, Reported { budget, .. }) in self.0.lock().expect("nobody panics while holding it").iter() {
            let percent = 100.0 * budget.remaining as f64 / budget.limit.max(1) as f64;
            GITHUB_BUDGET.record(percent, &[owner.as_str()]);
        }
    }

    /// What is left for an account; None if GitHub has not said, or if the hour is over.
    pub(crate) fn of(&self, owner: &Owner, now: Timestamp) -> Option<Budget> {
        let reported = self.0.lock().expect("nobody panics while holding it").get(owner).copied()?;
        (now < reported.reset).then_some(reported.budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_longest_is_forgotten_first() {
        let answers = Answers::default();
        let body = vec![0; LARGEST_ANSWER];
        let keep = |path: &str| answers.keep(path.to_owned(), Known { tag: path.to_owned(), body: body.clone() });
        (0..8).for_each(|n| keep(&n.to_string()));
        assert!(answers.known("0").is_some(), "used just now");
        keep("8");
        keep("8");
        let left: Vec<bool> = (0..9).map(|n| answers.known(&n.to_string()).is_some()).collect();
        assert_eq!(left, [true, false, true, true, true, true, true, true, true]);
        answers.keep("huge".to_owned(), Known { tag: String::new(), body: vec![0; LARGEST_ANSWER + 1] });
        assert!(answers.known("huge").is_none() && answers.known("0").is_some());
    }

    #[test]
    fn a_budget_is_known_until_its_hour_is_over() {
        let (budgets, owner): (_, Owner) = (Budgets::default(), "acme".parse().unwrap());
        let now = Timestamp::from_second(1000).unwrap();
        let hear = |remaining: &'static str| {
            let pairs =
                [("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", remaining), ("x-ratelimit-reset", "1060")];
            let headers = pairs.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            budgets.hear(&owner, &HeaderMap::from_iter(headers));
        };
        assert_eq!(budgets.of(&owner, now), None, "GitHub has not answered yet");
        hear("1000");
        assert_eq!(budgets.of(&owner, now), Some(Budget { remaining: 1000, limit: 5000 }));
        hear("999");
        let same_account = "ACME".parse().unwrap();
        assert_eq!(budgets.of(&same_account, now), Some(Budget { remaining: 999, limit: 5000 }));
        assert_eq!(budgets.of(&owner, Timestamp::from_second(1060).unwrap()), None);
    }
}
