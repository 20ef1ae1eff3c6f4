//! The world and its time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::bail;
use engine::ports::Clock;
use jiff::{SignedDuration, Timestamp};
use platform::clock::SystemClock;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};
use world::Model;
use world::ec2::{self, Ec2};
use world::github::{self, GitHub, Offer, RunnerId};
use world::sqs::Sqs;

use crate::events::{Rules, interruption, state_change};

/// Everything outside Drover.
#[derive(Debug)]
pub struct State {
    /// EC2.
    pub ec2: Ec2,
    /// GitHub.
    pub github: GitHub,
    /// How far GitHub's clock is ahead of everybody else's: what it checks the times of a JWT with, and tells times by.
    pub github_ahead: SignedDuration,
    /// SQS.
    pub sqs: Sqs,
    /// Secrets Manager, by the secret's name.
    pub secrets: BTreeMap<String, Secret>,
    /// Connected runner processes, and how they are told things.
    pub(crate) sessions: BTreeMap<RunnerId, mpsc::UnboundedSender<Told>>,
}

/// A secret and its stages.
#[derive(Debug, Clone)]
pub struct Secret {
    /// `AWSCURRENT`.
    pub current: String,
    /// `AWSPREVIOUS`, after a rotation.
    pub previous: Option<String>,
    /// When the current version was made.
    pub created_at: Timestamp,
}

/// What GitHub tells a connected runner.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Offered(Offer),
    CancelWanted,
    Removed,
}

/// Something that whoever runs the world has to act on.
#[derive(Debug)]
pub(crate) enum Happening {
    Ec2(ec2::Happening),
    GitHub(github::Happening),
}

/// The state, shared, and what wakes those who wait for it to change.
#[derive(Debug)]
pub struct World {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    wake: Notify,
}

impl World {
    /// A world as the models are.
    pub fn new(ec2: Ec2, github: GitHub) -> Self {
        let state = State {
            ec2,
            github,
            github_ahead: SignedDuration::ZERO,
            sqs: Sqs::default(),
            secrets: BTreeMap::new(),
            sessions: BTreeMap::new(),
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()), wake: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// Does something in the world, now. Whoever waits looks again.
    pub fn act<T>(&self, act: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let done = act(&mut self.lock(), SystemClock.now());
        self.changed.send_replace(());
        self.wake.notify_one();
        done
    }

    /// Looks at the world.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Something happened outside the models: whoever waits looks again.
    pub(crate) fn touch(&self) {
        self.changed.send_replace(());
    }

    /// Tries something that may find nothing to do, and then wakes nobody.
    pub(crate) fn attempt<T>(&self, act: impl FnOnce(&mut State, Timestamp) -> Option<T>) -> Option<T> {
        let done = act(&mut self.lock(), SystemClock.now());
        if done.is_some() {
            self.changed.send_replace(());
            self.wake.notify_one();
        }
        done
    }

    /// Waits until the world is so, looking whenever it changes.
    ///
    /// # Errors
    /// When it is not within that time.
    pub async fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut is: impl FnMut(&State) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut changed = self.changed();
        let wait = async {
            loop {
                if let Some(it) = self.look(&mut is) {
                    return it;
                }
                // The sender lives as long as we do.
                let _ = changed.changed().await;
            }
        };
        match timeout(patience, wait).await {
            Ok(it) => Ok(it),
            Err(_) => bail!("waited {patience:?} in vain for this: {what}"),
        }
    }

    /// Tells of every change.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        let mut changed = self.changed.subscribe();
        changed.mark_changed();
        changed
    }

    /// Lets the world's time pass, for ever: whatever is due happens, and is told; what EC2 says of it, and the rules let
    /// pass, is put on the queue.
    pub(crate) async fn run(&self, tell: mpsc::UnboundedSender<Happening>, rules: Rules, queue: &str) {
        let mut seen = 0;
        loop {
            let (next, happened, sent) = {
                let now = SystemClock.now();
                let mut state = self.lock();
                let mut happened: Vec<Happening> = state.ec2.advance(now).into_iter().map(Happening::Ec2).collect();
                happened.extend(state.github.advance(now).into_iter().map(Happening::GitHub));
                let next = [state.ec2.next_due(), state.github.next_due()].into_iter().flatten().min();
                let (entered, config) = (&state.ec2.entered()[seen..], state.ec2.config());
                seen += entered.len();
                let passing = entered.iter().filter(|entered| rules.states.contains(&entered.state));
                let mut events: Vec<Value> = passing.map(|entered| state_change(entered, config)).collect();
                events.extend(happened.iter().filter_map(|happening| match happening {
                    Happening::Ec2(ec2::Happening::SpotNotice { instance, .. }) => {
                        Some(interruption(instance, now, config))
                    }
                    Happening::Ec2(_) | Happening::GitHub(_) => None,
                }));
                for event in &events {
                    // EventBridge drops what it cannot deliver.
                    let _ = state.sqs.send(queue, &event.to_string(), Duration::ZERO, now);
                }
                (next, happened, !events.is_empty())
            };
            if sent || !happened.is_empty() {
                self.changed.send_replace(());
            }
            for happening in happened {
                if tell.send(happening).is_err() {
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

/// Sleeps until then; for ever, if never.
pub async fn until(then: Option<Timestamp>) {
    match then {
        Some(then) => {
            let left = then.duration_since(SystemClock.now());
            sleep(Duration::try_from(left).unwrap_or_default()).await;
        }
        None => std::future::pending().await,
    }
}
