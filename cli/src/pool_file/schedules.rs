//! `[[pool.schedule]]`: when a pool keeps other numbers of warm and stopped machines.

use std::ops::Range;

use domain::config::{Day, MarketChoice, Schedule, TimeOfDay, TimeZoneName};
use serde::Deserialize;

use super::check::Check;
use super::fields::{Reader, Written, did_you_mean, nearest};
use super::finding::Severity;

const FIELDS: [&str; 6] = ["days", "from", "to", "time_zone", "warm", "stopped"];

/// How many machines a pool keeps while no schedule is in effect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub(super) warm: u32,
    pub(super) stopped: u32,
}

/// All schedules of a stack are in one item of the table, together with its pools.
const MOST: usize = 50;

/// A name that the compiled database of time zones has.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct KnownZone(TimeZoneName);

impl TryFrom<String> for KnownZone {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let known = TimeZoneName::known(&name);
        known.map(Self).ok_or_else(|| {
            let names: Vec<String> = TimeZoneName::all().collect();
            // Of a city, the region may be missing.
            let of_city =
                names.iter().find(|it| it.rsplit('/').next().is_some_and(|it| it.eq_ignore_ascii_case(&name)));
            let near = of_city.map(String::as_str).or_else(|| nearest(&name, names.iter().map(String::as_str)));
            let near =
                near.map_or_else(|| ", write one such as Europe/Berlin or UTC".to_owned(), |it| did_you_mean(Some(it)));
            format!("the IANA database has no time zone {name:?}{near}")
        })
    }
}

/// The schedules of a pool. One with an error is left out, and no rule looks at any. A number that a schedule does not set is the
/// pool's own, `kept`. `of_pool` has the fields of a pool.
pub(super) fn read(reader: &mut Reader<'_>, kept: Kept, of_pool: &[&str]) -> Vec<Schedule> {
    let mut all = Vec::new();
    let mut is_invalid = false;
    for mut table in reader.tables("schedule", "schedule") {
        let schedule = schedule(&mut table, kept, of_pool);
        let is_left_out = !table.errors.is_empty();
        reader.errors.append(&mut table.errors);
        reader.written.schedules.push(table.written);
        is_invalid |= is_left_out;
        all.extend(schedule.filter(|_| !is_left_out));
    }
    if is_invalid {
        reader.written.invalid.insert("schedule".to_owned());
    }
    all
}

fn schedule(table: &mut Reader<'_>, kept: Kept, of_pool: &[&str]) -> Option<Schedule> {
    for (name, example) in [
        ("days", "days = [\"mon\", \"tue\"], the days on which it begins"),
        ("from", "from = \"08:00\""),
        ("to", "to = \"18:00\", of the next day if that is earlier than from"),
        ("time_zone", "time_zone = \"Europe/Berlin\""),
    ] {
        table.require_like(name, &format!(": write {example}"));
    }
    if !table.has("stopped") {
        let example = "write warm = 5, the number of machines to keep warm, or stopped = 5, the number to keep stopped";
        table.require_like("warm", &format!(" and no stopped: {example}"));
    }
    let days = table.list::<Day>("days");
    table.unique("days", &days, |day| format!("days: {day} is listed twice; remove one"));
    if days.is_empty() && !table.written.invalid.contains("days") {
        table.refuse("days", "days: at least one is required, such as days = [\"mon\"]");
    }
    let (from, to): (Option<TimeOfDay>, Option<TimeOfDay>) = (table.optional("from"), table.optional("to"));
    if from == Some(TimeOfDay::END) {
        table.refuse("from", "from: no schedule begins at 24:00; write 00:00 and the next day");
    } else if from.is_some() && from == to {
        let message =
            "to: equal to from; change one of them, or write from = \"00:00\" and to = \"24:00\" for whole days";
        table.refuse("to", message);
    }
    let time_zone = table.optional::<KnownZone>("time_zone").map(|zone| zone.0);
    let warm = table.optional("warm").unwrap_or(kept.warm);
    let stopped = table.optional("stopped").unwrap_or(kept.stopped);
    for name in of_pool.iter().filter(|name| !FIELDS.contains(name)) {
        // In TOML, what follows a table's header belongs to the table.
        let message = format!("unknown field {name}: it is a field of the pool, write it above [[pool.schedule]]");
        table.refuse_field(name, message);
    }
    table.finish(&FIELDS);
    let days = days.into_iter().collect();
    Some(Schedule { days, from: from?, to: to?, time_zone: time_zone?, warm, stopped })
}

/// What is wrong with the schedules of a pool, with its `max` and market, that are right by themselves.
pub(super) fn schedules(check: &mut Check<'_>, schedules: &[Schedule], (max, market): (u32, MarketChoice)) {
    if check.is_invalid("schedule") {
        return;
    }
    let all: Vec<(&Schedule, &Written)> = schedules.iter().zip(&check.written.schedules).collect();
    let mut found: Vec<(Range<usize>, String)> = Vec::new();
    if let Some((_, written)) = all.get(MOST) {
        let message = format!("schedule: a pool has at most {MOST}; use several days in one");
        found.push((written.header.clone(), message));
    }
    for (index, (schedule, written)) in all.iter().take(MOST).enumerate() {
        found.extend(numbers(check, (max, market), schedule, written));
        let line = |other: &Written| check.source.line(other.header.start);
        if let Some((other, other_written)) = all[..index].iter().find(|(it, _)| it.time_zone != schedule.time_zone) {
            let message = format!(
                "time_zone: {} differs from {} of the schedule in line {}; write the times of all schedules of a pool in one \
                 time zone",
                schedule.time_zone,
                other.time_zone,
                line(other_written)
            );
            found.push((written.field("time_zone").clone(), message));
            continue;
        }
        let overlap = all[..index].iter().find_map(|(other, written)| Some((schedule.overlap(other)?, written)));
        if let Some(((day, from, to), other)) = overlap {
            let message = format!(
                "schedule: overlaps the one in line {} on {day} from {from} to {to}; change days, from or to of one of them",
                line(other)
            );
            found.push((written.header.clone(), message));
        }
    }
    for (span, message) in found {
        check.at(Severity::Error, &span, message);
    }
}

/// What is wrong with the numbers of machines that a schedule asks for.
fn numbers(
    check: &Check<'_>,
    (max, market): (u32, MarketChoice),
    schedule: &Schedule,
    written: &Written,
) -> Vec<(Range<usize>, String)> {
    let Schedule { warm, stopped, .. } = *schedule;
    let is_valid = |fields: &[&str]| !fields.iter().any(|field| check.is_invalid(field));
    let mut found = Vec::new();
    if warm > max && is_valid(&["max", "warm"]) {
        let message = format!("warm: {warm} is more than max, {}; lower it, or raise max", max);
        found.push((written.field("warm").clone(), message));
    } else if let Some(message) = too_many(warm, stopped, max).filter(|_| is_valid(&["max", "warm", "stopped"])) {
        let field = if written.has("stopped") { "stopped" } else { "warm" };
        found.push((written.field(field).clone(), message));
    }
    if stopped > 0 && written.has("stopped") && market == MarketChoice::Spot && is_valid(&["market"]) {
        found.push((written.field("stopped").clone(), ONLY_SPOT.to_owned()));
    }
    found
}

/// EC2 can stop spot machines of persistent requests only, and Drover's requests are one-time.
pub(super) const ONLY_SPOT: &str = "stopped: EC2 cannot stop spot machines of one-time requests, and this pool has no others; write \
                                    market = \"spot-then-on-demand\" or \"on-demand\" in the pool, or remove stopped";

/// The error about a pool that cannot have as many machines as it should keep. None if it can.
pub(super) fn too_many(warm: u32, stopped: u32, max: u32) -> Option<String> {
    let both = u64::from(warm) + u64::from(stopped);
    let of_both = if warm > 0 { format!("{stopped} and warm, {warm}, are together") } else { format!("{stopped} is") };
    (stopped > 0 && both > u64::from(max))
        .then(|| format!("stopped: {of_both} more than max, {max}; lower one of them, or raise max"))
}
