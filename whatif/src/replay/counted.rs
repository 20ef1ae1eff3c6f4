//! The time that counts, if a trace has only some days of its period.

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};

use crate::day;

/// A time span: begin and end.
pub(super) type Part = (Timestamp, Timestamp);

/// The days whose jobs are in the trace. Nothing is known of the other days, so a machine that waits for jobs then is not counted.
#[derive(Debug, Clone)]
pub(super) enum Counted {
    Everything,
    Days(Vec<Part>),
}

impl Counted {
    /// The UTC days that were read. Without any, all of the period was.
    pub(super) fn of(days: &[Date]) -> Self {
        let part = |day: &Date| (day::begin(*day), day::begin(day.saturating_add(1.day())));
        if days.is_empty() { Self::Everything } else { Self::Days(days.iter().map(part).collect()) }
    }

    pub(super) fn contains(&self, at: Timestamp) -> bool {
        match self {
            Self::Everything => true,
            Self::Days(days) => days.iter().any(|(begin, end)| (*begin..*end).contains(&at)),
        }
    }

    /// The parts of a machine's time that count. A job of the last minutes of a day counts until its end, like its cost on GitHub's
    /// runners.
    pub(super) fn parts(&self, from: Timestamp, until: Timestamp, job_since: Option<Timestamp>) -> Vec<Part> {
        let Self::Days(days) = self else { return vec![(from, until.max(from))] };
        let idle_until = job_since.map_or(until, |at| at.max(from).min(until));
        let idle = days.iter().map(|(begin, end)| (from.max(*begin), idle_until.min(*end)));
        idle.chain([(idle_until, until)]).filter(|(begin, end)| begin < end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_machine_counts_within_the_days_and_a_job_until_its_end() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let days = ["2026-11-02", "2026-11-04"].map(|day| day.parse().unwrap());
        let (from, until) = (at("2026-11-02T22:00:00Z"), at("2026-11-05T03:00:00Z"));
        let hours = |counted: &Counted, job_since| -> f64 {
            let parts = counted.parts(from, until, job_since);
            parts.iter().map(|(begin, end)| end.duration_since(*begin).as_secs_f64() / 3600.0).sum()
        };
        let counted = Counted::of(&days);
        assert_eq!(hours(&counted, None), 26.0);
        assert_eq!(hours(&counted, Some(at("2026-11-04T23:00:00Z"))), 29.0);
        assert_eq!(hours(&Counted::of(&[]), None), 53.0);
        assert!(counted.contains(from) && !counted.contains(until));
    }
}
