//! Which days are read if the whole history would take too many calls.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::civil::{Date, Weekday};

/// The days in the order in which they are chosen. Each next day has the weekday that was chosen least often, a working day before
/// a day of the weekend, and then is as far from the chosen days as possible. So any beginning of the list has both the weeks and
/// the weekdays of the period, as far as it is long enough.
pub(super) fn in_order(days: &[Date]) -> Vec<Date> {
    let mut left = days.to_vec();
    let mut chosen: Vec<Date> = Vec::new();
    let mut weekdays: BTreeMap<i8, usize> = BTreeMap::new();
    let rank = |day: Date, chosen: &[Date], weekdays: &BTreeMap<i8, usize>| {
        let weekday = day.weekday();
        let distance = chosen.iter().map(|other| (day - *other).get_days().abs()).min();
        let is_weekend = matches!(weekday, Weekday::Saturday | Weekday::Sunday);
        let often = weekdays.get(&weekday.to_monday_zero_offset()).copied().unwrap_or_default();
        (often, is_weekend, Reverse(distance), Reverse(day))
    };
    while let Some(next) = left.iter().copied().min_by_key(|day| rank(*day, &chosen, &weekdays)) {
        left.retain(|day| *day != next);
        *weekdays.entry(next.weekday().to_monday_zero_offset()).or_default() += 1;
        chosen.push(next);
    }
    chosen
}

/// The days that are read, sorted: as many as possible, in the order of [`in_order`], whose calls do not exceed the budget.
pub(super) fn within(budget: usize, costs: &BTreeMap<Date, usize>) -> Vec<Date> {
    let days: Vec<Date> = costs.keys().copied().collect();
    let mut left = budget;
    let mut chosen = Vec::new();
    for day in in_order(&days) {
        match left.checked_sub(costs[&day]) {
            Some(rest) => {
                left = rest;
                chosen.push(day);
            }
            None => break,
        }
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn november(days: std::ops::RangeInclusive<i8>) -> Vec<Date> {
        days.map(|day| Date::constant(2026, 11, day)).collect()
    }

    #[test]
    fn seven_days_of_a_month_are_seven_weekdays_of_different_weeks() {
        let days = in_order(&november(1..=28));
        let weekdays: std::collections::BTreeSet<i8> =
            days[..7].iter().map(|day| day.weekday().to_monday_zero_offset()).collect();
        assert_eq!(weekdays.len(), 7);
        let weeks: std::collections::BTreeSet<i8> = days[..7].iter().map(|day| (day.day() - 1) / 7).collect();
        assert_eq!(weeks.len(), 4, "{:?}", &days[..7]);
        assert_eq!((days.len(), days[0].weekday()), (28, Weekday::Friday));
        assert!(days[..5].iter().all(|day| !matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday)));
    }

    #[test]
    fn the_days_fit_into_the_budget() {
        let costs: BTreeMap<Date, usize> = november(1..=28).into_iter().map(|day| (day, 100)).collect();
        assert_eq!(within(99, &costs), []);
        assert_eq!(within(250, &costs).len(), 2);
        assert_eq!(within(10_000, &costs), november(1..=28));
    }
}
