//! What an operator changes by hand: `drover hold`, `release`, `retire`, `drain`, `pause`, `resume` and `forget`.
//!
//! Each command writes its request to the table, and scaler and janitor carry it out in their usual order: a runner is
//! deregistered before its machine is terminated, and a machine with a job is left alone unless the operator forces it.

use domain::config::Pool;
use domain::ids::{InstanceId, JobId, PoolName};
use domain::log::{Cause, Stream, Transaction, Turn, What};
use domain::policy::{check, circuit};
use domain::state::{Instance, Item, Key, Ownership, Slot, SlotState, StopReason};
use engine::ports::{CommitError, Queue as _, Store};
use jiff::{SignedDuration, Timestamp};
use platform::ec2::Ec2;
use platform::queue::Queue;
use serde_json::json;

use crate::output::{Failure, Output, count};
use crate::read::{config, no_such_pool, view};

/// What the commands need.
#[derive(Debug)]
pub struct Operator<'a, S> {
    pub table: &'a S,
    pub ec2: &'a Ec2,
    /// Written to the event log as the cause.
    pub identity: String,
    pub now: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldAction {
    /// Drover neither terminates the machine nor gives it a runner.
    Hold,
    Release,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retirement {
    /// Leaves a machine with a job alone.
    Graceful,
    /// Terminates the machine together with its job.
    Forced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainAction {
    Start,
    Undo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseAction {
    /// Launches nothing. Machines stay, and jobs wait.
    Pause,
    Resume,
}

/// A pool after an operator's change.
struct Change {
    pool: Pool,
    /// False if it was as asked already.
    changed: bool,
    /// Number of waiting jobs.
    waiting: usize,
    /// Number of machines.
    live: usize,
}

/// The result for a machine for which nothing was done.
pub fn refused(instance: &InstanceId, message: String) -> Output {
    let json = json!({ "instance": instance, "done": false, "says": message });
    Output { ok: false, json, text: format!("{message}\n") }
}

fn done(instance: &InstanceId, message: String) -> Output {
    let json = json!({ "instance": instance, "done": true, "says": message });
    Output { ok: true, json, text: format!("{message}\n") }
}

impl<S: Store> Operator<'_, S> {
    /// Sets or removes the tag `drover:hold`. The tag decides; the mark on the slot only makes it effective before the next
    /// sweep reads the tag.
    ///
    /// # Errors
    /// EC2 or the table fails.
    pub async fn hold(&self, id: &InstanceId, action: HoldAction) -> Result<Output, Failure> {
        config(self.table).await?;
        let Some(observed) = self.ec2.machine(id).await?.filter(|machine| machine.state.is_live()) else {
            return Ok(refused(
                id,
                format!("EC2 shows no live machine {id} of this stack -> drover ps lists machines"),
            ));
        };
        match action {
            HoldAction::Hold => self.ec2.hold(id, &self.identity).await?,
            HoldAction::Release => self.ec2.release(id).await?,
        }
        // The tag is set, so a slot that another invocation has just written is read again, and not reported as an error.
        while let Some(slot) = self.slot(id).await? {
            let held = action == HoldAction::Hold;
            match self.table.commit(&Transaction::new().put(Slot { held, ..slot })).await {
                Ok(()) => break,
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let message = match action {
            HoldAction::Hold if observed.hold => format!("{id} is held already -> drover release {id}"),
            HoldAction::Hold => {
                format!("{id} is held: Drover neither terminates it nor gives it a runner -> drover release {id}")
            }
            HoldAction::Release if !observed.hold => format!("{id} was not held"),
            HoldAction::Release => format!("{id} is released: Drover manages it again"),
        };
        Ok(done(id, message))
    }

    /// Stops the machine's slot: the runner is deregistered, then the machine is terminated. If GitHub answers that the runner
    /// has a job, a graceful retirement ends nothing.
    ///
    /// # Errors
    /// EC2, the table or the queue fails.
    pub async fn retire(&self, queue: &Queue, id: &InstanceId, how: Retirement) -> Result<Output, Failure> {
        let config = config(self.table).await?;
        let Some(instance) = self.instance(id).await? else {
            return Ok(refused(id, format!("Drover has no record of {id} -> drover ps lists machines")));
        };
        let Some(slot) = self.slot(id).await? else {
            return Ok(refused(id, format!("{} -> drover ps lists machines", ownership(&instance))));
        };
        let message = match self.retirement(&instance, &slot, how).await? {
            Ok(message) => message,
            Err(why) => return Ok(refused(id, why)),
        };
        let (pool, slot_id, why) = (slot.pool.clone(), slot.id, StopReason::Operator);
        let slot = match how {
            Retirement::Graceful => slot.stopped(why, self.now, self.now),
            Retirement::Forced => slot.forced(self.now),
        };
        let what = What::Stopped { slot: slot_id, why };
        let turn = Turn { now: self.now, lease: self.now, cause: Cause::Operator(self.identity.clone()) };
        let writes = Transaction::new().put(slot).emit(Stream::Pool(pool.clone()), what, &turn);
        self.table.commit(&writes).await?;
        if config.pool(&pool).is_some() {
            queue.nudge(&pool, SignedDuration::ZERO).await?;
        }
        Ok(done(id, message))
    }

    /// What a retirement does, or why it is refused.
    async fn retirement(
        &self,
        instance: &Instance,
        slot: &Slot,
        how: Retirement,
    ) -> Result<Result<String, String>, Failure> {
        let id = &instance.id;
        if let Some(stop) = slot.stop.as_ref().filter(|stop| how == Retirement::Graceful || stop.forced) {
            return Ok(Err(format!(
                "{id} is already being retired: {} -> drover ps shows it until it has ended",
                ending(stop.why.as_str())
            )));
        }
        if self.ec2.machine(id).await?.is_some_and(|observed| observed.hold) {
            return Ok(Err(format!("{id} is held: nothing was done -> drover release {id}")));
        }
        let job = match &slot.state {
            SlotState::Busy { job, .. } => {
                let of = instance.repository.as_ref().map(|repository| format!(" of {repository}")).unwrap_or_default();
                Some(format!("job {job}{of}"))
            }
            SlotState::Done { .. } => {
                return Ok(Err(format!("{id} has run its job and is shutting down -> drover ps lists machines")));
            }
            SlotState::Planned
            | SlotState::Launched(_)
            | SlotState::Prepared(_)
            | SlotState::Stopped(_)
            | SlotState::Started(_)
            | SlotState::Configured { .. }
            | SlotState::Online { .. } => None,
        };
        Ok(match (job, how) {
            (Some(job), Retirement::Graceful) => Err(format!(
                "{id} runs {job}: nothing was done -> wait until the job ends; drover retire {id} --force kills the job"
            )),
            (Some(job), Retirement::Forced) => Ok(format!("{id} is being terminated, which kills {job}")),
            (None, Retirement::Forced) => {
                Ok(format!("{id} is being terminated, together with any job it has received meanwhile"))
            }
            (None, Retirement::Graceful) => {
                Ok(format!("{id} is being retired, unless it has received a job meanwhile"))
            }
        })
    }

    /// Gives up a waiting job: nothing is launched for it again. A machine that is on its way for it is retired unless another
    /// job needs it.
    ///
    /// # Errors
    /// The table or the queue fails.
    pub async fn forget(&self, queue: &Queue, id: JobId) -> Result<Output, Failure> {
        let config = config(self.table).await?;
        let answer = |ok, message: String| {
            let json = json!({ "job": id, "done": ok, "says": message });
            Output { ok, json, text: format!("{message}\n") }
        };
        let job = match self.table.get(&Key::Job(id)).await? {
            Some(Item::Job(job)) => *job,
            _ => return Ok(answer(false, format!("Drover has no record of job {id} -> drover jobs lists jobs"))),
        };
        let view = view(self.table, &job.pool).await?;
        let (Some(waiting), Some(pool)) = (view.waiting.get(&id), config.pool(&job.pool)) else {
            let message = format!("job {id} is not waiting: nothing was done -> drover explain {id}");
            return Ok(answer(false, message));
        };
        let repository = job.repository.clone();
        let turn = Turn { now: self.now, lease: self.now, cause: Cause::Operator(self.identity.clone()) };
        self.table.commit(&check::forget(pool, &view, waiting, Some(job), &turn)).await?;
        queue.nudge(&pool.name, SignedDuration::ZERO).await?;
        let message = format!("job {id} of {repository} is forgotten: nothing is launched for it again");
        Ok(answer(true, message))
    }

    /// Stops or resumes taking new jobs. Jobs that wait or run in the pool are finished either way.
    ///
    /// # Errors
    /// The pool does not exist, or the table or the queue fails.
    pub async fn drain(&self, queue: &Queue, name: &PoolName, action: DrainAction) -> Result<Output, Failure> {
        let draining = action == DrainAction::Start;
        let change = |pool: Pool, is_removed| match (action, is_removed) {
            (DrainAction::Undo, true) => Err(Failure::Usage(format!(
                "{name} is no longer in the pool file: nothing was done -> put it back into the file, and drover pools apply FILE"
            ))),
            (DrainAction::Start, _) | (DrainAction::Undo, false) => Ok(Pool { draining, ..pool }),
        };
        let Change { pool, changed, waiting, live } = self.change(queue, name, change).await?;
        let left = || {
            let verb = if (waiting, live) == (1, 0) || (waiting, live) == (0, 1) { "is" } else { "are" };
            let left = [(waiting, "waiting job"), (live, "machine")];
            let left: Vec<String> = left.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| count(*n, noun)).collect();
            match left.is_empty() {
                true => "nothing is left to finish".to_owned(),
                false => format!("{} {verb} left to finish", left.join(" and ")),
            }
        };
        let mut text = match (action, changed) {
            (DrainAction::Start, true) => {
                format!("{name} takes no new jobs after at most a minute; {} -> drover drain {name} --undo\n", left())
            }
            (DrainAction::Start, false) => {
                format!("{name} is draining already; {} -> drover drain {name} --undo\n", left())
            }
            (DrainAction::Undo, true) => format!("{name} takes jobs again within a minute\n"),
            (DrainAction::Undo, false) => format!("{name} was not draining\n"),
        };
        if pool.paused {
            let also = if draining { "also" } else { "still" };
            text += &format!("{name} is {also} paused: it launches nothing -> drover resume {name}\n");
        }
        let json = json!({ "pool": name, "draining": draining, "changed": changed, "waiting": waiting, "live": live });
        Ok(Output { ok: true, text, json })
    }

    /// Stops or resumes launching. The pool takes jobs either way, and its machines stay. Resuming also tries again at once what
    /// EC2 refused and what failed.
    ///
    /// # Errors
    /// The pool does not exist, or the table or the queue fails.
    pub async fn pause(&self, queue: &Queue, name: &PoolName, action: PauseAction) -> Result<Output, Failure> {
        let paused = action == PauseAction::Pause;
        let Change { pool, changed, waiting, live } =
            self.change(queue, name, |pool, _| Ok(Pool { paused, ..pool })).await?;
        let left = || {
            let jobs = match waiting {
                0 => "no job waits".to_owned(),
                1 => "1 job waits".to_owned(),
                many => format!("{many} jobs wait"),
            };
            let machines = match live {
                0 => "it has no machines".to_owned(),
                1 => "its machine stays".to_owned(),
                many => format!("its {many} machines stay"),
            };
            format!("{jobs}, and {machines}")
        };
        let mut text = match (action, changed) {
            (PauseAction::Pause, true) => {
                format!("{name} launches nothing after at most a minute; {} -> drover resume {name}\n", left())
            }
            (PauseAction::Pause, false) => format!("{name} is paused already; {} -> drover resume {name}\n", left()),
            (PauseAction::Resume, true) => format!("{name} launches again within a minute\n"),
            (PauseAction::Resume, false) => format!("{name} was not paused\n"),
        };
        if pool.draining {
            let also = if paused { "also" } else { "still" };
            text += &format!("{name} is {also} draining: it takes no new jobs -> drover drain {name} --undo\n");
        }
        let mut json = json!({ "pool": name, "paused": paused, "changed": changed, "waiting": waiting, "live": live });
        if action == PauseAction::Resume {
            let tried_again = self.try_again(queue, name).await?;
            json["tried_again"] = json!(tried_again);
            if tried_again {
                text += "What EC2 refused is tried again, and an open circuit's next probe is due\n";
            }
        }
        Ok(Output { ok: true, text, json })
    }

    /// Ends the pool's waits. Returns whether there were any.
    async fn try_again(&self, queue: &Queue, name: &PoolName) -> Result<bool, Failure> {
        let writes = circuit::try_again(&view(self.table, name).await?, self.now);
        if writes.puts.is_empty() {
            return Ok(false);
        }
        self.table.commit(&writes).await?;
        queue.nudge(name, SignedDuration::ZERO).await?;
        Ok(true)
    }

    /// Changes the pool in force. `change` also gets whether the pool was removed from the pool file.
    async fn change(
        &self,
        queue: &Queue,
        name: &PoolName,
        change: impl FnOnce(Pool, bool) -> Result<Pool, Failure>,
    ) -> Result<Change, Failure> {
        let mut config = config(self.table).await?;
        let is_removed = config.is_removed(name);
        let Some(pool) = config.pools.iter_mut().find(|pool| pool.name == *name) else {
            return Err(no_such_pool(name));
        };
        let after = change(pool.clone(), is_removed)?;
        let changed = *pool != after;
        if changed {
            *pool = after.clone();
            self.table.commit(&Transaction::new().put(config)).await?;
            queue.nudge(name, SignedDuration::ZERO).await?;
        }
        let view = view(self.table, name).await?;
        Ok(Change { pool: after, changed, waiting: view.waiting.len(), live: view.live() })
    }

    async fn instance(&self, id: &InstanceId) -> Result<Option<Instance>, Failure> {
        match self.table.get(&Key::Instance(id.clone())).await? {
            Some(Item::Instance(instance)) => Ok(Some(instance)),
            _ => Ok(None),
        }
    }

    /// The open slot that the machine is bound to.
    async fn slot(&self, id: &InstanceId) -> Result<Option<Slot>, Failure> {
        let Some(Instance { ownership: Ownership::Bound, pool: Some(pool), slot: Some(slot), .. }) =
            self.instance(id).await?
        else {
            return Ok(None);
        };
        match self.table.get(&Key::Slot(pool, slot)).await? {
            Some(Item::Slot(slot)) if slot.gone_at.is_none() => Ok(Some(slot)),
            _ => Ok(None),
        }
    }
}

/// The state of a machine that has no open slot.
pub(crate) fn ownership(instance: &Instance) -> String {
    let id = &instance.id;
    match &instance.ownership {
        Ownership::Bound => format!("{id} is gone; Drover is removing its records"),
        Ownership::Condemned { why } => format!("{id} is already being removed: {}", ending(why.as_str())),
        Ownership::Adopted => format!("{id} has a job but belongs to no slot: Drover removes it after the job"),
        Ownership::Closed { closed_at, why } => format!("{id} has been gone since {closed_at:.0}: {}", ending(why)),
    }
}

/// Why a machine ended, in plain words. The argument is the text that the table has: of a slot's outcome, a reason to stop it, or
/// a reason to remove an unowned machine.
fn ending(why: &str) -> &str {
    match why {
        "job_done" => "its job is done",
        "surplus" => "no job needed it",
        "boot_failure" => "its runner did not come online in time",
        "runner_ended" => "its runner's process ended",
        "disconnected" => "its runner lost its connection to GitHub",
        "halted" => "it was stopped",
        "max_life" => "it reached the pool's max_life",
        "interrupted" => "EC2 reclaimed it",
        "recycled" => "it was a warm machine at half of max_life",
        "operator" => "an operator retired it",
        "not_ready" => "EC2 could not stop or start it",
        "instance_lost" => "it ended before the end of a job was recorded",
        "never_launched" => "EC2 did not launch it",
        "orphan" => "no record mentions it",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use domain::state::SlotOutcome;

    use super::*;

    #[test]
    fn why_a_machine_ended_is_said_in_plain_words() {
        let outcomes = [SlotOutcome::JobDone, SlotOutcome::InstanceLost, SlotOutcome::NeverLaunched];
        for code in outcomes.map(|it| it.to_string()).iter().chain(&STOPS.map(|it| it.to_string())) {
            assert!(ending(code).contains(' '), "{code}");
        }
    }

    const STOPS: [StopReason; 11] = [
        StopReason::Surplus,
        StopReason::BootFailure,
        StopReason::RunnerEnded,
        StopReason::Disconnected,
        StopReason::Halted,
        StopReason::MaxLife,
        StopReason::Interrupted,
        StopReason::Recycled,
        StopReason::Operator,
        StopReason::JobDone,
        StopReason::NotReady,
    ];
}
