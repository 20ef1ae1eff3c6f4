//! Schedules as an operator reads them.

use std::fmt;

use domain::config::{Day, Pool, Schedule, TimeZoneName};
use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use serde::Serialize;

/// The schedule of a pool that is in effect.
#[derive(Debug, Serialize)]
pub(crate) struct InEffect {
    /// When it ends.
    until: Timestamp,
    /// The same as a clock of the time zone shows it, with the day if it is another.
    until_local: String,
    time_zone: TimeZoneName,
}

/// Such as `until 18:00 Europe/Berlin`.
impl fmt::Display for InEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "until {} {}", self.until_local, self.time_zone)
    }
}

impl InEffect {
    pub(crate) fn of(pool: &Pool, now: Timestamp) -> Option<Self> {
        let (Schedule { time_zone, .. }, period) = pool.schedule_at(now)?;
        let (today, end) = (time_zone.clock(now)?, time_zone.clock(period.to)?);
        let is_midnight = end.time() == Time::midnight() && today.date().tomorrow().ok() == Some(end.date());
        let until_local = match is_midnight {
            true => "24:00".to_owned(),
            false if today.date() == end.date() => hours(end),
            false => format!("{} {}", Day::of(end.date()), hours(end)),
        };
        Some(Self { until: period.to, until_local, time_zone: time_zone.clone() })
    }
}

/// A moment as a clock of the time zone shows it, such as `mon 08:00 Europe/Berlin`.
pub(crate) fn local(at: Timestamp, time_zone: &TimeZoneName) -> String {
    match time_zone.clock(at) {
        Some(clock) => format!("{} {} {time_zone}", Day::of(clock.date()), hours(clock)),
        None => at.to_string(),
    }
}

fn hours(clock: DateTime) -> String {
    format!("{:02}:{:02}", clock.hour(), clock.minute())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool_file::PoolFile;

    fn shown(days: &str, from: &str, to: &str, now: &str) -> Option<String> {
        let text = format!(
            "[[pool]]\nname = \"linux\"\nowner = \"acme\"\nlabels = [\"linux\"]\nlaunch_template = \"runner\"\n\
             instance_types = [\"m7i.large\"]\nmax = 9\n[[pool.schedule]]\ndays = [\"{days}\"]\nfrom = \"{from}\"\nto = \"{to}\"\n\
             time_zone = \"Europe/Berlin\"\nwarm = 5\n"
        );
        let file = PoolFile::parse("pools.toml", &text);
        assert!(file.errors.is_empty(), "{:?}", file.errors);
        InEffect::of(&file.pools[0].unresolved(), now.parse().expect("a time")).map(|it| it.to_string())
    }

    #[test]
    fn the_end_of_a_schedule_is_shown_in_its_time_zone_with_the_day_if_it_is_another() {
        let monday = "2026-11-02T12:00:00Z";
        let shown = |days, from, to, now| shown(days, from, to, now);
        assert_eq!(shown("mon", "08:00", "18:00", monday).as_deref(), Some("until 18:00 Europe/Berlin"));
        assert_eq!(shown("mon", "08:00", "24:00", monday).as_deref(), Some("until 24:00 Europe/Berlin"));
        assert_eq!(shown("mon", "08:00", "00:00", monday).as_deref(), Some("until 24:00 Europe/Berlin"));
        assert_eq!(shown("mon", "08:00", "02:00", monday).as_deref(), Some("until tue 02:00 Europe/Berlin"));
        let after_midnight = "2026-11-02T23:30:00Z";
        assert_eq!(shown("mon", "08:00", "02:00", after_midnight).as_deref(), Some("until 02:00 Europe/Berlin"));
        assert_eq!(shown("tue", "08:00", "18:00", monday), None);
        // Clocks leave out 02:30.
        let spring = "2026-03-29T00:30:00Z";
        assert_eq!(shown("sun", "01:00", "02:30", spring).as_deref(), Some("until 03:00 Europe/Berlin"));
    }
}
