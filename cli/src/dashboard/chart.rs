//! Charts as SVG.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use crate::output::age;

/// The size of a chart in its own units. The page scales it.
const WIDTH: f64 = 240.0;

/// Two series over the same time: an area and a line. Both have the newest of this many points.
pub(super) fn sparkline(demand: &[u32], live: &[u32], points: usize, height: u32, label: &str) -> Markup {
    let top = demand.iter().chain(live).copied().max().unwrap_or(0).max(1);
    let last = points.saturating_sub(1).max(1);
    let x = |index: usize, series: &[u32]| WIDTH * (points - series.len().min(points) + index) as f64 / last as f64;
    let point = |x: f64, value: u32| {
        let y = f64::from(height) - 1.0 - (f64::from(height) - 2.0) * f64::from(value) / f64::from(top);
        format!("{x:.1},{y:.1}")
    };
    let line = |series: &[u32]| {
        let points = series.iter().enumerate().map(|(index, value)| point(x(index, series), *value));
        points.collect::<Vec<_>>().join(" ")
    };
    let area = format!("{:.1},{height} {} {WIDTH},{height}", x(0, live), line(live));
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (height) } preserveAspectRatio="none" role="img" aria-label=(label) {
            polygon.live points=(area) {}
            polyline.demand points=(line(demand)) {}
        }
    }
}

/// A part of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Phase {
    pub(super) name: &'static str,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

impl Phase {
    fn length(&self) -> SignedDuration {
        self.until.duration_since(self.from).max(SignedDuration::ZERO)
    }
}

/// The phases between these times, each of which has the name of what follows it. A time that is unknown or not later than the
/// one before is left out.
pub(super) fn phases(marks: &[(&'static str, Option<Timestamp>)], end: Timestamp) -> Vec<Phase> {
    let mut phases: Vec<Phase> = Vec::new();
    for (name, at) in marks {
        let Some(at) = *at else { continue };
        if let Some(before) = phases.last_mut() {
            before.until = at.max(before.from);
        }
        phases.push(Phase { name, from: at, until: end.max(at) });
    }
    phases
}

/// Phases as bars of one line, and a table of the same for those who cannot see the bars. A short phase stays visible.
pub(super) fn timeline(phases: &[Phase]) -> Markup {
    let seconds = |phase: &Phase| phase.length().as_secs_f64();
    let total: f64 = phases.iter().map(seconds).sum::<f64>().max(0.001);
    let least = WIDTH * 0.01;
    let widths: Vec<f64> = phases.iter().map(|phase| (WIDTH * seconds(phase) / total).max(least)).collect();
    let scale = WIDTH / widths.iter().sum::<f64>().max(least);
    let starts = widths.iter().scan(0.0, |at, width| {
        let start = *at;
        *at += width * scale;
        Some(start)
    });
    html! {
        svg.timeline viewBox={ "0 0 " (WIDTH) " 16" } preserveAspectRatio="none" role="img" aria-label="Timeline" {
            @for ((phase, start), width) in phases.iter().zip(starts).zip(&widths) {
                rect class={ "phase " (phase.name) } x=(format!("{start:.2}")) y="0" height="16"
                    width=(format!("{:.2}", width * scale)) { title { (phase.name) ": " (short(phase.length())) } }
            }
        }
        table.phases {
            thead { tr { th scope="col" { "Phase" } th scope="col" { "From" } th.n scope="col" { "Time" } } }
            tbody { @for phase in phases { tr {
                td data-title="Phase" { span class={ "key " (phase.name) } aria-hidden="true" {} (phase.name) }
                td data-title="From" { (format!("{:.0}", phase.from)) }
                td.n data-title="Time" { (short(phase.length())) }
            } } }
        }
    }
}

/// Below a minute with one decimal.
pub(super) fn short(time: SignedDuration) -> String {
    if time.as_secs() < 60 { format!("{:.1}s", time.as_secs_f64()) } else { age(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other_and_unknown_times_are_left_out() {
        let at = |second| Timestamp::from_second(second).ok();
        let marks = [("queued", at(0)), ("launched", at(3)), ("registered", None), ("running", at(10))];
        let phases = phases(&marks, Timestamp::from_second(25).unwrap());
        let short: Vec<_> = phases.iter().map(|phase| (phase.name, phase.length().as_secs())).collect();
        assert_eq!(short, [("queued", 3), ("launched", 7), ("running", 15)]);
    }

    #[test]
    fn a_chart_of_nothing_is_still_a_chart() {
        let empty = sparkline(&[], &[], 2, 24, "nothing").into_string();
        assert!(empty.contains("<svg") && !empty.contains("NaN"), "{empty}");
        let zero = sparkline(&[0, 0], &[0, 0], 2, 24, "nothing").into_string();
        assert!(!zero.contains("NaN"), "{zero}");
        let newest = sparkline(&[1], &[1, 1], 3, 24, "the newest points").into_string();
        assert!(newest.contains("points=\"120.0,24 120.0,1.0 240.0,1.0 240,24\""), "{newest}");
        let phases = [Phase { name: "queued", from: Timestamp::UNIX_EPOCH, until: Timestamp::UNIX_EPOCH }];
        assert!(!timeline(&phases).into_string().contains("NaN"));
    }
}
