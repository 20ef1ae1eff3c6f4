//! `drover events`: the log, oldest first.

use std::collections::BTreeSet;

use domain::ids::{JobId, PoolName};
use domain::log::{Event, Stream};
use domain::state::Key;
use platform::table::Table;
use serde_json::{Value, json};

use crate::output::{Failure, Output};
use crate::read;
use crate::story::{cause, told};

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this pool only.
    pub pool: Option<PoolName>,
    /// Of this job only.
    pub job: Option<JobId>,
    /// How many of each pool's are looked at, at first.
    pub newest: usize,
}

/// Reads the log, and goes on where it stopped.
#[derive(Debug, Default)]
pub struct Reader {
    wanted: Wanted,
    /// What was read. An event of a slow writer may come to stand before one that was.
    seen: BTreeSet<String>,
}

impl Reader {
    /// Nothing read yet.
    pub fn new(wanted: Wanted) -> Self {
        Self { wanted, seen: BTreeSet::new() }
    }

    /// What has come since the last call; at first, the newest.
    ///
    /// # Errors
    /// When the table cannot be read, or there is no such pool.
    pub async fn next(&mut self, table: &Table) -> Result<Output, Failure> {
        let pools = read::pools(table, self.wanted.pool.as_ref()).await?;
        let mut streams: Vec<Stream> = pools.into_iter().map(|pool| Stream::Pool(pool.name)).collect();
        if self.wanted.pool.is_none() && self.wanted.job.is_none() {
            streams.push(Stream::Stack);
        }
        let first = self.seen.is_empty();
        let mut events = Vec::new();
        for stream in streams {
            let mut newest = self.wanted.newest;
            let mut some = table.events(&stream, newest).await?;
            // As far back as what was read before: nothing is left out, however much came since.
            while !first && some.len() >= newest && !some.iter().any(|event| self.seen.contains(&event.sequence)) {
                newest *= 2;
                some = table.events(&stream, newest).await?;
            }
            events.extend(some);
        }
        events.retain(|event| self.seen.insert(event.sequence.clone()));
        events.retain(|event| self.wanted.job.is_none_or(|job| is_about(event, job)));
        events.sort_by(|a, b| a.sequence.cmp(&b.sequence));
        if first {
            events.drain(..events.len().saturating_sub(self.wanted.newest));
        }
        let text = events.iter().map(|event| line(event, self.wanted.job)).collect();
        Ok(Output { yes: true, text, json: events.iter().map(|event| json!(event)).collect::<Value>() })
    }
}

fn line(event: &Event, job: Option<JobId>) -> String {
    let stream = String::from(event.stream.clone());
    format!("{:.3}  {stream:<16}  {}  ({})\n", event.at, told(event, job), cause(&event.cause))
}

/// Whether it changed the job, or a slot or machine that has it.
fn is_about(event: &Event, job: JobId) -> bool {
    let key = Key::Job(job).to_string();
    event.after.iter().any(|after| after.key == key || after.is["job"].as_u64() == Some(job.0))
}
