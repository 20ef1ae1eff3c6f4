//! The models, and the time that passes in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::bail;
use engine::ports::Clock;
use jiff::{SignedDuration, Timestamp};
use platform::clock::SystemClock;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use world::Model;
use world::ec2::{self, Ec2};
use world::github::{self, GitHub, JobId, Offer, RunnerId};
use world::sqs::{Received, Sqs};

use crate::events::{Rules, interruption, state_change};
use crate::quotas;
use crate::root_volumes::RootVolumes;

/// Checks of a condition that take this long together take at most one in this many parts of the time.
const LONG_CHECK: Duration = Duration::from_millis(5);
const CHECKS_ARE_ONE_IN: u32 = 8;

/// Everything outside Drover.
#[derive(Debug)]
pub struct State {
    pub ec2: Ec2,
    /// The root volumes that launches asked for.
    pub root_volumes: RootVolumes,
    pub github: GitHub,
    /// How far GitHub's clock is ahead of the other clocks. GitHub uses it to verify JWTs and in its answers.
    pub github_ahead: SignedDuration,
    pub sqs: Sqs,
    /// So many of the next transactions are cancelled because a partition of the table has too many writes.
    pub throttled_transactions: u32,
    /// Secrets Manager, by the secret's name.
    pub secrets: BTreeMap<String, Secret>,
    /// The account's default KMS key for volumes.
    pub volume_key: String,
    /// The account's quotas in Service Quotas, by their code.
    pub quotas: BTreeMap<&'static str, f64>,
    /// Actions that are denied to everyone, as by a policy of the organisation.
    pub denied: BTreeSet<&'static str>,
    /// The outputs of the CloudFormation stack.
    pub outputs: BTreeMap<&'static str, String>,
    /// Messages that the event source mapping received, in this order.
    pub(crate) receptions: Vec<Reception>,
    /// Connected runner processes, with the channel to each.
    pub(crate) sessions: BTreeMap<RunnerId, mpsc::UnboundedSender<Notification>>,
}

/// A secret and its stages.
#[derive(Debug, Clone)]
pub struct Secret {
    /// `AWSCURRENT`.
    pub current: String,
    /// `AWSPREVIOUS`, after a rotation.
    pub previous: Option<String>,
    /// Creation time of the current version.
    pub created_at: Timestamp,
}

/// A message that the event source mapping received from the queue.
#[derive(Debug, Clone)]
pub(crate) struct Reception {
    /// The number of the repository, if it is about a job.
    pub(crate) repository: Option<u64>,
    /// The job, if the message reports that it is queued.
    pub(crate) queued: Option<JobId>,
    pub(crate) sent_at: Timestamp,
    pub(crate) at: Timestamp,
}

impl Reception {
    pub(crate) fn of(message: &Received, at: Timestamp) -> Self {
        let body: Value = serde_json::from_str(&message.body).unwrap_or_default();
        let queued = (body["action"] == "queued").then(|| body["job"]["id"].as_u64()).flatten().map(JobId);
        let repository = body["repository_id"].as_u64();
        Self { repository, queued, sent_at: message.sent_at, at }
    }
}

/// A message from GitHub to a connected runner.
#[derive(Debug, Clone)]
pub(crate) enum Notification {
    Offered(Offer),
    CancelWanted,
    /// Not from GitHub: the step that takes the run time ends now.
    Finish,
    Removed,
}

/// Something that happened in a model and that the sandbox has to act on.
#[derive(Debug)]
pub(crate) enum Happening {
    Ec2(ec2::Happening),
    GitHub(github::Happening),
}

/// The shared state, and the signals for those who wait for a change.
#[derive(Debug)]
pub struct World {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    wake: Notify,
}

impl World {
    /// A world with these models and no queues or secrets.
    pub fn new(ec2: Ec2, github: GitHub) -> Self {
        let state = State {
            ec2,
            root_volumes: RootVolumes::default(),
            github,
            github_ahead: SignedDuration::ZERO,
            throttled_transactions: 0,
            sqs: Sqs::default(),
            secrets: BTreeMap::new(),
            volume_key: "alias/aws/ebs".to_owned(),
            quotas: quotas::usual(),
            denied: BTreeSet::new(),
            outputs: BTreeMap::new(),
            receptions: Vec::new(),
            sessions: BTreeMap::new(),
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()), wake: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// Changes the state at the current time and wakes all waiters.
    pub fn act<T>(&self, act: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let done = act(&mut self.lock(), SystemClock.now());
        self.changed.send_replace(());
        self.wake.notify_one();
        done
    }

    /// Reads the state.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Wakes all waiters after a change outside the models.
    pub(crate) fn touch(&self) {
        self.changed.send_replace(());
    }

    /// Tries a change. Wakes the waiters only if it returns something.
    pub(crate) fn attempt<T>(&self, act: impl FnOnce(&mut State, Timestamp) -> Option<T>) -> Option<T> {
        let done = act(&mut self.lock(), SystemClock.now());
        if done.is_some() {
            self.changed.send_replace(());
            self.wake.notify_one();
        }
        done
    }

    /// Waits until a condition holds, and checks it after changes. A check that takes long, because of many jobs, is made less often.
    ///
    /// # Errors
    /// If it does not hold in time.
    pub async fn until<T>(
        &self,
        what: &str,
        max_wait: Duration,
        mut condition: impl FnMut(&State) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut changed = self.changed();
        let wait = async {
            loop {
                let began = Instant::now();
                if let Some(it) = self.look(&mut condition) {
                    return it;
                }
                let took = began.elapsed();
                if took >= LONG_CHECK {
                    sleep(took * CHECKS_ARE_ONE_IN).await;
                }
                // Never fails, because `self` owns the sender.
                let _ = changed.changed().await;
            }
        };
        match timeout(max_wait, wait).await {
            Ok(it) => Ok(it),
            Err(_) => bail!("timed out after {max_wait:?}, waiting for: {what}"),
        }
    }

    /// A receiver that is notified of every change.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        let mut changed = self.changed.subscribe();
        changed.mark_changed();
        changed
    }

    /// Advances the models' time until the receiver is dropped: sends what happens, and puts the events that match the
    /// rules on the queue.
    pub(crate) async fn run(&self, happenings: mpsc::UnboundedSender<Happening>, rules: Rules, queue: &str) {
        loop {
            let (next, happened, sent) = {
                let now = SystemClock.now();
                let mut state = self.lock();
                let mut happened: Vec<Happening> = state.ec2.advance(now).into_iter().map(Happening::Ec2).collect();
                happened.extend(state.github.advance(now).into_iter().map(Happening::GitHub));
                let next = [state.ec2.next_due(), state.github.next_due()].into_iter().flatten().min();
                let (entered, config) = (state.ec2.changes(), state.ec2.config());
                let matching = entered.iter().filter(|entered| rules.states.contains(&entered.state));
                let mut events: Vec<Value> = matching.map(|entered| state_change(entered, config)).collect();
                events.extend(happened.iter().filter_map(|happening| match happening {
                    Happening::Ec2(ec2::Happening::SpotNotice { instance, .. }) => {
                        Some(interruption(instance, now, config))
                    }
                    Happening::Ec2(_) | Happening::GitHub(_) => None,
                }));
                for event in &events {
                    // EventBridge drops what it cannot deliver. Each rule of the template has a group.
                    let group = event["detail-type"].as_str().map(|kind| kind.replace(' ', "-"));
                    let _ = state.sqs.send_in_group(queue, &event.to_string(), group.as_deref(), Duration::ZERO, now);
                }
                (next, happened, !events.is_empty())
            };
            if sent || !happened.is_empty() {
                self.changed.send_replace(());
            }
            for happening in happened {
                if happenings.send(happening).is_err() {
                    return;
                }
            }
            tokio::select! {
                () = until(next) => {}
                () = self.wake.notified() => {}
            }
        }
    }
}

/// Sleeps until that time, or forever if there is none.
pub async fn until(then: Option<Timestamp>) {
    match then {
        Some(then) => {
            let left = then.duration_since(SystemClock.now());
            sleep(Duration::try_from(left).unwrap_or_default()).await;
        }
        None => std::future::pending().await,
    }
}
