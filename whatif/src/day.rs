//! UTC days.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// The UTC day of a time.
pub fn of(at: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(at).date()
}

/// When a day begins. At the end of the calendar, the last time there is.
pub fn begin(day: Date) -> Timestamp {
    TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).unwrap_or(Timestamp::MAX)
}
