//! Boot reports: whose are read, and when a missing one shows that a machine did not come up.
//!
//! A machine without a runner has no other sign of life, so a sweep reads the report of each such machine until it has one.
//! What a report shows and what it does not:
//!
//! - A report that was recorded before its machine had a runner was not written by a job: the slot is unchanged since it was
//!   read, so no JIT config had been handed over. Only such a report shows that an image's machines report. Otherwise a job on
//!   one machine could make Drover replace all machines of an image whose agent sends no reports.
//! - A missing report is evidence if a machine of the same image has reported since the last one that was stopped because of a
//!   missing report. So one recorded report ends at most one machine, and machines whose reports are lost, for example because
//!   another machine floods the table, are replaced one at a time and never again and again.
//! - A report permits nothing, and keeps no machine longer than it would stay without one.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::config::Pool;
use crate::ids::{ImageId, InstanceId};
use crate::policy::PoolView;
use crate::state::{BootReport, Machine, MissedReport, ReportingImage, Slot, SlotState, StoredReport, UnusableReport};
use crate::wire::ObservedInstance;

/// What the reports table shows about a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObservedReport {
    Missing,
    /// Something on the machine wrote a report, so the machine is up. That is all it shows.
    Unusable(UnusableReport),
    Read(BootReport),
}

impl ObservedReport {
    /// `stored` is None if the table has no report of the machine.
    pub fn of(stored: Option<&StoredReport>, launched_at: Timestamp, now: Timestamp) -> Self {
        match stored.map(|stored| BootReport::parse(stored, launched_at, now)) {
            None => ObservedReport::Missing,
            Some(Ok(report)) => ObservedReport::Read(report),
            Some(Err(why)) => ObservedReport::Unusable(why),
        }
    }

    pub fn report(self) -> Option<BootReport> {
        match self {
            ObservedReport::Read(report) => Some(report),
            ObservedReport::Missing | ObservedReport::Unusable(_) => None,
        }
    }
}

/// The machine whose report a sweep reads: it has no runner, and has not reported as far as is recorded. In a pool that keeps
/// machines stopped, until it has reported that it is prepared.
pub fn awaited<'a>(pool: &Pool, slot: &'a Slot, now: Timestamp) -> Option<&'a Machine> {
    let SlotState::Launched(machine) = &slot.state else { return None };
    let is_open = slot.stop.is_none() && slot.gone_at.is_none();
    let may_be_set_aside = pool.stopped_at(now) > 0 && !slot.wanted;
    let lacks = slot.boot.is_none_or(|boot| may_be_set_aside && boot.report.prepared_at.is_none());
    (is_open && lacks).then_some(machine)
}

/// How many images are remembered. A pool has one per architecture, and a new one after each build.
const IMAGES_KEPT: usize = 20;

/// The images whose machines report, with what the slots show in addition to what was known before.
pub fn reporting(
    before: &BTreeMap<ImageId, ReportingImage>,
    machines: &[ObservedInstance],
    pools: &[(Pool, PoolView)],
) -> BTreeMap<ImageId, ReportingImage> {
    let images: BTreeMap<&InstanceId, &ImageId> =
        machines.iter().filter_map(|seen| Some((&seen.id, seen.image.as_ref()?))).collect();
    let mut reporting = before.clone();
    for slot in pools.iter().flat_map(|(_, view)| view.slots.values()) {
        let (Some(machine), Some(boot)) = (slot.machine(), slot.boot) else { continue };
        let Some(image) = images.get(&machine.instance) else { continue };
        let known = reporting
            .entry((*image).clone())
            .or_insert_with(|| ReportingImage { reported_at: boot.seen_at, missed: None });
        known.reported_at = known.reported_at.max(boot.seen_at);
    }
    while reporting.len() > IMAGES_KEPT {
        let oldest = reporting.iter().min_by_key(|(image, known)| (known.reported_at, *image));
        let Some(oldest) = oldest.map(|(image, _)| image.clone()) else { break };
        reporting.remove(&oldest);
    }
    reporting
}

/// Whether the machine's report would exist if the machine had come up.
pub fn is_expected(known: Option<&ReportingImage>, instance: &InstanceId) -> bool {
    known.is_some_and(|known| match &known.missed {
        None => true,
        // The same machine again: its stop was not written.
        Some(missed) => missed.instance == *instance || known.reported_at > missed.at,
    })
}

/// The machine is stopped because its report is missing.
pub fn note_missed(known: &mut ReportingImage, instance: &InstanceId, now: Timestamp) {
    if known.missed.as_ref().is_none_or(|missed| missed.instance != *instance) {
        known.missed = Some(MissedReport { instance: instance.clone(), at: now });
    }
}
