//! `drover events`: the event log, oldest first.

use std::collections::BTreeSet;

use domain::ids::{JobId, PoolName};
use domain::log::{Event, Stream};
use domain::state::Key;
use engine::ports::Store;
use jiff::Timestamp;
use platform::table::Table;
use serde_json::{Value, json};

use crate::describe;
use crate::output::{Failure, Output, one_line};
use crate::read::{self, log_since};

/// The events to show.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub pool: Option<PoolName>,
    pub job: Option<JobId>,
    /// How many events of each log the first read covers, unless `since` is set.
    pub newest: usize,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// Reads the log. Each further read continues where the last one stopped.
#[derive(Debug, Default)]
pub struct Reader {
    filter: Filter,
    /// The sequences of all events read: an event of a slow writer may sort before one that was read earlier.
    known: BTreeSet<String>,
    has_read: bool,
}

impl Reader {
    pub fn new(filter: Filter) -> Self {
        Self { filter, known: BTreeSet::new(), has_read: false }
    }

    /// The events since the last call; on the first call the newest.
    ///
    /// # Errors
    /// The table cannot be read, or the pool does not exist.
    pub async fn next(&mut self, table: &Table) -> Result<Output, Failure> {
        let is_first = !std::mem::replace(&mut self.has_read, true);
        let mut events = Vec::new();
        for stream in self.streams(table).await? {
            events.extend(self.unread(table, &stream).await?);
        }
        events.retain(|event| self.known.insert(event.sequence.clone()));
        events.retain(|event| self.filter.job.is_none_or(|job| concerns(event, job)));
        events.sort_by(|a, b| a.sequence.cmp(&b.sequence));
        if is_first {
            let since = self.filter.since.unwrap_or(Timestamp::MIN);
            events.retain(|event| event.at >= since && self.filter.until.is_none_or(|until| event.at < until));
            if self.filter.since.is_none() {
                events.drain(..events.len().saturating_sub(self.filter.newest));
            }
        }
        if let (true, true, Some(job)) = (is_first, events.is_empty(), self.filter.job) {
            return self.no_event(table, job).await;
        }
        let text = events.iter().map(|event| line(event, self.filter.job)).collect();
        Ok(Output { ok: true, text, json: events.iter().map(|event| json!(event)).collect::<Value>() })
    }

    /// The events of the first call, or a line that says that there are none.
    ///
    /// # Errors
    /// The same.
    pub async fn once(mut self, table: &Table) -> Result<Output, Failure> {
        let mut output = self.next(table).await?;
        if output.text.is_empty() {
            let has_period = self.filter.since.is_some() || self.filter.until.is_some();
            output.text = if has_period { "no events in this period\n" } else { "no events\n" }.to_owned();
        }
        Ok(output)
    }

    /// The answer if none of the events is about the job.
    async fn no_event(&self, table: &Table, job: JobId) -> Result<Output, Failure> {
        let known = table.get(&Key::Job(job)).await?.is_some();
        let has_period = self.filter.since.is_some() || self.filter.until.is_some();
        let text = match known {
            true if has_period => {
                format!("no event about job {job} in this period -> an earlier --since, or drover explain {job}\n")
            }
            true => format!(
                "none of the newest {} events of each pool is about job {job} -> drover events --job {job} --newest 5000, \
                 or drover explain {job}\n",
                self.filter.newest
            ),
            false => format!("Drover has no record of job {job} -> drover explain {job} says what that can mean\n"),
        };
        Ok(Output { ok: known, text, json: json!([]) })
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
        if let (true, Some(since)) = (self.known.is_empty(), self.filter.since) {
            return log_since(table, stream, since).await;
        }
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
    let what = one_line(&describe::event(event, job));
    format!("{:.3}  {stream:<16}  {what}  ({})\n", event.at, describe::cause(&event.cause))
}

/// Whether the event changed the job, or a slot or machine that has it.
fn concerns(event: &Event, job: JobId) -> bool {
    let key = Key::Job(job).to_string();
    event.after.iter().any(|after| after.key == key || after.fields["job"].as_u64() == Some(job.0))
}
