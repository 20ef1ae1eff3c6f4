//! `[stack]`: what all pools have in common.

use std::ops::Range;

use domain::config::MicroUsd;
use toml::de::DeTable;

use super::entry::{PoolEntry, Usd};
use super::fields::{Reader, Written, fields};
use super::finding::{Finding, Severity, Source};
use crate::output::usd;

const USD_PER_HOUR: &str = "usd_per_hour";

/// The table `[stack]`.
#[derive(Debug, Clone, Default)]
pub(super) struct Stack {
    /// The most that the caps of the pools may be, together, and where it is written.
    cap: Option<(MicroUsd, Range<usize>)>,
}

impl Stack {
    /// Reads the table. `header` is where it begins.
    pub(super) fn read(table: &DeTable<'_>, header: Range<usize>, source: &Source) -> (Self, Vec<Finding>) {
        let mut reader = Reader::new(source, header, fields(table));
        let cap: Option<Usd> = reader.optional(USD_PER_HOUR);
        reader.finish(&[USD_PER_HOUR]);
        let place = reader.written.field(USD_PER_HOUR).clone();
        (Self { cap: cap.map(|usd| (usd.0, place)) }, reader.errors)
    }

    /// Compares the cap with those of the pools.
    pub(super) fn check(&self, pools: &[PoolEntry], written: &[Written]) -> Vec<(Severity, Range<usize>, String)> {
        let Some((cap, place)) = &self.cap else { return Vec::new() };
        let mut findings = Vec::new();
        let (mut sum, mut all) = (MicroUsd(0), Vec::new());
        for (pool, written) in pools.iter().zip(written).filter(|(_, written)| !written.invalid.contains(USD_PER_HOUR))
        {
            match &pool.usd_per_hour {
                Some(own) => {
                    sum = sum + own.0;
                    all.push(format!("{} {}", pool.name, usd(own.0.usd())));
                }
                None => {
                    let message = format!(
                        "pool {} has no {USD_PER_HOUR}, and with a cap in [stack] each pool needs one: write {USD_PER_HOUR} = \
                         AMOUNT here or in [defaults]",
                        pool.name
                    );
                    findings.push((Severity::Error, written.header.clone(), message));
                }
            }
        }
        if sum > *cap {
            let message = format!(
                "{USD_PER_HOUR}: {} USD is less than the caps of the pools together, {} USD ({}); raise it, or lower theirs",
                usd(cap.usd()),
                usd(sum.usd()),
                all.join(", ")
            );
            findings.push((Severity::Error, place.clone(), message));
        }
        findings
    }
}
