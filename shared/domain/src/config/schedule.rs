//! Schedules: how many machines a pool keeps warm at which times of the week.
//!
//! A schedule is a pure function of time. Time zones come from the copy of the IANA database that is compiled in, so every
//! machine computes the same, whatever is installed on it.
//!
//! A schedule begins at the first moment at which a clock in its time zone shows `from` or a later time, and it ends at the first
//! moment at which the clock shows `to` or a later time. So while clocks go forward, a time that is left out counts as the moment
//! of the change; and while they go back, the first of two equal times counts. Two schedules that do not overlap on paper
//! therefore never overlap in time.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};

use crate::ids::InvalidName;

/// Never the database of the machine, which may be older, newer or missing.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// From Monday on.
    pub const ALL: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];

    pub fn of(date: Date) -> Self {
        match date.weekday() {
            Weekday::Monday => Day::Mon,
            Weekday::Tuesday => Day::Tue,
            Weekday::Wednesday => Day::Wed,
            Weekday::Thursday => Day::Thu,
            Weekday::Friday => Day::Fri,
            Weekday::Saturday => Day::Sat,
            Weekday::Sunday => Day::Sun,
        }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Day::Mon => "mon",
            Day::Tue => "tue",
            Day::Wed => "wed",
            Day::Thu => "thu",
            Day::Fri => "fri",
            Day::Sat => "sat",
            Day::Sun => "sun",
        })
    }
}

const MINUTES_PER_DAY: u32 = 24 * 60;
const MINUTES_PER_WEEK: u32 = 7 * MINUTES_PER_DAY;

/// A time of day in minutes, from `00:00` to `24:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, DeserializeFromStr, SerializeDisplay)]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// `24:00`, where a day ends and no schedule begins.
    pub const END: TimeOfDay = TimeOfDay(MINUTES_PER_DAY as u16);

    /// This time of a day, as a clock shows it.
    fn on(self, date: Date) -> Option<DateTime> {
        match self {
            Self::END => Some(date.tomorrow().ok()?.at(0, 0, 0, 0)),
            Self(minutes) => Some(date.at((minutes / 60) as i8, (minutes % 60) as i8, 0, 0)),
        }
    }
}

impl FromStr for TimeOfDay {
    type Err = InvalidName;

    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let rule = "must be a time of day such as \"08:00\", from \"00:00\" to \"24:00\"";
        let invalid = || InvalidName { kind: "time", value: value.to_owned(), rule };
        // `parse` would accept a sign.
        let has_the_form =
            value.len() == 5 && value.bytes().enumerate().all(|(at, it)| (at == 2) ^ it.is_ascii_digit());
        let (hours, minutes) = value.split_once(':').filter(|_| has_the_form).ok_or_else(invalid)?;
        let (hours, minutes): (u16, u16) =
            (hours.parse().map_err(|_| invalid())?, minutes.parse().map_err(|_| invalid())?);
        let time = Self(hours * 60 + minutes);
        if minutes < 60 && time <= Self::END { Ok(time) } else { Err(invalid()) }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// The IANA name of a time zone, such as `Europe/Berlin`. A stored name may be unknown to this version, if a newer one wrote it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimeZoneName(String);

impl TimeZoneName {
    /// The time zone of that name, in the spelling of the database. None if there is none.
    pub fn known(name: &str) -> Option<Self> {
        let zone = ZONES.get(name).ok().filter(|zone| !zone.is_unknown())?;
        Some(Self(zone.iana_name()?.to_owned()))
    }

    /// The names of all time zones.
    pub fn all() -> impl Iterator<Item = String> {
        ZONES.available().map(|name| name.as_str().to_owned())
    }

    fn zone(&self) -> Option<TimeZone> {
        ZONES.get(&self.0).ok()
    }

    /// What a clock in the time zone shows. None if this version does not know the zone.
    pub fn clock(&self, at: Timestamp) -> Option<DateTime> {
        Some(self.zone()?.to_datetime(at))
    }
}

impl fmt::Display for TimeZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Times at which a pool keeps another number of machines warm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The days on which it begins. At least one.
    pub days: BTreeSet<Day>,
    /// Before the end of the day.
    pub from: TimeOfDay,
    /// If it is earlier than `from`, the schedule ends on the next day.
    pub to: TimeOfDay,
    pub time_zone: TimeZoneName,
    /// Like `warm` of a pool.
    pub warm: u32,
    /// Like `stopped` of a pool.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stopped: u32,
}

/// Whether a stored number may be left out.
pub(crate) fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

/// Such as `mon tue 08:00-18:00 Europe/Berlin`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.days.iter().try_for_each(|day| write!(f, "{day} "))?;
        write!(f, "{}-{} {}", self.from, self.to, self.time_zone)
    }
}

/// When a schedule is in effect: from its beginning to just before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period {
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Period {
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }
}

impl Schedule {
    /// When it is in effect, at a moment at which it is. None at all other times, and if this version does not know the time zone.
    pub fn period_at(&self, at: Timestamp) -> Option<Period> {
        let zone = self.time_zone.zone()?;
        let today = zone.to_datetime(at).date();
        // It may have begun yesterday. If clocks went back over midnight, one of tomorrow may have begun.
        let dates = [today.yesterday(), Ok(today), today.tomorrow()].into_iter().flatten();
        dates.filter_map(|date| self.period_of(&zone, date)).find(|period| period.contains(at))
    }

    /// The periods that begin on the day of `at` or on one of the days after it, `days` days in all. Some may be over.
    pub fn periods(&self, at: Timestamp, days: usize) -> Vec<Period> {
        let Some(zone) = self.time_zone.zone() else { return Vec::new() };
        let dates = std::iter::successors(Some(zone.to_datetime(at).date()), |date| date.tomorrow().ok());
        dates.take(days).filter_map(|date| self.period_of(&zone, date)).collect()
    }

    /// None if it does not begin on that day, or clocks leave it out.
    fn period_of(&self, zone: &TimeZone, date: Date) -> Option<Period> {
        if !self.days.contains(&Day::of(date)) {
            return None;
        }
        let last = if self.ends_next_day() { date.tomorrow().ok()? } else { date };
        let period = Period { from: first(zone, self.from.on(date)?)?, to: first(zone, self.to.on(last)?)? };
        (period.from < period.to).then_some(period)
    }

    fn ends_next_day(&self) -> bool {
        self.to <= self.from
    }

    /// On which day and from when to when both are in effect, as clocks show it, if they ever are. Both must have one time zone.
    pub fn overlap(&self, other: &Schedule) -> Option<(Day, TimeOfDay, TimeOfDay)> {
        let pairs = self.weekly().into_iter().flat_map(|own| other.weekly().into_iter().map(move |it| (own, it)));
        // Sunday is before Monday, too.
        let turned = pairs.flat_map(|(own, (from, to))| {
            [(from, to), (from + MINUTES_PER_WEEK, to + MINUTES_PER_WEEK)]
                .into_iter()
                .flat_map(move |it| [(own, it), ((own.0 + MINUTES_PER_WEEK, own.1 + MINUTES_PER_WEEK), it)])
        });
        let common = turned.map(|(own, it)| (own.0.max(it.0), own.1.min(it.1))).find(|(from, to)| from < to)?;
        let of_day = |minutes: u32| TimeOfDay((minutes % MINUTES_PER_DAY) as u16);
        let day = Day::ALL[(common.0 / MINUTES_PER_DAY % 7) as usize];
        let end = match of_day(common.1) {
            TimeOfDay(0) => TimeOfDay::END,
            time => time,
        };
        Some((day, of_day(common.0), end))
    }

    /// From when to when it is in effect, in minutes since Monday. The end may be in the next week.
    fn weekly(&self) -> Vec<(u32, u32)> {
        let end = u32::from(self.to.0) + if self.ends_next_day() { MINUTES_PER_DAY } else { 0 };
        let midnight = |day: &Day| *day as u32 * MINUTES_PER_DAY;
        self.days.iter().map(|day| (midnight(day) + u32::from(self.from.0), midnight(day) + end)).collect()
    }
}

/// The first moment at which a clock in the time zone shows this time or a later one.
fn first(zone: &TimeZone, clock: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(clock).offset() {
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
            offset.to_timestamp(clock).ok()
        }
        // With the offset of after the gap, the time is before the gap.
        AmbiguousOffset::Gap { after, .. } => {
            let before = after.to_timestamp(clock).ok()?;
            Some(zone.following(before).next()?.timestamp())
        }
    }
}
