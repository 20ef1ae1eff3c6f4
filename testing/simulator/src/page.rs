//! The result as one self-contained HTML page.

use std::fmt::Write;

use crate::call::CallKind;
use crate::swarm::{Fault, Options, Shrunk, Total, VERSION, run};

/// The number of bars of a histogram.
const BARS: usize = 60;

/// The page: totals, distributions, and the story of the violation or, without one, of `story`.
pub fn page(total: &Total, shrunk: Option<&Shrunk>, story: &Options) -> String {
    let mut page = String::from(HEAD);
    let mut write = |text: std::fmt::Arguments<'_>| page.write_fmt(text).expect("writing to a string does not fail");
    write(format_args!(
        "<p>{} seeds, {} jobs, {} steps, fault intensities version {VERSION}: <b>{} violations</b>. {} machines launched, {:.2} % of them not needed.</p>",
        total.seeds,
        total.jobs,
        total.steps,
        total.violations.len(),
        total.machines.launched,
        total.extra_percent()
    ));
    write(format_args!("<h2>From queued to started</h2>{}", histogram(&total.waited)));
    write(format_args!("<h2>From the last fault to everything in order</h2>{}", histogram(&total.converged)));
    write(format_args!("<h2>Faults</h2><table><tr><th>kind<th>greatest chance<th>times"));
    for (fault, struck) in Fault::ALL.iter().zip(&total.struck) {
        write(format_args!("<tr><td>{}<td>{:.2}<td>{struck}", fault.name(), fault.greatest_chance()));
    }
    write(format_args!("</table><h2>Calls at which functions ended</h2><table><tr><th>call<th>before<th>after"));
    for (kind, [before, after]) in CallKind::ALL.iter().zip(&total.interrupted) {
        write(format_args!("<tr><td>{}<td>{before}<td>{after}", kind.name()));
    }
    write(format_args!("</table>"));
    let (title, lines) = match shrunk {
        Some(shrunk) => (format!("Violation in seed {}", shrunk.options.seed), shrunk.story(400)),
        None => {
            let outcome = run(story);
            let title = format!("Seed {} with {} jobs", story.seed, story.jobs);
            (title, outcome.story.iter().map(ToString::to_string).collect())
        }
    };
    write(format_args!("<h2>{}</h2><pre>", escaped(&title)));
    for line in lines {
        write(format_args!("{}\n", escaped(&line)));
    }
    write(format_args!("</pre>"));
    page
}

const HEAD: &str = "<!doctype html><meta charset=utf-8><title>Drover in virtual time</title>\
<style>body{font:15px/1.5 system-ui;max-width:70rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse}td,th{padding:.1rem .8rem;text-align:left;border-bottom:1px solid #ddd}\
td+td{text-align:right;font-variant-numeric:tabular-nums}pre{overflow:auto;background:#f6f6f6;padding:1rem;font-size:12px}\
svg{width:100%;height:10rem}rect{fill:#456}text{font:10px system-ui}</style><h1>Drover in virtual time</h1>";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// How many times fall into each bar. The last bar has the longest one in a thousand.
fn histogram(seconds: &[u32]) -> String {
    let mut sorted = seconds.to_vec();
    sorted.sort_unstable();
    let Some(most) = sorted.get(sorted.len().saturating_sub(1 + sorted.len() / 1000)) else {
        return "<p>none</p>".to_owned();
    };
    let width = (*most as usize / BARS).max(1);
    let mut counts = [0usize; BARS + 1];
    for second in &sorted {
        counts[(*second as usize / width).min(BARS)] += 1;
    }
    let highest = counts.iter().max().copied().unwrap_or(1).max(1);
    let mut svg = String::from("<svg viewBox='0 0 620 110' preserveAspectRatio='none'>");
    for (index, count) in counts.iter().enumerate() {
        let height = 100.0 * *count as f64 / highest as f64;
        write!(svg, "<rect x={} y={:.1} width=9 height={height:.1} />", index * 10, 100.0 - height)
            .expect("writing to a string does not fail");
    }
    write!(
        svg,
        "</svg><p>0 to {} s in bars of {width} s. The highest bar is {highest}. The last bar is everything longer.</p>",
        width * BARS
    )
    .expect("writing to a string does not fail");
    svg
}
