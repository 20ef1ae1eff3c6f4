//! `drover events`: the event log, oldest first.

use std::collections::BTreeSet;

use domain::ids::{JobId, PoolName};
use domain::log::{Event, Stream};
use domain::state::Key;
use platform::table::Table;
use serde_json::{Value, json};

use crate::describe;
use crate::output::{Failure, Output};
use crate::read;

/// The events to show.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub pool: Option<PoolName>,
    pub job: Option<JobId>,
    /// How many events of each log the first read covers.
    pub newest: usize,
}

/// Reads the log. Each further read continues where the last one stopped.
#[derive(Debug, Default)]
pub struct Reader {
    filter: Filter,
    /// The sequences of all events read: an event of a slow writer may sort before one that was read earlier.
    known: BTreeSet<String>,
}

impl Reader {
    pub fn new(filter: Filter) -> Self {
        Self { filter, known: BTreeSet::new() }
    }

    /// The events since the last call; on the first call the newest.
    ///
    /// # Errors
    /// The table cannot be read, or the pool does not exist.
    pub async fn next(&mut self, table: &Table) -> Result<Output, Failure> {
        let is_first = self.known.is_empty();
        let mut events = Vec::new();
        for stream in self.streams(table).await? {
            events.extend(self.unread(table, &stream).await?);
        }
        events.retain(|event| self.known.insert(event.sequence.clone()));
        events.retain(|event| self.filter.job.is_none_or(|job| concerns(event, job)));
        events.sort_by(|a, b| a.sequence.cmp(&b.sequence));
        if is_first {
            events.drain(..events.len().saturating_sub(self.filter.newest));
        }
        let text = events.iter().map(|event| line(event, self.filter.job)).collect();
        Ok(Output { ok: true, text, json: events.iter().map(|event| json!(event)).collect::<Value>() })
    }

    /// The log of each pool in question; without a filter also the log of events that belong to no pool.
    async fn streams(&self, table: &Table) -> Result<Vec<Stream>, Failure> {
        let pools = read::pools(table, self.filter.pool.as_ref()).await?;
        let mut streams: Vec<Stream> = pools.into_iter().map(|pool| Stream::Pool(pool.name)).collect();
        if self.filter.pool.is_none() && self.filter.job.is_none() {
            streams.push(Stream::Stack);
        }
        Ok(streams)
    }

    /// The newest events of a log, back to the last one known, however many were added since.
    async fn unread(&self, table: &Table, stream: &Stream) -> Result<Vec<Event>, Failure> {
        let mut newest = self.filter.newest;
        loop {
            let events = table.events(stream, newest).await?;
            let is_complete = self.known.is_empty()
                || events.len() < newest
                || events.iter().any(|event| self.known.contains(&event.sequence));
            if is_complete {
                return Ok(events);
            }
            newest *= 2;
        }
    }
}

fn line(event: &Event, job: Option<JobId>) -> String {
    let stream = String::from(event.stream.clone());
    format!("{:.3}  {stream:<16}  {}  ({})\n", event.at, describe::event(event, job), describe::cause(&event.cause))
}

/// Whether the event changed the job, or a slot or machine that has it.
fn concerns(event: &Event, job: JobId) -> bool {
    let key = Key::Job(job).to_string();
    event.after.iter().any(|after| after.key == key || after.fields["job"].as_u64() == Some(job.0))
}
