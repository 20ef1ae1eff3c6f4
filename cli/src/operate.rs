//! What an operator does by hand: `drover hold`, `release`, `retire` and `drain`.
//!
//! Each writes down what is wanted and leaves the doing to scaler and janitor, so that the order of things is theirs: a runner
//! is deregistered before its machine ends, and one with a job is not ended at all, unless that was asked for by its name.

use domain::ids::{InstanceId, PoolName};
use domain::log::{Cause, Stream, Transaction, Turn, What};
use domain::state::{Instance, Item, Key, Ownership, Slot, SlotState, StopReason};
use engine::ports::{Queue as _, Store};
use jiff::{SignedDuration, Timestamp};
use platform::ec2::Ec2;
use platform::queue::Queue;
use serde_json::json;

use crate::output::{Failure, Output};
use crate::read::{config, no_such_pool, view};

/// With what, and in whose name.
#[derive(Debug)]
pub struct Hands<'a, S> {
    /// The table.
    pub table: &'a S,
    /// EC2.
    pub ec2: &'a Ec2,
    /// Who asks, as the log will say.
    pub who: String,
    /// When.
    pub now: Timestamp,
}

/// Whether the tag is put on or taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nobody touches the machine.
    Keep,
    /// It is like any other again.
    Release,
}

/// Whether a job may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retirement {
    /// A machine with a job is left alone.
    Spare,
    /// It is ended with its job.
    Force,
}

/// Which way a pool's tap is turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// It takes no new jobs.
    Begin,
    /// It takes jobs again.
    Undo,
}

fn no(instance: &InstanceId, says: String) -> Output {
    Output { yes: false, json: json!({ "instance": instance, "done": false, "says": says }), text: format!("{says}\n") }
}

fn done(instance: &InstanceId, says: String) -> Output {
    Output { yes: true, json: json!({ "instance": instance, "done": true, "says": says }), text: format!("{says}\n") }
}

impl<S: Store> Hands<'_, S> {
    /// Puts the tag `drover:hold` on a machine, or takes it away. The tag is what counts; the slot's own mark only spares the
    /// minute until the janitor sees it.
    ///
    /// # Errors
    /// When EC2 or the table do not do it.
    pub async fn hold(&self, id: &InstanceId, hold: Hold) -> Result<Output, Failure> {
        config(self.table).await?;
        let Some(seen) = self.ec2.machine(id).await?.filter(|seen| seen.state.is_live()) else {
            return Ok(no(id, format!("EC2 shows no machine {id} of this stack -> drover ps lists them")));
        };
        match hold {
            Hold::Keep => self.ec2.hold(id, &self.who).await?,
            Hold::Release => self.ec2.release(id).await?,
        }
        if let Some((_, slot)) = self.slot(id).await? {
            let held = hold == Hold::Keep;
            self.table.commit(&Transaction::new().put(Slot { held, ..slot })).await?;
        }
        Ok(done(
            id,
            match hold {
                Hold::Keep => {
                    format!("{id} is held: Drover neither ends it nor gives it a runner -> drover release {id}")
                }
                Hold::Release if !seen.hold => format!("{id} was not held"),
                Hold::Release => format!("{id} is released: Drover does with it what is due"),
            },
        ))
    }

    /// Ends a machine: its runner is deregistered first, and if GitHub says that it has a job, nothing ends.
    ///
    /// # Errors
    /// When EC2, the table or the queue do not do it.
    pub async fn retire(&self, queue: &Queue, id: &InstanceId, how: Retirement) -> Result<Output, Failure> {
        let config = config(self.table).await?;
        let (instance, slot) = match self.instance(id).await? {
            None => return Ok(no(id, format!("Drover knows no machine {id} -> drover ps lists them"))),
            Some(instance) => match self.slot(id).await? {
                Some((_, slot)) => (instance, slot),
                None => return Ok(no(id, ownership(&instance))),
            },
        };
        if let Some(stop) = slot.stop.as_ref().filter(|stop| how == Retirement::Spare || stop.forced) {
            return Ok(no(id, format!("{id} is being retired already: {}", stop.why)));
        }
        if self.ec2.machine(id).await?.is_some_and(|seen| seen.hold) {
            return Ok(no(id, format!("{id} is held: nothing was done -> drover release {id}")));
        }
        let job = match &slot.state {
            SlotState::Busy { job, .. } => {
                let of = instance.repository.map(|repository| format!(" of {repository}")).unwrap_or_default();
                Some(format!("job {job}{of}"))
            }
            SlotState::Done { .. } => return Ok(no(id, format!("{id} has run its job and is going away by itself"))),
            SlotState::Planned | SlotState::Launched(_) | SlotState::Configured { .. } | SlotState::Online { .. } => {
                None
            }
        };
        let says = match (&job, how) {
            (Some(job), Retirement::Spare) => {
                let way = format!("wait for its end; drover retire {id} --force kills the job");
                return Ok(no(id, format!("{id} runs {job}: nothing was done -> {way}")));
            }
            (Some(job), Retirement::Force) => format!("{id} is being ended, and {job} with it"),
            (None, Retirement::Force) => format!("{id} is being retired, and a job with it if it has one by now"),
            (None, Retirement::Spare) => format!("{id} is being retired, unless it has a job by now"),
        };
        let (pool, slot_id, why) = (slot.pool.clone(), slot.id, StopReason::Operator);
        let slot = match how {
            Retirement::Spare => slot.stopped(why, self.now, self.now),
            Retirement::Force => slot.forced(self.now),
        };
        let what = What::Stopped { slot: slot_id, why };
        let cause = Cause::Operator(self.who.clone());
        let writes = Transaction::new().put(slot).emit(
            Stream::Pool(pool.clone()),
            what,
            &Turn { now: self.now, lease: self.now, cause },
        );
        self.table.commit(&writes).await?;
        if config.pool(&pool).is_some() {
            queue.nudge(&pool, SignedDuration::ZERO).await?;
        }
        Ok(done(id, says))
    }

    /// Turns a pool's tap off or on. What waits and runs there is finished; `drover pools apply` turns on what is in its file.
    ///
    /// # Errors
    /// When there is no such pool, or the table or the queue do not do it.
    pub async fn drain(&self, queue: &Queue, name: &PoolName, drain: Drain) -> Result<Output, Failure> {
        let mut config = config(self.table).await?;
        let draining = drain == Drain::Begin;
        let Some(pool) = config.pools.iter_mut().find(|pool| pool.name == *name) else {
            return Err(no_such_pool(name));
        };
        let changes = pool.draining != draining;
        pool.draining = draining;
        if changes {
            self.table.commit(&Transaction::new().put(config)).await?;
            queue.nudge(name, SignedDuration::ZERO).await?;
        }
        let view = view(self.table, name).await?;
        let (waiting, live) = (view.waiting.len(), view.live());
        let says = match drain {
            Drain::Begin => format!(
                "{name} takes no new jobs, within a minute; {waiting} waiting jobs and {live} machines are finished \
                 -> drover drain {name} --undo"
            ),
            Drain::Undo => format!("{name} takes jobs, within a minute"),
        };
        let json = json!({ "pool": name, "draining": draining, "changed": changes, "waiting": waiting, "live": live });
        Ok(Output { yes: true, text: format!("{says}\n"), json })
    }

    async fn instance(&self, id: &InstanceId) -> Result<Option<Instance>, Failure> {
        match self.table.get(&Key::Instance(id.clone())).await? {
            Some(Item::Instance(instance)) => Ok(Some(instance)),
            _ => Ok(None),
        }
    }

    /// The open slot that has the machine.
    async fn slot(&self, id: &InstanceId) -> Result<Option<(PoolName, Slot)>, Failure> {
        let Some(Instance { ownership: Ownership::Bound, pool: Some(pool), slot: Some(slot), .. }) =
            self.instance(id).await?
        else {
            return Ok(None);
        };
        match self.table.get(&Key::Slot(pool.clone(), slot)).await? {
            Some(Item::Slot(slot)) if slot.gone_at.is_none() => Ok(Some((pool, slot))),
            _ => Ok(None),
        }
    }
}

/// Why a machine without a slot is nothing to retire.
pub(crate) fn ownership(instance: &Instance) -> String {
    let id = &instance.id;
    match &instance.ownership {
        Ownership::Bound => format!("{id} is gone, and what is left of it is being tidied up"),
        Ownership::Condemned { why } => format!("{id} is being removed already: {}", why.as_str()),
        Ownership::Adopted => format!("{id} belongs to nobody and has a job: it is removed once that is over"),
        Ownership::Closed { closed_at, why } => format!("{id} is gone since {closed_at:.0}: {why}"),
    }
}
