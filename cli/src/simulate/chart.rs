//! Charts of a simulation, as SVG and HTML. The drawing is stretched to the width of the page; numbers and names are HTML beside it, so
//! they keep their size on a phone.

use maud::{Markup, html};

/// The size of a drawing in its own units.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 300.0;

/// Styles of lines in `page.css`: each has its own colour and its own dashes.
const STYLES: usize = 6;

/// A line of a chart, in parts if something is unknown in between.
#[derive(Debug)]
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    /// Points of x and y, both from 0 to 1.
    pub(super) parts: Vec<Vec<(f64, f64)>>,
}

/// A chart of lines.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    /// Unique in the page.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) description: String,
    pub(super) series: Vec<Series<'a>>,
    /// Evenly spaced, from the first to the last.
    pub(super) x: Vec<String>,
    pub(super) y: Vec<String>,
}

impl Lines<'_> {
    pub(super) fn draw(&self) -> Markup {
        html! {
            figure {
                figcaption { h2 { (self.title) } p.dim { (self.description) } }
                ul.legend { @for (index, series) in self.series.iter().enumerate() { li {
                    svg.sample viewBox="0 0 40 10" aria-hidden="true" {
                        line class={ "line s" (index % STYLES) } x1="0" y1="5" x2="40" y2="5" {}
                    }
                    (series.name)
                } } }
                div.plot {
                    div.y aria-hidden="true" { @for label in self.y.iter().rev() { span { (label) } } }
                    (self.drawing())
                    div.x aria-hidden="true" { @for label in &self.x { span { (label) } } }
                }
            }
        }
    }

    fn drawing(&self) -> Markup {
        let grid = |count: usize| {
            let last = count.saturating_sub(1).max(1) as f64;
            (0..count).map(move |index| index as f64 / last)
        };
        html! {
            svg.lines viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                aria-labelledby={ (self.id) "-title " (self.id) "-description" } {
                title id={ (self.id) "-title" } { (self.title) }
                desc id={ (self.id) "-description" } { (self.description) }
                @for at in grid(self.y.len()) {
                    line.grid x1="0" x2=(WIDTH) y1=(format!("{:.1}", HEIGHT * at)) y2=(format!("{:.1}", HEIGHT * at)) {}
                }
                @for (index, series) in self.series.iter().enumerate() { @for part in &series.parts {
                    polyline class={ "line s" (index % STYLES) } points=(points(part)) {}
                } }
            }
        }
    }
}

fn points(part: &[(f64, f64)]) -> String {
    let point = |(x, y): &(f64, f64)| {
        let (x, y) = (x.clamp(0.0, 1.0), y.clamp(0.0, 1.0));
        format!("{:.1},{:.1}", WIDTH * x, HEIGHT * (1.0 - y))
    };
    part.iter().map(point).collect::<Vec<_>>().join(" ")
}

/// A part of a bar: its class in `page.css`, and its length from 0 to 1.
pub(super) type Part = (&'static str, f64);

/// A bar of parts, one after the other.
pub(super) fn bar(id: &str, title: &str, description: &str, parts: &[Part]) -> Markup {
    let begins = parts.iter().scan(0.0, |at, (_, length)| {
        let begin = *at;
        *at += length;
        Some(begin)
    });
    html! {
        svg.bar viewBox={ "0 0 " (WIDTH) " 10" } preserveAspectRatio="none" role="img"
            aria-labelledby={ (id) "-title " (id) "-description" } {
            title id={ (id) "-title" } { (title) }
            desc id={ (id) "-description" } { (description) }
            @for ((class, length), begin) in parts.iter().zip(begins) {
                rect class=(class) x=(format!("{:.1}", WIDTH * begin)) y="0" width=(format!("{:.1}", WIDTH * length)) height="10" {}
            }
        }
    }
}

/// A round number that is not smaller and can be divided by four, for the end of an axis.
pub(super) fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let round = [1.0, 1.2, 1.6, 2.0, 3.0, 4.0, 6.0, 8.0].into_iter().find(|it| it * power >= value);
    round.unwrap_or(10.0) * power
}

/// Five numbers from 0 to this one.
pub(super) fn ticks(most: f64, unit: &str) -> Vec<String> {
    let text = |number: f64| {
        let text = format!("{number:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    (0..=4).map(|index| format!("{}{unit}", text(most * f64::from(index) / 4.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_with_a_round_number() {
        let round = |value: f64| format!("{:.2}", round_up(value));
        assert_eq!([0.0, 0.011, 1.0, 28.8, 97.0].map(round), ["1.00", "0.01", "1.00", "30.00", "100.00"]);
        assert_eq!(ticks(30.0, " s"), ["0 s", "7.5 s", "15 s", "22.5 s", "30 s"]);
    }

    #[test]
    fn a_chart_of_nothing_is_still_a_chart() {
        let series = vec![Series { name: "a", parts: vec![Vec::new()] }];
        let chart = Lines { id: "a", title: "A", description: String::new(), series, x: Vec::new(), y: Vec::new() };
        let drawn = chart.draw().into_string();
        assert!(drawn.contains("<svg") && !drawn.contains("NaN"), "{drawn}");
    }
}
