//! What the overview shows, read from the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::ids::JobId;
use domain::log::{Event, Stream};
use domain::policy::notify::{Reader, reasons};
use jiff::Timestamp;
use platform::table::Table;

use super::history::Histories;
use crate::jobs::{self, JobRow};
use crate::output::Failure;
use crate::pools::{self, PoolRow};
use crate::ps::{self, Kind, Row};
use crate::read;
use crate::status::Surroundings;

/// Events on the page.
const MAX_EVENTS: usize = 40;

/// The state of the stack.
pub(super) struct Overview {
    pub(super) surroundings: Surroundings,
    pub(super) pools: Vec<PoolRow>,
    /// Waiting and running, the longest wait first.
    pub(super) jobs: Vec<JobRow>,
    /// Why each waiting job waits.
    pub(super) reasons: BTreeMap<JobId, String>,
    pub(super) machines: Vec<Row>,
    pub(super) histories: Arc<Histories>,
    /// Newest first.
    pub(super) events: Vec<Event>,
}

impl Overview {
    pub(super) async fn read(
        table: &Table,
        surroundings: &Surroundings,
        histories: Arc<Histories>,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let config = read::config(table).await?;
        let (mut pools, mut reasons_of, mut events) = (Vec::new(), BTreeMap::new(), Vec::new());
        for pool in &config.pools {
            let view = read::view(table, &pool.name).await?;
            if config.is_removed(&pool.name) && view.is_empty() {
                continue;
            }
            pools.push(pools::row(pool, &view, now));
            for job in view.waiting.values() {
                let why = match job.open || job.given_up(now).is_some() {
                    true => reasons(pool, &view, job, Reader::Operator, now).into_iter().next(),
                    false => {
                        Some("held: it needs an approval, or GitHub has not confirmed that it is queued".to_owned())
                    }
                };
                reasons_of.insert(job.id, why.unwrap_or_default());
            }
            events.extend(table.events(&Stream::Pool(pool.name.clone()), MAX_EVENTS).await?);
        }
        events.extend(table.events(&Stream::Stack, MAX_EVENTS).await?);
        events.sort_by(|a, b| b.sequence.cmp(&a.sequence));
        events.truncate(MAX_EVENTS);
        let mut machines = ps::rows(table, None, now).await?;
        machines.retain(|row| row.kind != Kind::WaitingJob);
        machines.sort_by_key(|row| row.kind == Kind::GoneMachine);
        Ok(Self {
            surroundings: surroundings.clone(),
            pools,
            jobs: jobs::rows(table, None, now).await?,
            reasons: reasons_of,
            machines,
            histories,
            events,
        })
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &JobRow> {
        self.jobs.iter().filter(|job| job.state != jobs::State::Running)
    }

    pub(super) fn reason(&self, job: &JobRow) -> &str {
        self.reasons.get(&job.job).map_or("", String::as_str)
    }

    pub(super) fn job_name(&self, machine: &Row) -> &str {
        let job = machine.job.and_then(|id| self.jobs.iter().find(|row| row.job == id));
        job.map_or("", |job| job.name.as_str())
    }
}
