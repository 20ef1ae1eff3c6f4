//! The page of `drover simulate --html`: one file that loads nothing. `maud` escapes all text: names of files, pools and labels may
//! come from anyone.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use whatif::day;
use whatif::hosted;
use whatif::replay::{Outcome, PoolOutcome};
use whatif::trace::Header;

use super::chart::{Lines, Series, bar, round_up, ticks};
use crate::output::printable;
use crate::web::document;

const STYLE: &str = concat!(include_str!("../dashboard/page.css"), include_str!("page.css"));

/// The page loads nothing and runs nothing, whatever a name contains.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// Points of the chart of queue times.
const POINTS: usize = 200;

/// What the page shows.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) header: &'a Header,
    /// Which jobs, one paragraph per line.
    pub(super) introduction: &'a str,
    /// Each row has its title first.
    pub(super) rows: &'a [Vec<String>],
    pub(super) files: Vec<(&'a str, &'a Outcome)>,
    /// What is assumed, one paragraph per line.
    pub(super) notes: &'a str,
}

impl Report<'_> {
    pub(super) fn page(&self) -> String {
        let head = html! { meta http-equiv="Content-Security-Policy" content=(POLICY); };
        let body = html! {
            main {
                h1 { "What if: queue times and costs" }
                (paragraphs(self.introduction))
                (self.table())
                (self.waits().draw())
                (self.machines().draw())
                (self.costs())
                h2 { "Assumptions" }
                (paragraphs(self.notes))
                @let (address, rest) = hosted::PRICES.source.split_once(' ').unwrap_or((&hosted::PRICES.source, ""));
                p { "GitHub's prices: " a href=(address) { (address) } " " (rest) }
                @let address = &hosted::PRICES.platform_charge.source;
                p { "GitHub's announced charge: " a href=(address) { (address) } }
            }
        };
        document("What if · Drover", STYLE, &head, &body).0
    }

    fn table(&self) -> Markup {
        html! { table {
            thead { tr { td {} @for (name, _) in &self.files { th.n scope="col" { (printable(name)) } } } }
            tbody { @for row in self.rows { @if let [title, cells @ ..] = &row[..] { tr {
                th.sub[title.starts_with(' ')] scope="row" { (title.trim_start()) }
                @for ((name, _), cell) in self.files.iter().zip(cells) { td.n data-title=(printable(name)) { (printable(cell)) } }
            } } } }
        } }
    }

    /// The share of jobs whose wait was at most the time on the axis.
    fn waits(&self) -> Lines<'_> {
        let longest = self.files.iter().map(|(_, it)| it.waits.p99).fold(0.0, f64::max);
        let (unit, name) = match longest {
            0.0..=120.0 => (1.0, "s"),
            120.0..=7200.0 => (60.0, "min"),
            _ => (3600.0, "h"),
        };
        let most = round_up(longest / unit);
        Lines {
            id: "waits",
            title: "Queue times",
            description: format!(
                "The share of jobs that waited no longer than the time on the axis. The axis ends after the p99 of every file; the \
                 longest wait is {}.",
                self.files
                    .iter()
                    .map(|(file, it)| format!("{:.1} {name} with {}", it.waits.longest / unit, printable(file)))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            series: self
                .files
                .iter()
                .map(|(name, it)| Series { name, parts: vec![distribution(&it.waits.all, most * unit)] })
                .collect(),
            x: ticks(most, &format!(" {name}")),
            y: ticks(100.0, " %"),
        }
    }

    fn machines(&self) -> Lines<'_> {
        let running: Vec<Vec<f64>> = self.files.iter().map(|(_, it)| sums(&it.pools)).collect();
        let most = round_up(running.iter().flatten().copied().fold(0.0, f64::max));
        let step = self.files.first().map_or(SignedDuration::ZERO, |(_, it)| it.step());
        // The last machines may end before the period, or after it.
        let period = self.header.until.duration_since(self.header.from);
        let in_period = (period.as_secs() / step.as_secs().max(1)).unsigned_abs() as usize;
        let points = running.iter().map(Vec::len).max().unwrap_or_default().max(in_period).max(1);
        let begin = |index: usize| self.header.from + step * i32::try_from(index).unwrap_or(i32::MAX);
        let is_known: Vec<bool> = (0..points).map(|it| is_read(self.header, begin(it), begin(it + 1))).collect();
        let highest = self.files.iter().zip(&running).map(|((file, _), running)| {
            let highest = running.iter().copied().fold(0.0, f64::max);
            format!("{highest:.1} with {}", printable(file))
        });
        let times: Vec<Timestamp> = [0, points / 2, points].into_iter().map(begin).collect();
        let is_short = times[2].duration_since(times[0]) < SignedDuration::from_hours(48);
        let format = if is_short { "%m-%d %H:%M" } else { "%Y-%m-%d" };
        Lines {
            id: "machines",
            title: "Machines over time",
            description: format!(
                "The average number of machines that ran, in parts of {} minutes, UTC. The highest: {}.{}",
                step.as_mins(),
                highest.collect::<Vec<_>>().join(", "),
                if self.header.days.is_empty() { "" } else { " Days that were not read are left out." }
            ),
            series: self
                .files
                .iter()
                .zip(&running)
                .map(|((name, _), running)| Series { name, parts: parts(running, &is_known, most) })
                .collect(),
            x: times.iter().map(|at| at.strftime(format).to_string()).collect(),
            y: ticks(most, ""),
        }
    }

    /// The costs of each pool, with the same scale for all files.
    fn costs(&self) -> Markup {
        let pools = self.files.iter().flat_map(|(_, it)| &it.pools);
        let most = pools.map(|it| (it.usd + it.volume_usd).max(it.hosted_usd)).fold(0.0, f64::max);
        let share = |usd: f64| if most > 0.0 { usd / most } else { 0.0 };
        html! { @for (file, (name, outcome)) in self.files.iter().enumerate() { figure {
            figcaption {
                h2 { "Cost per pool: " (printable(name)) }
                p.dim { "USD, for the whole time. GitHub-hosted is what GitHub's own runners would cost for the jobs that ran." }
            }
            ul.legend aria-hidden="true" {
                @for (class, name) in [("machines", "machines"), ("volumes", "volumes"), ("hosted", "GitHub-hosted")] {
                    li { span class={ "key " (class) } {} (name) }
                }
            }
            div.bars { @for (index, pool) in outcome.pools.iter().enumerate() {
                @let id = format!("cost-{file}-{index}");
                @let own = format!("machines {:.2} USD, volumes {:.2} USD", pool.usd, pool.volume_usd);
                @let hosted = format!("{:.2} USD", pool.hosted_usd);
                span.pool { (printable(&pool.name)) }
                span { "Drover" }
                (bar(&id, &format!("{}: Drover", printable(&pool.name)), &own,
                    &[("machines", share(pool.usd)), ("volumes", share(pool.volume_usd))]))
                span.n { (format!("{:.2}", pool.usd + pool.volume_usd)) }
                span { "GitHub" }
                (bar(&format!("{id}-hosted"), &format!("{}: GitHub-hosted", printable(&pool.name)), &hosted,
                    &[("hosted", share(pool.hosted_usd))]))
                span.n { (format!("{:.2}", pool.hosted_usd)) }
            } }
        } } }
    }
}

fn paragraphs(text: &str) -> Markup {
    html! { @for line in text.lines().filter(|line| !line.is_empty()) { p { (printable(line)) } } }
}

/// The share of waits that are not longer than a time, for times from 0 to `most` seconds. `waits` are sorted.
fn distribution(waits: &[f32], most: f64) -> Vec<(f64, f64)> {
    let count = waits.len().max(1) as f64;
    let point = |index: usize| {
        let x = index as f64 / POINTS as f64;
        (x, waits.partition_point(|wait| f64::from(*wait) <= x * most) as f64 / count)
    };
    (0..=POINTS).map(point).collect()
}

/// The machines of all pools, for each part of the period.
fn sums(pools: &[PoolOutcome]) -> Vec<f64> {
    let points = pools.iter().map(|pool| pool.running.len()).max().unwrap_or_default();
    let at = |index: usize| pools.iter().filter_map(|pool| pool.running.get(index)).sum();
    (0..points).map(at).collect()
}

/// Whether jobs of this time may be in the trace.
fn is_read(header: &Header, from: Timestamp, until: Timestamp) -> bool {
    let is_read = |at: Timestamp| header.days.contains(&day::of(at));
    header.days.is_empty() || is_read(from) || is_read(until - SignedDuration::from_secs(1))
}

/// Steps between the times that are known. A file without machines at the end has none there.
fn parts(running: &[f64], is_known: &[bool], most: f64) -> Vec<Vec<(f64, f64)>> {
    let points = is_known.len() as f64;
    let numbered: Vec<(usize, bool)> = is_known.iter().copied().enumerate().collect();
    let known =
        numbered.chunk_by(|(_, one), (_, other)| one == other).filter(|part| part.iter().all(|(_, known)| *known));
    let steps = |part: &[(usize, bool)]| {
        let step = |(index, _): &(usize, bool)| {
            let y = running.get(*index).copied().unwrap_or_default() / most;
            [(*index as f64 / points, y), ((index + 1) as f64 / points, y)]
        };
        part.iter().flat_map(step).collect()
    };
    known.map(steps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_gap_where_nothing_was_read() {
        let parts = parts(&[1.0, 5.0, 2.0], &[true, false, true, true], 2.0);
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0], [(0.0, 0.5), (0.25, 0.5)]);
        assert_eq!(parts[1].last(), Some(&(1.0, 0.0)));
    }

    #[test]
    fn the_distribution_ends_with_the_jobs_that_waited_for_less() {
        let points = distribution(&[1.0, 2.0, 3.0, 40.0], 4.0);
        assert_eq!((points[0], points[POINTS]), ((0.0, 0.0), (1.0, 0.75)));
    }
}
