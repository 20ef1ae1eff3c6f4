//! The arguments of `drover simulate`.

use std::path::PathBuf;

use clap::Args;
use drover::simulate::{Jobs, Request};
use whatif::replay::Assumptions;
use whatif::trace::Trace;

use super::history::History;

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// Pool files; each is simulated on its own
    #[arg(required_unless_present = "record", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The recorded jobs; or else --history
    #[arg(long, value_name = "FILE", conflicts_with = "history")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) history: History,
    /// The region whose list prices apply [default: that of the trace, or us-east-1]
    #[arg(long)]
    region: Option<String>,
    /// Jobs with the label OLD count as having the label NEW
    #[arg(long = "label", value_name = "OLD=NEW", value_parser = label)]
    labels: Vec<(String, String)>,
    /// What a spot machine costs, as a share of its list price
    #[arg(long, value_name = "SHARE", default_value_t = Assumptions::default().spot_share, value_parser = share)]
    spot_share: f64,
    /// How often EC2 reclaims a spot machine, per hour of its life
    #[arg(long, value_name = "RATE", default_value_t = Assumptions::default().interruptions_per_hour, value_parser = rate)]
    interruptions: f64,
    /// Also write the result with charts into this file, a page for a browser
    #[arg(long, value_name = "FILE", requires = "files")]
    html: Option<PathBuf>,
}

impl Simulate {
    /// Whether the command line says which jobs to simulate.
    pub(crate) fn has_jobs(&self) -> bool {
        self.trace.is_some() || self.history.wanted().is_some()
    }

    /// The jobs are those that were recorded, or else those of the trace, which the command line then demands.
    pub(crate) fn request(self, recorded: Option<Trace>) -> Request {
        let Self { files, trace, history: _, region, labels, spot_share, interruptions, html } = self;
        let jobs = recorded.map_or_else(|| Jobs::File(trace.unwrap_or_default()), Jobs::Recorded);
        Request { files, jobs, region, labels, spot_share, interruptions, html }
    }
}

fn label(text: &str) -> Result<(String, String), &'static str> {
    let (old, new) = text.split_once('=').ok_or("must be OLD=NEW")?;
    let (old, new) = (old.trim(), new.trim());
    if old.is_empty() || new.is_empty() { Err("must be OLD=NEW") } else { Ok((old.to_owned(), new.to_owned())) }
}

fn share(text: &str) -> Result<f64, &'static str> {
    number(text, 1.0).ok_or("must be a number from 0 to 1")
}

fn rate(text: &str) -> Result<f64, &'static str> {
    number(text, 60.0).ok_or("must be a number from 0 to 60")
}

fn number(text: &str, most: f64) -> Option<f64> {
    text.parse().ok().filter(|number| (0.0..=most).contains(number))
}
