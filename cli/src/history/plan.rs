//! How many calls a history takes, and which days are read if it takes too many.

use std::collections::BTreeMap;

use domain::ids::Repository;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use whatif::day;

use super::sample;
use crate::output::count;

/// GitHub lists at most this many runs of a period.
pub(super) const MOST_LISTED: usize = 1000;

/// Runs and jobs of a page.
const PER_PAGE: usize = 100;

/// A UTC day of the period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) date: Date,
    /// The first and the last second that belong to the period.
    pub(super) span: (Timestamp, Timestamp),
    /// Whether the period has all of it.
    pub(super) is_whole: bool,
}

pub(super) const SECOND: SignedDuration = SignedDuration::from_secs(1);

pub(super) fn days(from: Timestamp, until: Timestamp) -> Vec<Day> {
    let dates = std::iter::successors(Some(day::of(from)), |date| date.checked_add(1.day()).ok());
    dates
        .take_while(|date| day::begin(*date) <= until)
        .map(|date| {
            let (first, last) = (day::begin(date), day::begin(date.saturating_add(1.day())) - SECOND);
            Day { date, span: (first.max(from), last.min(until)), is_whole: from <= first && last <= until }
        })
        .collect()
}

/// A run, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) id: u64,
    pub(super) created_at: Timestamp,
}

/// What is known of a repository's runs before they are listed.
#[derive(Debug)]
pub(super) struct Activity {
    pub(super) repository: Repository,
    /// The newest runs, at most a page.
    pub(super) newest: Vec<Run>,
    pub(super) listing: Listing,
    /// The number of runs per day, estimated unless `listing` is `OnePage`.
    pub(super) per_day: BTreeMap<Date, usize>,
}

/// How the rest of the runs is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    /// `newest` has all of them.
    OnePage,
    /// With one query for the period, which has this many runs.
    Period(usize),
    /// The period has more runs than GitHub lists, so each day is a query.
    Days,
}

impl Activity {
    /// The calls that list the runs of the period.
    fn listing_calls(&self) -> usize {
        match self.listing {
            Listing::OnePage => 0,
            Listing::Period(total) => total.div_ceil(PER_PAGE) - 1,
            Listing::Days => self.per_day.keys().map(|date| self.listing_calls_on(*date)).sum(),
        }
    }

    /// The calls that list the runs of one day, if not every day is read.
    fn listing_calls_on(&self, date: Date) -> usize {
        let runs = self.per_day.get(&date).copied().unwrap_or_default();
        match self.listing {
            Listing::OnePage => 0,
            Listing::Period(_) => runs.div_ceil(PER_PAGE).max(1),
            // The first page was read to count the runs. A day with more runs than GitHub lists is divided.
            Listing::Days if runs >= MOST_LISTED => 2 * runs.div_ceil(PER_PAGE),
            Listing::Days => runs.div_ceil(PER_PAGE).saturating_sub(1),
        }
    }

    fn runs(&self) -> usize {
        match self.listing {
            Listing::OnePage => self.newest.len(),
            Listing::Period(total) => total,
            Listing::Days => self.per_day.values().sum(),
        }
    }
}

/// Which days are read.
#[derive(Debug)]
pub(super) struct Plan {
    /// None if all of the period is.
    pub(super) days: Option<Vec<Date>>,
    /// The calls for all of the period.
    pub(super) all: usize,
    /// The calls for what is read.
    pub(super) planned: usize,
}

impl Plan {
    /// `used` calls found out how many runs there are. Fails with the calls for the cheapest day if the budget is too small.
    pub(super) fn new(repositories: &[Activity], days: &[Day], used: usize, calls: usize) -> Result<Self, usize> {
        let sum = |cost: &dyn Fn(&Activity) -> usize| repositories.iter().map(cost).sum::<usize>();
        let all = used + sum(&|it| it.listing_calls() + it.runs());
        if all <= calls {
            return Ok(Self { days: None, all, planned: all });
        }
        let cost =
            |date: Date| sum(&|it| it.listing_calls_on(date) + it.per_day.get(&date).copied().unwrap_or_default());
        let costs: BTreeMap<Date, usize> =
            days.iter().filter(|day| day.is_whole).map(|day| (day.date, cost(day.date))).collect();
        let chosen = sample::within(calls.saturating_sub(used), &costs);
        // Days without runs cost nothing, and a sample of nothing but them says nothing.
        if chosen.iter().all(|date| costs[date] == 0) {
            let in_order = sample::in_order(&costs.keys().copied().collect::<Vec<_>>());
            let first = in_order.iter().map(|date| costs[date]).find(|cost| *cost > 0);
            return Err(first.map_or(all, |first| used + first));
        }
        let planned = used + chosen.iter().map(|date| costs[date]).sum::<usize>();
        Ok(Self { days: Some(chosen), all, planned })
    }

    pub(super) fn reads(&self, date: Date) -> bool {
        self.days.as_ref().is_none_or(|days| days.contains(&date))
    }

    /// A sentence about the days that are not read.
    pub(super) fn note(&self, days: &[Day], calls: usize) -> Option<String> {
        let chosen = self.days.as_ref()?;
        let named: Vec<String> = chosen.iter().map(ToString::to_string).collect();
        Some(format!(
            "the whole history takes about {} calls, more than --calls {calls}: {} of {} days were read, {}",
            self.all,
            chosen.len(),
            days.len(),
            named.join(", ")
        ))
    }

    pub(super) fn outlook(&self, repositories: &[Activity]) -> String {
        let active = repositories.iter().filter(|it| it.runs() > 0).count();
        let named = if repositories.len() == 1 { "repository" } else { "repositories" };
        format!("{active} of {} {named} ran workflows; about {}", repositories.len(), count(self.planned, "call"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_days_of_a_period_cover_it_without_overlap() {
        let days = days(at("2026-11-01T08:00:00Z"), at("2026-11-04T00:00:00Z"));
        let spans: Vec<(String, bool)> =
            days.iter().map(|day| (format!("{} {}", day.span.0, day.span.1), day.is_whole)).collect();
        let expected = [
            ("2026-11-01T08:00:00Z 2026-11-01T23:59:59Z", false),
            ("2026-11-02T00:00:00Z 2026-11-02T23:59:59Z", true),
            ("2026-11-03T00:00:00Z 2026-11-03T23:59:59Z", true),
            ("2026-11-04T00:00:00Z 2026-11-04T00:00:00Z", false),
        ];
        assert_eq!(spans, expected.map(|(span, whole)| (span.to_owned(), whole)));
    }

    /// 2026-11-27 is a Friday, which is chosen before the Saturday after it.
    #[test]
    fn a_day_without_runs_is_no_sample() {
        let days = days(at("2026-11-26T01:00:00Z"), at("2026-11-29T01:00:00Z"));
        let runs_of = |date: Date| Activity {
            repository: "octo-org/widgets".parse().unwrap(),
            newest: vec![Run { id: 1, created_at: day::begin(date) }; 6],
            listing: Listing::OnePage,
            per_day: [(date, 6)].into(),
        };
        for date in [Date::constant(2026, 11, 27), Date::constant(2026, 11, 28)] {
            assert_eq!(Plan::new(&[runs_of(date)], &days, 1, 3).unwrap_err(), 7, "{date}");
        }
        let both = [runs_of(Date::constant(2026, 11, 27)), runs_of(Date::constant(2026, 11, 28))];
        assert_eq!(Plan::new(&both, &days, 1, 12).unwrap().days, Some(vec![Date::constant(2026, 11, 27)]));
    }
}
