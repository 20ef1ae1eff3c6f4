//! The janitor's lock, and what it remembers between sweeps.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::is_zero;
use crate::ids::{DeliveryId, ImageId, InstanceId, JobId, Owner, Repository, RunId, RunnerName, Scope};

/// The item `JANITOR`, `LOCK`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Janitor {
    /// The request id of the invocation that sweeps.
    pub holder: String,
    /// When the lock expires.
    pub until: Timestamp,
    /// What looked wrong in the last sweep, and since when.
    #[serde(default, deserialize_with = "readable_suspects")]
    pub suspects: BTreeMap<Suspect, Timestamp>,
    /// The time of the newest webhook delivery that was examined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examined_to: Option<Timestamp>,
    /// The time of the newest delivery that succeeded: ingest worked then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
    /// Events whose every delivery failed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub undelivered: BTreeMap<DeliveryId, Undelivered>,
    /// Repositories that had jobs for this stack recently, or that a pool names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub repositories: BTreeMap<Repository, SearchedRepository>,
    /// GitHub limits calls as the app itself, not as one of its installations, until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_backoff_until: Option<Timestamp>,
    /// Deliveries that are listed in several sweeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread_deliveries: Option<DeliveryReading>,
    /// The last reading of each list of runners.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lists: BTreeMap<Scope, ListReading>,
    /// For each account, until when its share of the budget is used up by the lists that were read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paid_until: BTreeMap<Owner, Timestamp>,
    /// For each account, where the search of its repositories is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rounds: BTreeMap<Owner, SearchRound>,
    /// The images whose machines report that they have booted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reporting: BTreeMap<ImageId, ReportingImage>,
    /// What the last search found that found something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<FoundJobs>,
    /// How many readings and removals failed in the last sweep that ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: usize,
    /// The first of these failures, as sentences with their reasons: see [`Janitor::keep_failures`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
    /// Since when sweeps have begun and none has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished_since: Option<Timestamp>,
    pub revision: u64,
}

/// Failures that are stored with their reasons.
pub(crate) const KEPT_FAILURES: usize = 5;

/// Characters of a stored failure. EC2's and GitHub's messages can be much longer.
const FAILURE_LENGTH: usize = 300;

/// The longest text of the item as JSON. DynamoDB allows 400 KB, and counts less than that text.
const LONGEST_ITEM: usize = 380_000;

impl Janitor {
    /// Keeps how many parts of a sweep failed, and the first of them, each on one line and shortened.
    pub fn keep_failures(self, failures: &[String]) -> Self {
        let failed = failures.len();
        Self { failed, failures: failures.iter().take(KEPT_FAILURES).map(|text| shortened(text)).collect(), ..self }
    }

    /// Forgets the newest suspects as long as the item would be too large, because it could not be written at all. The next sweep finds
    /// them again.
    #[must_use]
    pub fn within_limit(mut self) -> Self {
        let size = |it: &Self| serde_json::to_vec(it).map_or(0, |json| json.len());
        while !self.suspects.is_empty() && size(&self) > LONGEST_ITEM {
            let most = self.suspects.len() * 9 / 10;
            self.suspects = oldest_suspects(self.suspects, most);
        }
        self
    }
}

/// At most so many of the suspects, oldest first. The others are found again once these are removed.
pub fn oldest_suspects(found: BTreeMap<Suspect, Timestamp>, most: usize) -> BTreeMap<Suspect, Timestamp> {
    if found.len() <= most {
        return found;
    }
    let mut by_age: Vec<(Suspect, Timestamp)> = found.into_iter().collect();
    by_age.sort_by_key(|(_, since)| *since);
    by_age.truncate(most);
    by_age.into_iter().collect()
}

/// One line of at most [`FAILURE_LENGTH`] characters.
fn shortened(text: &str) -> String {
    let line: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).take(FAILURE_LENGTH).collect();
    if text.chars().nth(FAILURE_LENGTH).is_some() { format!("{line} ...") } else { line }
}

/// Something that looks wrong. It must look wrong in two readings before anything is removed because of it.
///
/// Stored as `<kind> <name>`, for example `unlisted i-0abc`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub enum Suspect {
    /// EC2 does not list this instance.
    Unlisted(InstanceId),
    /// EC2 shows this instance as `stopping`.
    Stopping(InstanceId),
    /// EC2 does not show this instance as `stopped`, and it should be. Not written before format 5 of the table.
    Running(InstanceId),
    /// It belongs to no open slot, and GitHub lists this many runners that may run on it, none with a job.
    Jobless(InstanceId, usize),
    /// The runner of this name was online or has a job, and is not connected.
    Offline(String),
    /// The runner of this name should have a job, and is listed as idle.
    Idle(String),
    /// GitHub does not list a runner of this name.
    Unregistered(String),
    /// No open slot uses the registration of this name.
    Stale(String),
}

impl From<Suspect> for String {
    fn from(suspect: Suspect) -> String {
        match suspect {
            Suspect::Unlisted(instance) => format!("unlisted {instance}"),
            Suspect::Stopping(instance) => format!("stopping {instance}"),
            Suspect::Running(instance) => format!("running {instance}"),
            Suspect::Jobless(instance, runners) => format!("jobless {instance} {runners}"),
            Suspect::Offline(runner) => format!("offline {runner}"),
            Suspect::Idle(runner) => format!("idle {runner}"),
            Suspect::Unregistered(runner) => format!("unregistered {runner}"),
            Suspect::Stale(runner) => format!("stale {runner}"),
        }
    }
}

impl Suspect {
    /// The runner that looks wrong, if its name is one of Drover's.
    pub fn runner(&self) -> Option<RunnerName> {
        match self {
            Suspect::Offline(name) | Suspect::Idle(name) | Suspect::Unregistered(name) | Suspect::Stale(name) => {
                name.parse().ok()
            }
            Suspect::Unlisted(_) | Suspect::Stopping(_) | Suspect::Running(_) | Suspect::Jobless(..) => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(' ')?;
        Some(match kind {
            "unlisted" => Suspect::Unlisted(InstanceId::from(name)),
            "stopping" => Suspect::Stopping(InstanceId::from(name)),
            "running" => Suspect::Running(InstanceId::from(name)),
            "jobless" => {
                let (instance, runners) = name.rsplit_once(' ')?;
                Suspect::Jobless(InstanceId::from(instance), runners.parse().ok()?)
            }
            "offline" => Suspect::Offline(name.to_owned()),
            "idle" => Suspect::Idle(name.to_owned()),
            "unregistered" => Suspect::Unregistered(name.to_owned()),
            "stale" => Suspect::Stale(name.to_owned()),
            _ => return None,
        })
    }
}

/// Leaves out suspects that this version cannot read. A missing suspect only delays a removal; an unreadable item would
/// stop every sweep.
fn readable_suspects<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Suspect, Timestamp>, D::Error> {
    let stored = BTreeMap::<String, Timestamp>::deserialize(from)?;
    Ok(stored.into_iter().filter_map(|(text, since)| Some((Suspect::parse(&text)?, since))).collect())
}

/// A webhook event whose every delivery has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// The id of the first failed attempt. A redelivery is requested by it.
    pub attempt: u64,
    /// The time of that attempt.
    pub failed_at: Timestamp,
    /// How many redeliveries were requested.
    pub redeliveries: u32,
    /// When the last redelivery was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
}

/// A repository that is searched for jobs whose webhook never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchedRepository {
    /// When it last had a job for this stack.
    pub seen_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searched_at: Option<Timestamp>,
    /// When its last search failed. None if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
    /// The run after which an unfinished search goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searched_to: Option<RunId>,
}

/// Jobs that a search found: their webhooks did not come, or the scaler had not recorded them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundJobs {
    pub at: Timestamp,
    pub jobs: usize,
    /// One of them.
    pub example: JobId,
}

/// Where the list of webhook deliveries, newest first, was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryReading {
    /// GitHub's cursor of the next page.
    pub from: String,
    /// Up to when deliveries are examined once the list was read to its end: the newest one on the first page, or the oldest for
    /// which there was no room.
    pub newest: Timestamp,
}

/// The last reading of a list of runners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReading {
    /// When it began.
    pub read_at: Timestamp,
    /// How many of its calls counted towards the account's hourly limit.
    pub counted: u32,
    /// How far the list was read.
    pub state: ListState,
}

/// How far a list of runners was read, and what it showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListState {
    /// The next sweep goes on.
    Unfinished,
    /// To the end.
    Finished,
    /// To the end, without a runner of the stack, and no slot of the scope was open and nothing looked wrong.
    Quiet,
}

/// What is known about the boot reports of an image's machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportingImage {
    /// When the newest report was recorded that a machine sent before it had a runner.
    pub reported_at: Timestamp,
    /// The last machine that was stopped because its report was missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<MissedReport>,
}

/// See [`ReportingImage::missed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedReport {
    pub instance: InstanceId,
    /// When its slot was stopped first.
    pub at: Timestamp,
}

/// Where the search of an account's repositories is. It reads GitHub's list of them page by page, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchRound {
    /// When it began with the first page.
    pub began_at: Timestamp,
    /// The page, from 1; 0 if the round is over.
    pub page: usize,
    /// How many repositories of the page were searched.
    pub searched: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_failures_are_kept_each_on_one_short_line() {
        let long = "é\n".repeat(FAILURE_LENGTH);
        let failures: Vec<String> = (0..8).map(|n| format!("{n} {long}")).collect();
        let kept = Janitor::default().keep_failures(&failures);
        assert_eq!((kept.failed, kept.failures.len()), (8, KEPT_FAILURES));
        for line in &kept.failures {
            assert!(line.chars().count() <= FAILURE_LENGTH + 4 && !line.contains('\n'), "{line}");
        }
        let stored = serde_json::to_value(kept.keep_failures(&[])).unwrap();
        assert!(stored.get("failures").is_none() && stored.get("failed").is_none(), "{stored}");
    }

    #[test]
    fn whatever_is_remembered_fits_one_item_and_the_oldest_suspects_stay() {
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        let name = |number: i64| format!("drover_a-long-name_a-pools-own-name_6yatbr_{number}_47_1");
        let event = Undelivered { attempt: u64::MAX >> 11, failed_at: at(1), redeliveries: 2, asked_at: Some(at(2)) };
        let times = (Some(at(2)), Some(at(3)), Some(RunId(u64::MAX >> 11)));
        let (searched_at, failed_at, searched_to) = times;
        let searched = SearchedRepository { seen_at: at(1), searched_at, failed_at, searched_to };
        let repository = |number: i64| format!("{}/{}{number:03}", "o".repeat(39), "r".repeat(97));
        let memory = Janitor {
            suspects: (0..1500).map(|number| (Suspect::Unregistered(name(number)), at(number))).collect(),
            undelivered: (0..500).map(|number| (format!("{number:036}").as_str().into(), event.clone())).collect(),
            repositories: (0..800).map(|it| (repository(it).parse().expect("a repository"), searched)).collect(),
            ..Janitor::default()
        };
        let size = |memory: &Janitor| serde_json::to_vec(memory).expect("it is JSON").len();
        assert!(size(&memory) > 400_000, "each of the three has its own limit, and together they are too large");
        let written = memory.clone().within_limit();
        assert!(size(&written) <= LONGEST_ITEM);
        assert!((1..1500).contains(&written.suspects.len()), "{}", written.suspects.len());
        assert!(written.suspects.values().all(|since| *since < at(written.suspects.len() as i64)), "the oldest");
        let few = Janitor { repositories: BTreeMap::new(), ..memory };
        assert_eq!(few.clone().within_limit(), few, "what fits stays");
    }
}
