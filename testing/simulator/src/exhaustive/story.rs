//! A way through a small world, as sentences.

use std::collections::BTreeMap;

use domain::log::What;
use domain::state::{Item, Key};
use domain::wire::{Action, InstanceChange, Message};
use world::LostReply;

use crate::call::Call;
use crate::exhaustive::choice::Choice;
use crate::exhaustive::running::{Running, in_a_world};
use crate::exhaustive::worlds::{Function, SmallWorld};
use crate::mistakes::Mistake;

/// What happens in a small world if these choices are made, one sentence for each. `and_then` is what follows from it: ids in it
/// get the same names.
pub fn story(world: &SmallWorld, mistake: Option<Mistake>, choices: &[Choice], and_then: &str) -> Vec<String> {
    in_a_world(world, mistake, |running| {
        running.universe.steps.keep_answers();
        let mut sentences: Vec<String> = choices.iter().map(|choice| sentence(running, *choice)).collect();
        sentences.push(and_then.to_owned());
        sentences.into_iter().map(|sentence| with_names(running, sentence)).collect()
    })
}

/// Makes the choice and says what happens.
fn sentence(running: &mut Running<'_>, choice: Choice) -> String {
    let before = items(running);
    match choice {
        Choice::Later => {
            running.choose(choice);
            "five minutes pass: every lease and every invocation is over".to_owned()
        }
        Choice::Happen => {
            let text = running.world.events[running.happened].text;
            running.choose(choice);
            text.to_owned()
        }
        Choice::Crash(number) => {
            let name = name(running, number);
            running.choose(choice);
            format!("{name} crashes")
        }
        Choice::Receive(number, place) => {
            let message = running.universe.state().messages.get(usize::from(place)).map(|(_, it)| message(it));
            running.choose(choice);
            format!("{} receives {}", name(running, number), message.unwrap_or_default())
        }
        Choice::Step(number) | Choice::Refuse(number) | Choice::Hide(number) | Choice::Lose(number, _) => {
            let (name, has_started) = (name(running, number), running.actors[usize::from(number)].started);
            running.choose(choice);
            let mut parts: Vec<String> = running
                .universe
                .steps
                .take_answers()
                .iter()
                .map(|(call, answer)| call_made(call, answer, &before, &items(running)))
                .collect();
            if parts.is_empty() {
                parts.push(if has_started { "gets the answer" } else { "begins" }.to_owned());
            }
            format!("{name} {}{}", parts.join(", then "), fault(choice))
        }
    }
}

fn fault(choice: Choice) -> &'static str {
    match choice {
        Choice::Refuse(_) => ": no capacity",
        Choice::Hide(_) => ", which EC2 launches and never lists, and gets no answer",
        Choice::Lose(_, LostReply::Applied) => ", which EC2 launches, and gets no answer",
        Choice::Lose(_, LostReply::NotApplied) => ", and gets no answer; EC2 launches none",
        Choice::Step(_) | Choice::Receive(..) | Choice::Crash(_) | Choice::Later | Choice::Happen => "",
    }
}

fn name(running: &Running<'_>, number: u8) -> String {
    match running.actors[usize::from(number)].function {
        Function::Janitor => "the janitor".to_owned(),
        Function::Nudged | Function::Receiver => format!("scaler {}", number + 1),
    }
}

fn message(message: &Message) -> String {
    match message {
        Message::Nudge { .. } => "a nudge".to_owned(),
        Message::WorkflowJob(notice) => {
            let what = match notice.action {
                Action::Queued => "is queued",
                Action::Waiting => "waits for an approval",
                Action::InProgress => "has started",
                Action::Completed => "has ended",
            };
            format!("the webhook that job {} {what}", notice.job.id)
        }
        Message::Instance { id, change } => {
            let what = match change {
                InstanceChange::Interrupted(_) => "will be reclaimed",
                InstanceChange::Ended => "has ended",
                InstanceChange::Stopped => "is stopped",
                InstanceChange::Other => "has changed",
            };
            format!("EC2's notice that {id} {what}")
        }
    }
}

/// The revision of each item.
fn items(running: &Running<'_>) -> BTreeMap<Key, u64> {
    running.universe.store.items().iter().map(|item: &Item| (item.key(), item.revision())).collect()
}

/// A call that a function made, as the end of a sentence that begins with its name.
fn call_made(call: &Call, answer: &str, before: &BTreeMap<Key, u64>, after: &BTreeMap<Key, u64>) -> String {
    let is_conflict = answer.starts_with("Err(Conflict");
    let failed = if answer.starts_with("Err") && !is_conflict { ", which fails" } else { "" };
    let what = match call {
        Call::Commit(_) | Call::CommitUnlogged(_) if is_conflict => {
            return format!("wants to {}, but another function was faster", intent(call));
        }
        Call::Commit(what) => recorded(what),
        Call::CommitUnlogged(_) => written(before, after),
        Call::Get(Key::Limit(_)) => "reads GitHub's limit".to_owned(),
        Call::Get(key) => format!("reads {}", thing(key)),
        Call::GetMany(_) => "reads a few items, before it reads the pool".to_owned(),
        Call::Query(_) => "reads the pool".to_owned(),
        Call::QueryNeeded(_) => "reads the pool without busy machines".to_owned(),
        Call::QueryUnrouted => "reads the jobs that no pool accepts".to_owned(),
        Call::GetReports(_) => "reads the machines' reports".to_owned(),
        Call::RunInstances(tag) => format!("asks EC2 for the machines of {tag}"),
        Call::DescribeBatch(tag) => format!("looks for machines of {tag} in EC2's list"),
        Call::DescribeInstances => "lists EC2's machines".to_owned(),
        Call::ReadTags(_) => "reads the machines' tags".to_owned(),
        Call::TerminateInstances(machine) => format!("terminates {machine}"),
        Call::StopInstances(machine) => format!("stops {machine}"),
        Call::StartInstances(machines) => {
            let machines: Vec<String> = machines.iter().map(ToString::to_string).collect();
            format!("starts {}", machines.join(" and "))
        }
        Call::GetConsoleOutput(machine) => format!("reads the console of {machine}"),
        Call::DescribeInstanceTypes => "reads EC2's instance types".to_owned(),
        Call::DescribeSpotPriceHistory => "reads spot prices".to_owned(),
        Call::GenerateJitConfig(_) => "registers a runner".to_owned(),
        Call::ListRunners(_) | Call::FindRunners(_) => "lists GitHub's runners".to_owned(),
        Call::DeleteRunner(runner) if answer.contains("Busy") => {
            format!("wants to deregister runner {runner}, which is busy")
        }
        Call::DeleteRunner(runner) => format!("deregisters runner {runner}"),
        Call::GetJob(job) => format!("asks GitHub about job {job}"),
        Call::ListRunJobs(_) | Call::ListRuns(_) | Call::ListCompletedRuns(_) => "lists runs or their jobs".to_owned(),
        Call::ListRepositories(_) => "lists repositories".to_owned(),
        Call::ListDeliveries => "lists webhook deliveries".to_owned(),
        Call::Redeliver(_) => "asks for a redelivery".to_owned(),
        Call::CheckRun(_) => "writes a check run".to_owned(),
        Call::Rerun(job) => format!("re-runs job {job}"),
        Call::Nudge(_) => "sends a nudge".to_owned(),
        Call::GetSecretValue => "reads the app's key".to_owned(),
    };
    format!("{what}{failed}")
}

/// What a function wanted to write.
fn intent(call: &Call) -> &'static str {
    match call {
        Call::Commit(what) => match **what {
            What::Decided { .. } => "decide",
            What::HandedOver { .. } => "hand a JIT config over",
            What::Bound { .. } => "bind machines to their slots",
            _ => "record something",
        },
        _ => "write a record or take a lease",
    }
}

fn recorded(what: &What) -> String {
    match what {
        What::Recorded { .. } => "records what GitHub reported".to_owned(),
        What::Decided { launch, wanted, stop, set_aside, .. } => {
            let some = |number: u32, what: &str| (number > 0).then(|| format!("{number} {what}"));
            let all = [
                some(*launch, "to launch"),
                some(*wanted, "to give a JIT config"),
                some(*stop, "to end"),
                some(*set_aside, "to stop"),
            ];
            let all: Vec<String> = all.into_iter().flatten().collect();
            if all.is_empty() {
                return "decides that the pool needs no other machines".to_owned();
            }
            format!("decides about machines: {}", all.join(", "))
        }
        What::Refused { code, next, .. } => {
            let next = if next.is_some() { "the next launch option follows" } else { "no launch option is left" };
            format!("records EC2's refusal {code}: {next}")
        }
        What::Bound { instances, .. } => {
            let machines: Vec<String> = instances.iter().map(ToString::to_string).collect();
            format!("binds {} to slots", machines.join(" and "))
        }
        What::HandedOver { slot, .. } => format!("hands a JIT config over to the machine of slot {slot}"),
        What::Stopped { slot, why } => format!("records that slot {slot} must end: {}", why.as_str()),
        What::Interrupted { instance } => format!("records that EC2 reclaims {instance}"),
        What::Unregistered { slot, .. } => format!("records that the runner of slot {slot} is deregistered"),
        What::Closed { slots, .. } => {
            let slots: Vec<String> = slots.iter().map(ToString::to_string).collect();
            format!("closes slot {}", slots.join(" and "))
        }
        What::Observed { online, gone, unregistered, ready } => {
            let lists = [
                (online, "is online"),
                (gone, "has lost its machine"),
                (unregistered, "has no runner"),
                (ready, "is stopped and ready"),
            ];
            let each =
                lists.iter().flat_map(|(slots, what)| slots.iter().map(move |slot| format!("slot {slot} {what}")));
            format!("records that {}", each.collect::<Vec<_>>().join(" and "))
        }
        What::Checked { job, .. } => format!("records what GitHub answered about job {job}"),
        What::Rerun { job, .. } => format!("records what became of the re-run of job {job}"),
        What::Swept { .. } => "records its sweep".to_owned(),
        What::Condemned { instance, .. } => format!("claims {instance}, which belongs to no slot, to end it"),
        What::Adopted { instance } => format!("records that {instance} has a job and belongs to no slot"),
        What::Resumed { .. } => "resumes a launch".to_owned(),
        What::CircuitOpened { .. } => "records that the pool launches only probes".to_owned(),
        What::Notified { job, .. } => format!("records the notice about job {job}"),
        What::Transferred { job, .. } | What::Forgotten { job } => format!("records a change of job {job}"),
        What::Unknown(_) => "records something".to_owned(),
    }
}

/// What a write without an event changed.
fn written(before: &BTreeMap<Key, u64>, after: &BTreeMap<Key, u64>) -> String {
    let changed: Vec<&Key> = after.iter().filter(|(key, at)| before.get(key) != Some(at)).map(|(key, _)| key).collect();
    let deleted: Vec<&Key> = before.keys().filter(|key| !after.contains_key(key)).collect();
    let each = changed.into_iter().map(|key| format!("writes {}", thing(key)));
    let all: Vec<String> = each.chain(deleted.into_iter().map(|key| format!("deletes {}", thing(key)))).collect();
    if all.is_empty() { "writes nothing new".to_owned() } else { all.join(" and ") }
}

fn thing(key: &Key) -> String {
    match key {
        Key::Meta(_) => "the pool's version".to_owned(),
        Key::Nudge(_) => "the record of a nudge".to_owned(),
        Key::Batch(_, version) => format!("launch {version}"),
        Key::Slot(_, slot) => format!("slot {slot}"),
        Key::Waiting(_, job) => format!("waiting job {job}"),
        Key::Job(job) => format!("job {job}"),
        Key::Instance(machine) => format!("the record of {machine}"),
        Key::Rerun(_, job) => format!("the re-run of job {job}"),
        Key::Janitor => "the janitor's lock".to_owned(),
        key => format!("{key}"),
    }
}

/// The sentence with short names in place of EC2's and GitHub's ids.
fn with_names(running: &Running<'_>, mut sentence: String) -> String {
    let state = running.universe.state();
    for (number, machine) in (1..).zip(state.ec2.instances()) {
        sentence = sentence.replace(&machine.id.to_string(), &format!("machine {number}"));
    }
    for (number, job) in (1..).zip(state.github.jobs()) {
        sentence = sentence.replace(&job.id.to_string(), &number.to_string());
    }
    for (number, (_, runner)) in (1..).zip(&state.configured) {
        sentence = sentence.replace(&runner.to_string(), &number.to_string());
    }
    sentence
}
