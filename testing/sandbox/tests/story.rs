//! Stories of the whole system, with real processes. The models report the result.

use std::time::Duration;

use anyhow::{Context, ensure};
use domain::ids::JobId as OurJobId;
use domain::log::{Stream, fold, lifecycle};
use domain::state::{Item, Key};
use engine::ports::Store;
use sandbox::events::Rules;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, FOREIGN_REPOSITORY, Options, QUEUE, Sandbox};
use sandbox::short_timings::one_pool;
use sandbox::state::State;
use world::ec2::{EndCause, State as Machine};
use world::github::{Conclusion, JobId, JobState, QueueJob, Steps};

/// The jobs end when the test says so.
const LONG: Duration = Duration::from_secs(3600);

/// The janitor leaves the machine of a finished job to itself, however slow it is.
const NO_HURRY: &str = "done_grace = \"1h\"";

async fn sandbox() -> anyhow::Result<Sandbox> {
    let sandbox = Sandbox::start(Options { sweep_every: Duration::from_millis(700), ..Options::default() }).await?;
    sandbox.apply(&one_pool(NO_HURRY)).await?;
    Ok(sandbox)
}

fn push(sandbox: &Sandbox, runs_for: Duration) -> JobId {
    sandbox.queue_job("octo-org/widgets", &["drover"], runs_for)
}

/// The pool is empty, a further sweep finds nothing, and the event log agrees with the items.
async fn is_over(sandbox: &Sandbox, jobs: &[JobId]) -> anyhow::Result<()> {
    let table = sandbox.table().await;
    let empty = async || {
        let open = table.partition(&"linux".parse()?).await?.items;
        let busy = open.iter().any(|item| matches!(item, Item::Slot(_) | Item::Batch(_) | Item::Waiting(_)));
        Ok((!busy).then_some(()))
    };
    sandbox.sweep_until("an empty pool", empty).await?;
    let before = table.events(&Stream::Pool("linux".parse()?), 10_000).await?;
    let report = sandbox.sweep().await?;
    assert_eq!((&report["found"], &report["failed"]), (&0.into(), &0.into()), "{report}");
    let after = table.events(&Stream::Pool("linux".parse()?), 10_000).await?;
    assert_eq!(before, after, "a second sweep does nothing");

    let mut log = after;
    log.extend(table.events(&Stream::Stack, 10_000).await?);
    let folded = fold(&log);
    for (key, expected) in &folded {
        let (pk, sk) = key.split_once(' ').unwrap_or_default();
        let item = table.get(&Key::parse(pk, sk)?).await?;
        assert_eq!(item.as_ref().and_then(lifecycle).as_ref(), Some(expected), "{key}");
    }
    for job in jobs {
        assert!(folded.contains_key(&Key::Job(OurJobId(job.0)).to_string()), "job {job} is not in the log");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_run_on_machines_that_power_themselves_off() -> anyhow::Result<()> {
    let sandbox = sandbox().await?;
    let jobs: Vec<JobId> = (0..3).map(|_| push(&sandbox, LONG)).collect();
    sandbox.serve(&jobs).await?;
    is_over(&sandbox, &jobs).await?;
    sandbox.world.look(|state| {
        assert_eq!(state.ec2.launches(), 3, "one machine per job");
        let ended: Vec<EndCause> = state.ec2.ended().iter().map(|it| it.why).collect();
        assert_eq!(ended, [EndCause::PowerOff; 3], "each machine powered itself off");
    });
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_a_repository_that_is_not_served_runs_no_step_and_ends_the_machine() -> anyhow::Result<()> {
    let sandbox = sandbox().await?;
    // The runner group was restricted when the pool was applied, and admits every repository now.
    sandbox.open_groups();
    // GitHub assigns the longest waiting job first: the foreign job takes the runner that is launched for the other one.
    let foreign = sandbox.queue(&format!("octo-org/{FOREIGN_REPOSITORY}"), &["drover"], |job| QueueJob {
        runs_for: LONG,
        steps: Steps::Unconditional,
        ..job
    });
    let served = push(&sandbox, LONG);
    sandbox.serve(&[served]).await?;
    sandbox.world.look(|state| {
        let foreign = state.github.job(foreign).expect("the model keeps it");
        assert_eq!(foreign.history.started.len(), 1, "GitHub gave it a runner");
        assert_eq!(foreign.history.steps, Vec::<String>::new(), "no step ran, not even one with `if: always()`");
        let failed = matches!(foreign.state, JobState::Completed { conclusion: Conclusion::Failure, .. });
        assert!(failed, "{:?}", foreign.state);
        let ended: Vec<EndCause> = state.ec2.ended().iter().map(|it| it.why).collect();
        assert_eq!(ended, [EndCause::PowerOff; 2], "both machines powered themselves off");
    });
    is_over(&sandbox, &[served]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_lost_while_jobs_run_kills_no_job() -> anyhow::Result<()> {
    let sandbox = sandbox().await?;
    let jobs: Vec<JobId> = (0..3).map(|_| push(&sandbox, LONG)).collect();
    let running = |state: &sandbox::state::State| {
        let running = |id: &&JobId| state.github.job(**id).is_some_and(|job| job.state.status() == "in_progress");
        (jobs.iter().filter(running).count() >= 2).then_some(())
    };
    sandbox.world.until("two of three jobs to run", PATIENCE, running).await?;
    sandbox.lose_table().await?;
    sandbox.apply(&one_pool(NO_HURRY)).await?;
    sandbox.serve(&jobs).await?;
    let again = push(&sandbox, LONG);
    sandbox.serve(&[again]).await?;
    let killed = sandbox.world.look(|state| state.github.killed().count());
    ensure!(killed == 0, "{killed} jobs were killed");
    is_over(&sandbox, &[again]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_ec2_takes_before_its_job_began_is_replaced_at_once() -> anyhow::Result<()> {
    // No sweep runs, and the rule forwards every state of an instance.
    let all = vec![
        Machine::Pending,
        Machine::Running,
        Machine::ShuttingDown,
        Machine::Terminated,
        Machine::Stopping,
        Machine::Stopped,
    ];
    let sweep_every = Duration::from_secs(3600);
    let sandbox = Sandbox::start(Options { sweep_every, rules: Rules { states: all }, ..Options::default() }).await?;
    sandbox.apply(&one_pool(NO_HURRY)).await?;
    // The first machine never boots, so its job cannot begin before EC2 takes the machine.
    sandbox.world.act(|state, _| state.ec2.faults.boot_failures = 1.0);
    let job = push(&sandbox, LONG);
    let launched = |state: &sandbox::state::State| state.ec2.instances().next().map(|instance| instance.id.clone());
    let taken = sandbox.world.until("a machine", PATIENCE, launched).await?;
    // Before it is bound, only a sweep could find out which slot the machine belongs to.
    let bound = |state: &sandbox::state::State| state.github.registrations().next().map(drop);
    sandbox.world.until("it is bound", PATIENCE, bound).await?;
    sandbox.world.act(|state, now| {
        state.ec2.faults.boot_failures = 0.0;
        state.ec2.fail_host(&taken, now);
    });
    let replaced = |state: &sandbox::state::State| (state.ec2.launches() == 2).then_some(());
    sandbox.world.until("another machine, without a sweep", PATIENCE, replaced).await?;
    // The sweep removes the registration of the first machine.
    sandbox.sweep().await?;
    sandbox.serve(&[job]).await?;
    sandbox.world.look(|state| {
        assert_eq!(state.ec2.launches(), 2);
        assert_eq!(state.ec2.ended()[0].why, EndCause::Ec2);
    });
    is_over(&sandbox, &[job]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_once_on_a_machine_that_was_kept_stopped() -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Options { sweep_every: Duration::from_millis(700), ..Options::default() }).await?;
    let keeping = |stopped: u32| one_pool(&format!("{NO_HURRY}\nstopped = {stopped}"));
    sandbox.apply(&keeping(1)).await?;
    let machine = sandbox.ready(&"linux".parse()?).await?;
    sandbox.world.look(|state| {
        let instance = state.ec2.instance(&machine).expect("EC2 knows it");
        assert_eq!(instance.state, Machine::Stopped, "no job needs it");
        assert_eq!(state.ec2.launches(), 1, "one machine is enough");
        // The agent asks for a power-off when it is ended, which would terminate a running machine.
        assert!(instance.console.contains("powering off"), "its agent was ended: {}", instance.console);
    });

    let job = push(&sandbox, LONG);
    let host = sandbox.running(job, PATIENCE).await?;
    assert_eq!(host, machine, "the job runs on the stopped machine:\n{}", sandbox.log(&"linux".parse()?).await);
    sandbox.apply(&keeping(0)).await?;
    sandbox.finish(job);
    sandbox.reconcile(&[job], PATIENCE).await?;
    sandbox.world.look(|state| {
        assert_eq!(state.ec2.instance(&machine).expect("EC2 knows it").starts, 1, "it was started once");
        let why = state.ec2.ended().iter().find(|it| it.instance == machine).map(|it| it.why);
        assert_eq!(why, Some(EndCause::PowerOff), "after its job, it powered itself off like any other machine");
    });
    is_over(&sandbox, &[job]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_used_is_in_its_log_and_recorded_with_its_machine() -> anyhow::Result<()> {
    let sandbox = sandbox().await?;
    sandbox.apply(&one_pool(&format!("{NO_HURRY}\nusage = true"))).await?;
    let job = push(&sandbox, LONG);
    let machine = sandbox.running(job, PATIENCE).await?;
    sandbox.serve(&[job]).await?;
    is_over(&sandbox, &[job]).await?;
    let Some(Item::Instance(instance)) = sandbox.table().await.get(&Key::Instance(machine.as_str().into())).await?
    else {
        anyhow::bail!("the machine has no record");
    };
    // The stand-in prints what the hook prints, as GitHub's runner does into the log of the job.
    let console = sandbox.world.look(|state| state.ec2.instance(&machine).map(|it| it.console.clone()));
    let console = console.unwrap_or_default();
    let usage = instance.usage.with_context(|| format!("the machine's report was not recorded: {console}"))?;
    ensure!(usage.memory_mean_mib > 0 && usage.vcpus > 0, "{usage:?}");
    ensure!(console.contains("Drover: this job ran for "), "{console}");
    for line in usage.lines() {
        ensure!(console.contains(line.what), "{} is not in {console}", line.what);
    }
    Ok(())
}

/// Otherwise the messages would return to the queue for the six minutes in which they are invisible.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_a_busy_partition_refuses_are_repeated_in_the_same_invocation() -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await?;
    sandbox.apply(&one_pool("")).await?;
    push(&sandbox, LONG);
    let arrived = |state: &State| (!state.sqs.bodies(QUEUE).is_empty()).then_some(());
    sandbox.world.until("the message on the queue", PATIENCE, arrived).await?;
    sandbox.world.act(|state, _| state.throttled_transactions = 3);
    let batch = sandbox.scale().await?;
    assert_eq!(batch.failed, 0);
    sandbox.world.look(|state| {
        assert_eq!((state.throttled_transactions, state.ec2.launches()), (0, 1));
        assert_eq!(state.github.registrations().count(), 1);
    });
    Ok(())
}
