//! What a machine reports once it has booted. Anything that runs on a machine can write the report, so it is only a hint
//! about that machine: it is read strictly, and nothing is permitted because of it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long DynamoDB keeps a report, unless the machine asks for something else. A machine lives for half a day by default.
pub const KEEP_REPORTS: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How far a machine's clock may be wrong. Amazon's time service keeps it within milliseconds.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

/// Characters of the longest time that a report may state: with nanoseconds, in UTC.
const LONGEST_TIME: usize = "2026-11-27T12:00:00.123456789Z".len();

/// Digits of the longest uptime, which is more than three years.
const LONGEST_UPTIME: usize = 8;

/// The agent's report, as it was read. It may be forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootReport {
    /// When the agent reported, by the machine's clock.
    pub reported_at: Timestamp,
    /// How long the machine's kernel had been running by then.
    pub uptime_seconds: u32,
    /// When the machine had prepared itself for being stopped. None before that, and for a machine that received a job at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared_at: Option<Timestamp>,
}

/// The attributes of a report in the table. None: the attribute is missing, or has another type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredReport {
    pub reported_at: Option<String>,
    /// The text of a number.
    pub uptime_seconds: Option<String>,
    /// The text of the attribute, empty if it has another type.
    pub prepared_at: Option<String>,
    /// JSON of [`crate::state::Usage`], empty if the attribute has another type. Not part of the boot report.
    pub usage: Option<String>,
}

/// Why a stored report is not used. Does not repeat the report's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableReport {
    #[error("the attribute {0} is missing or has another type")]
    Missing(&'static str),
    #[error("the attribute {0} is not as the agent writes it")]
    Malformed(&'static str),
    #[error("it states a time before the launch of its machine, or in the future")]
    Implausible,
}

impl BootReport {
    /// Parses the report of a machine that was launched at that time.
    ///
    /// # Errors
    /// If an agent with a correct clock would not have written this.
    pub fn parse(stored: &StoredReport, launched_at: Timestamp, now: Timestamp) -> Result<Self, UnusableReport> {
        let time = stored.reported_at.as_deref().ok_or(UnusableReport::Missing("reported_at"))?;
        let uptime = stored.uptime_seconds.as_deref().ok_or(UnusableReport::Missing("uptime_seconds"))?;
        let reported_at = time_in_utc(time).ok_or(UnusableReport::Malformed("reported_at"))?;
        let uptime_seconds = whole_number(uptime).ok_or(UnusableReport::Malformed("uptime_seconds"))?;
        let prepared_at = match stored.prepared_at.as_deref() {
            Some(time) => Some(time_in_utc(time).ok_or(UnusableReport::Malformed("prepared_at"))?),
            None => None,
        };
        let plausible = launched_at - CLOCK_TOLERANCE..=now + CLOCK_TOLERANCE;
        if [Some(reported_at), prepared_at].into_iter().flatten().any(|time| !plausible.contains(&time)) {
            return Err(UnusableReport::Implausible);
        }
        Ok(Self { reported_at, uptime_seconds, prepared_at })
    }

    /// The report as the agent stores it.
    pub fn stored(&self) -> StoredReport {
        StoredReport {
            reported_at: Some(self.reported_at.to_string()),
            uptime_seconds: Some(self.uptime_seconds.to_string()),
            prepared_at: self.prepared_at.map(|time| time.to_string()),
            usage: None,
        }
    }
}

/// A time as [`Timestamp`] writes it. Its parser accepts more forms.
fn time_in_utc(text: &str) -> Option<Timestamp> {
    if text.len() > LONGEST_TIME {
        return None;
    }
    text.parse().ok().filter(|time: &Timestamp| time.to_string() == text)
}

fn whole_number(text: &str) -> Option<u32> {
    let is_plain = (1..=LONGEST_UPTIME).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).expect("a time")
    }

    fn parse(time: &str, uptime: &str) -> Result<BootReport, UnusableReport> {
        let (reported_at, uptime_seconds) = (Some(time.to_owned()), Some(uptime.to_owned()));
        BootReport::parse(&StoredReport { reported_at, uptime_seconds, ..StoredReport::default() }, at(0), at(600))
    }

    /// A good report with this text as the time of the preparation.
    fn parse_prepared(time: &str) -> Result<BootReport, UnusableReport> {
        let stored = StoredReport { prepared_at: Some(time.to_owned()), ..booted().stored() };
        BootReport::parse(&stored, at(0), at(600))
    }

    fn booted() -> BootReport {
        BootReport { reported_at: at(40), uptime_seconds: 14, prepared_at: None }
    }

    #[test]
    fn what_the_agent_writes_is_read() {
        for prepared_at in [None, Some(at(90))] {
            let report = BootReport { prepared_at, ..booted() };
            assert_eq!(BootReport::parse(&report.stored(), at(0), at(600)), Ok(report));
        }
    }

    #[test]
    fn nothing_else_is_read_however_long_it_is() {
        let time = at(40).to_string();
        let megabyte = "9".repeat(1 << 20);
        for bad in ["", " ", "now", "1790000040", &megabyte, &format!("{time} "), &time.replace('Z', "+00:00")] {
            assert_eq!(parse(bad, "14"), Err(UnusableReport::Malformed("reported_at")), "{:.40}", bad);
            assert_eq!(parse_prepared(bad), Err(UnusableReport::Malformed("prepared_at")), "{:.40}", bad);
        }
        for bad in ["", "-1", "+1", "1.5", "1e3", " 1", "١٤", "１４", "123456789", &megabyte] {
            assert_eq!(parse(&time, bad), Err(UnusableReport::Malformed("uptime_seconds")), "{:.40}", bad);
        }
    }

    #[test]
    fn a_missing_attribute_and_one_of_another_type_are_no_report() {
        let whole = booted().stored();
        for (stored, missing) in [
            (StoredReport { reported_at: None, ..whole.clone() }, "reported_at"),
            (StoredReport { uptime_seconds: None, ..whole }, "uptime_seconds"),
            (StoredReport::default(), "reported_at"),
        ] {
            assert_eq!(BootReport::parse(&stored, at(0), at(600)), Err(UnusableReport::Missing(missing)));
        }
    }

    #[test]
    fn a_time_before_the_launch_or_in_the_future_is_not_believed() {
        for (second, is_believed) in [(-61, false), (-60, true), (0, true), (660, true), (661, false)] {
            let read = parse(&at(second).to_string(), "14");
            assert_eq!(read.is_ok(), is_believed, "{second}: {read:?}");
            let read = parse_prepared(&at(second).to_string());
            assert_eq!(read.is_ok(), is_believed, "{second}: {read:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_read_as_anything_but_what_it_says(time in ".{0,60}", uptime in ".{0,20}") {
            if let Ok(report) = parse_prepared(&time) {
                prop_assert_eq!(report.prepared_at.map(|time| time.to_string()), Some(time.clone()));
            }
            if let Ok(report) = parse(&time, &uptime) {
                prop_assert_eq!(report.reported_at.to_string(), time);
                prop_assert_eq!(report.uptime_seconds, uptime.parse::<u32>().expect("a number"));
            }
        }
    }
}
