//! Connects each command with the parts of the stack that it needs.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use aws_config::SdkConfig;
use clap_complete::Shell;
use clap_complete::env::Shells;
use domain::config::{PRICES, Pool, Prices};
use domain::ids::{InstanceId, PoolName, StackName};
use domain::log::KEEP_EVENTS;
use drover::apply::{Consent, Installation};
use drover::cost::{self, By};
use drover::dashboard::Dashboard;
use drover::dead_letters::{self, Handling, Selection};
use drover::doctor::{self, Mode, Subject};
use drover::events::{Filter, Reader};
use drover::explain::{self, Detail, JobReference};
use drover::init::{self, Account, Browser, ExistingApp, Request, Target};
use drover::lint::{self, Listing, Question, Unknowns, WorkflowRepository};
use drover::operate::{DrainAction, HoldAction, Operator, PauseAction, Retirement, refused};
use drover::output::{Failure, Format, Output, cannot_read, cannot_write, count, one_line};
use drover::pool_file::{PoolEntry, PoolFile};
use drover::settings::{self, Reading, StackChoice, aws};
use drover::status::{self, Surroundings};
use drover::{apply, jobs, logs, pool_example, pools, ps, read, replay, runners, secrets, shapes, simulate, version};
use engine::ports::{Clock, SecretStore, SecretVersion};
use indicatif::ProgressBar;
use jiff::{SignedDuration, Timestamp};
use platform::clock::SystemClock;
use platform::control::{self, github_api_url};
use platform::ec2::Ec2;
use platform::environment::{parsed, required};
use platform::github::{ApiUrl, stored_api_url};
use platform::inspect::Inspect;
use platform::queue::{DeadLetters, Queue};
use platform::secrets::Secret;
use platform::table::Table;
use serde_json::json;

use crate::arguments::{
    Command, DeadLettersCommand, Init, Lint, PoolsCommand, Put, Rotate, SecretsCommand, Simulate, command,
};

/// Between two readings of `drover status --watch`, `drover ps --watch` and `drover events --follow`.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);

/// The finished jobs that `drover jobs --finished` lists.
const FINISHED_WITHIN: SignedDuration = SignedDuration::from_hours(24);

const CLEAR_SCREEN: &str = "\u{1b}[2J\u{1b}[H";

/// Runs a command to its end. Commands that repeat print each result but the last themselves.
pub(crate) async fn run(command: Command, selection: &StackChoice, format: Format) -> Result<Output, Failure> {
    let now = SystemClock.now();
    check(&command, format, now)?;
    let loaded = match reading(&command) {
        Some(reading) => settings::load(selection, reading).await,
        None => Ok(()),
    };
    // These report a stack without outputs themselves.
    let outputs = match (&command, loaded) {
        (Command::Doctor { .. }, Err(failure)) => Some(failure),
        (Command::Version, Err(failure)) => return Ok(version::version(Err(failure)).await),
        (_, loaded) => loaded.map(|()| None)?,
    };
    match command {
        Command::Completions { shell } => completions(shell),
        Command::Cost { by, advice, since, prices } => {
            let subject = if advice { CostOf::SmallerMachines } else { CostOf::Machines(by) };
            run_cost(subject, now.duration_since(since.at(now)), prices.as_deref(), now).await
        }
        Command::Dashboard { port } => run_dashboard(port, format).await,
        Command::DeadLetters(command) => run_dead_letters(command, now).await,
        Command::Doctor { fix } => {
            run_doctor(if fix { Mode::Repair } else { Mode::ReportOnly }, outputs.as_ref(), now).await
        }
        Command::Drain { pool, undo } => {
            run_drain(&pool, if undo { DrainAction::Undo } else { DrainAction::Start }).await
        }
        Command::Events { follow, pool, job, newest, since, until } => {
            let job = job.map(|job| job.id());
            let (since, until) = (since.map(|it| it.at(now)), until.map(|it| it.at(now)));
            let filter = Filter { pool, job, newest: newest.into(), since, until };
            match follow {
                true => follow_events(filter, format).await,
                false => Reader::new(filter).once(&table(&aws().await?)?).await,
            }
        }
        Command::Explain { jobs, all } => {
            let detail = if all { Detail::All } else { Detail::Normal };
            explain::explain(&table(&aws().await?)?, &jobs, detail, now).await
        }
        Command::Forget { job } => run_forget(&job).await,
        Command::Hold { instances } => run_hold(&instances, HoldAction::Hold).await,
        Command::Init(arguments) => run_init(arguments).await,
        Command::Jobs { pool, finished, since, until } => {
            let until = until.map_or(now, |it| it.at(now));
            let period = since.map_or(until - FINISHED_WITHIN, |it| it.at(now))..until;
            let query =
                jobs::Query { pool: pool.as_ref(), finished: finished.then_some(period), columns: format.columns() };
            jobs::jobs(&table(&aws().await?)?, &query, now).await
        }
        Command::Lint(arguments) => run_lint(arguments, format).await,
        Command::Logs { instance } => {
            let aws = aws().await?;
            logs::logs(&table(&aws)?, &ec2(&aws)?, &instance).await
        }
        Command::Man { dir: None } => manual(),
        Command::Man { dir: Some(dir) } => manual_pages(&dir),
        Command::Pause { pool } => run_pause(&pool, PauseAction::Pause).await,
        Command::Pools { command: None } => pools::pools(&table(&aws().await?)?, now).await,
        Command::Pools { command: Some(command) } => run_pools(command, format, now).await,
        Command::Ps { pool, watch: false } => {
            let aws = aws().await?;
            ps::ps(&table(&aws)?, &ec2(&aws)?, pool.as_ref(), format.columns(), now).await
        }
        Command::Ps { pool, watch: true } => {
            let aws = aws().await?;
            let (table, ec2) = (table(&aws)?, ec2(&aws)?);
            watch(format, async |now| ps::ps(&table, &ec2, pool.as_ref(), format.columns(), now).await).await
        }
        Command::Release { instances } => run_hold(&instances, HoldAction::Release).await,
        Command::Replay { verify: false } => replay::replay(&table(&aws().await?)?).await,
        Command::Replay { verify: true } => replay::verify(&table(&aws().await?)?, now).await,
        Command::Resume { pool } => run_pause(&pool, PauseAction::Resume).await,
        Command::Retire { instances, force } => {
            run_retire(&instances, if force { Retirement::Forced } else { Retirement::Graceful }).await
        }
        Command::Runners => run_runners().await,
        Command::Secrets(command) => run_secrets(command).await,
        Command::Shapes { label } => shapes::shapes(&table(&aws().await?)?, &label).await,
        Command::Simulate(arguments) => run_simulate(arguments).await,
        Command::Status { watch: false } => {
            let aws = aws().await?;
            status::status(&table(&aws)?, &surroundings(&aws)?, now).await
        }
        Command::Status { watch: true } => {
            let aws = aws().await?;
            let (table, surroundings) = (table(&aws)?, surroundings(&aws)?);
            watch(format, async |now| status::status(&table, &surroundings, now).await).await
        }
        Command::Version => run_version().await,
    }
}

/// Refuses arguments that contradict each other, before any call.
fn check(command: &Command, format: Format, now: Timestamp) -> Result<(), Failure> {
    let refuse = |message: &str| Err(Failure::Usage(message.to_owned()));
    let is_json = matches!(format, Format::Json | Format::JsonLines);
    match command {
        Command::Events { since: Some(since), until: Some(until), .. }
        | Command::Jobs { since: Some(since), until: Some(until), .. }
            if since.at(now) >= until.at(now) =>
        {
            refuse("--until is not after --since -> for example --since 2h --until 1h")
        }
        Command::Jobs { since: Some(since), until: None, .. } if since.at(now) >= now => {
            refuse("--since is not in the past -> for example --since 2h")
        }
        Command::Cost { since, .. } if since.at(now) >= now => {
            refuse("--since is not in the past -> for example --since 7d")
        }
        Command::Cost { since, .. } if now.duration_since(since.at(now)) > KEEP_EVENTS => {
            refuse("--since is too long ago: the event log keeps 30 days -> --since 30d")
        }
        Command::DeadLetters(
            DeadLettersCommand::Redrive { ids, all: false } | DeadLettersCommand::Delete { ids, all: false },
        ) if ids.is_empty() => {
            refuse("no messages are named -> give their ids, which drover dead-letters list shows, or --all")
        }
        Command::Lint(Lint { format: lint::Form::Github | lint::Form::Sarif, .. }) if is_json => {
            refuse("lint prints either JSON or what --format names -> leave out --format, or --json and --output")
        }
        Command::Simulate(arguments) if !arguments.has_jobs() => refuse(
            "no jobs to simulate -> --trace FILE for recorded jobs, or --history 30d for those of the stack's log",
        ),
        _ => Ok(()),
    }
}

/// How the command finds its stack. None if it calls neither AWS nor GitHub.
fn reading(command: &Command) -> Option<Reading> {
    match command {
        Command::Completions { .. }
        | Command::Man { .. }
        | Command::Pools { command: Some(PoolsCommand::Check { .. } | PoolsCommand::Init { .. }) } => None,
        Command::Doctor { .. } | Command::Init(_) => Some(Reading::Always),
        Command::Simulate(arguments) => match arguments.history.wanted()?.needs_stack() {
            true => Some(Reading::UnlessCached),
            false => Some(Reading::Never),
        },
        Command::Lint(lint) => lint.pools.is_none().then_some(Reading::UnlessCached),
        Command::Pools {
            command: None | Some(PoolsCommand::Apply { .. } | PoolsCommand::Diff { .. } | PoolsCommand::Show { .. }),
        } => Some(Reading::UnlessCached),
        Command::Cost { .. }
        | Command::Dashboard { .. }
        | Command::DeadLetters(_)
        | Command::Drain { .. }
        | Command::Events { .. }
        | Command::Explain { .. }
        | Command::Forget { .. }
        | Command::Hold { .. }
        | Command::Jobs { .. }
        | Command::Logs { .. }
        | Command::Pause { .. }
        | Command::Ps { .. }
        | Command::Release { .. }
        | Command::Replay { .. }
        | Command::Resume { .. }
        | Command::Retire { .. }
        | Command::Runners
        | Command::Secrets(_)
        | Command::Shapes { .. }
        | Command::Status { .. }
        | Command::Version => Some(Reading::UnlessCached),
    }
}

/// The script calls this program for each completion.
fn completions(shell: Shell) -> Result<Output, Failure> {
    let (shells, name) = (Shells::builtins(), shell.to_string());
    let completer = shells.completer(&name).ok_or_else(|| Failure::Usage(format!("no completions for {name}")))?;
    let mut script = Vec::new();
    let written = completer.write_registration("COMPLETE", "drover", "drover", "drover", &mut script);
    written.map_err(|error| Failure::Usage(format!("cannot write the script: {error}")))?;
    Ok(document(&script))
}

/// What `drover cost` is about.
enum CostOf {
    Machines(By),
    /// Those that would have been enough.
    SmallerMachines,
}

async fn run_cost(
    subject: CostOf,
    since: SignedDuration,
    prices: Option<&Path>,
    now: Timestamp,
) -> Result<Output, Failure> {
    let aws = aws().await?;
    let text = match prices {
        Some(file) => std::fs::read_to_string(file).map_err(|error| cannot_read(file, &error))?,
        None => PRICES.to_owned(),
    };
    let invalid = |error| Failure::Usage(format!("this is not a price file: {error} -> make prices writes one"));
    let prices = Prices::parse(&text).map_err(invalid)?;
    let region = aws.region().map(ToString::to_string).unwrap_or_default();
    let (table, prices, region) = (table(&aws)?, &prices, region.as_str());
    match subject {
        CostOf::Machines(by) => cost::cost(&table, &cost::Query { by, since, prices, region }, now).await,
        CostOf::SmallerMachines => cost::advice(&table, &cost::Question { since, prices, region }, now).await,
    }
}

async fn run_dashboard(port: u16, format: Format) -> Result<Output, Failure> {
    let aws = aws().await?;
    let (table, surroundings) = (table(&aws)?, surroundings(&aws)?);
    let dashboard = Dashboard::bind(port).await?;
    let url = dashboard.url();
    let output = Output { ok: true, text: format!("{url}  (Ctrl-C to stop)\n"), json: json!({ "url": url }) };
    output.print(format);
    dashboard.serve(table, surroundings).await?;
    Ok(output)
}

async fn run_dead_letters(command: DeadLettersCommand, now: Timestamp) -> Result<Output, Failure> {
    let aws = aws().await?;
    let letters = DeadLetters::of(&aws, required("DROVER_QUEUE_URL")?).await?;
    match command {
        DeadLettersCommand::List => dead_letters::list(&letters, now).await,
        DeadLettersCommand::Show { id } => dead_letters::show(&letters, &id, now).await,
        DeadLettersCommand::Redrive { ids, all: _ } => {
            dead_letters::handle(&letters, &selection(ids), Handling::Redrive, now).await
        }
        DeadLettersCommand::Delete { ids, all: _ } => {
            dead_letters::handle(&letters, &selection(ids), Handling::Delete, now).await
        }
    }
}

/// [`check`] demands either ids or `--all`.
fn selection(ids: Vec<String>) -> Selection {
    if ids.is_empty() { Selection::All } else { Selection::Ids(ids.into_iter().collect()) }
}

async fn run_doctor(mode: Mode, outputs: Option<&Failure>, now: Timestamp) -> Result<Output, Failure> {
    // Doctor also reports a missing region.
    let aws = platform::aws::config().await?;
    let (inspect, table, github) = (Inspect::new(&aws), control::table(&aws), control::github(&aws));
    let subject = Subject {
        inspect: &inspect,
        table: table.as_ref().map_err(Clone::clone),
        github: github.as_ref().map_err(Clone::clone),
        stack: parsed("DROVER_STACK"),
        queue_url: required("DROVER_QUEUE_URL"),
        webhook_url: required("DROVER_WEBHOOK_URL"),
        webhook_secret: required("DROVER_WEBHOOK_SECRET"),
        outputs,
        mode,
        now,
    };
    Ok(doctor::doctor(&subject).await)
}

async fn run_drain(pool: &PoolName, action: DrainAction) -> Result<Output, Failure> {
    let aws = aws().await?;
    let (table, ec2, queue) = (table(&aws)?, ec2(&aws)?, queue(&aws)?);
    operator(&aws, &table, &ec2, "drain").await?.drain(&queue, pool, action).await
}

async fn run_pause(pool: &PoolName, action: PauseAction) -> Result<Output, Failure> {
    let command = match action {
        PauseAction::Pause => "pause",
        PauseAction::Resume => "resume",
    };
    let aws = aws().await?;
    let (table, ec2, queue) = (table(&aws)?, ec2(&aws)?, queue(&aws)?);
    operator(&aws, &table, &ec2, command).await?.pause(&queue, pool, action).await
}

async fn follow_events(filter: Filter, format: Format) -> Result<Output, Failure> {
    let table = table(&aws().await?)?;
    let mut reader = Reader::new(filter);
    loop {
        let output = reader.next(&table).await?;
        if !output.ok {
            return Ok(output);
        }
        if !output.text.is_empty() {
            output.print(format);
        }
        tokio::time::sleep(REFRESH_INTERVAL).await;
    }
}

async fn run_forget(job: &JobReference) -> Result<Output, Failure> {
    let aws = aws().await?;
    let (table, ec2, queue) = (table(&aws)?, ec2(&aws)?, queue(&aws)?);
    operator(&aws, &table, &ec2, "forget").await?.forget(&queue, job.id()).await
}

async fn run_hold(instances: &[InstanceId], action: HoldAction) -> Result<Output, Failure> {
    let command = match action {
        HoldAction::Hold => "hold",
        HoldAction::Release => "release",
    };
    let aws = aws().await?;
    let (table, ec2) = (table(&aws)?, ec2(&aws)?);
    let operator = operator(&aws, &table, &ec2, command).await?;
    each(instances, async |instance| operator.hold(instance, action).await).await
}

async fn run_init(arguments: Init) -> Result<Output, Failure> {
    let aws = platform::aws::config().await?;
    let inspect = Inspect::new(&aws);
    let target = Target {
        inspect: &inspect,
        webhook_url: required("DROVER_WEBHOOK_URL")?,
        webhook_secret: required("DROVER_WEBHOOK_SECRET")?,
        app_secret: required("DROVER_APP_SECRET")?,
        api_url: github_api_url()?,
    };
    let key = arguments.key.as_deref().map(|file| secrets::value(Some(file))).transpose()?;
    let request = Request {
        owner: arguments.owner,
        account: if arguments.personal { Account::Personal } else { Account::Organization },
        name: arguments.name,
        reruns: arguments.reruns,
        existing: if arguments.replace { ExistingApp::Replace } else { ExistingApp::Refuse },
        browser: if arguments.no_browser { Browser::PrintUrl } else { Browser::Open },
        save_key: arguments.save_key,
        use_app: arguments.app_id.zip(key),
    };
    init::init(&target, &request).await
}

async fn run_lint(arguments: Lint, printed_as: Format) -> Result<Output, Failure> {
    let Lint { workflows, repository, public, pools, variables, vars, mut hosted, strict, format } = arguments;
    let mut listing = Listing::Partial;
    let pools: Vec<Pool> = match pools {
        None => read::config(&table(&aws().await?)?).await?.pools,
        Some(file) => {
            let file = PoolFile::read(&file)?;
            if !file.errors.is_empty() {
                return Ok(file.report());
            }
            if let Some(names) = file.hosted {
                hosted.extend(names);
                listing = Listing::Complete;
            }
            file.pools.iter().map(PoolEntry::unresolved).collect()
        }
    };
    let mut all = vars.as_deref().map_or_else(|| Ok(BTreeMap::new()), variables_of)?;
    all.extend(variables);
    let unknowns = if strict { Unknowns::Refused } else { Unknowns::Counted };
    let source = WorkflowRepository { repository, public };
    let question = Question { pools, source, hosted, listing, variables: all, unknowns };
    let report = lint::lint(&workflows, &question, |path| std::fs::read_to_string(path))?;
    let output = report.output(format);
    match report.unread {
        0 => Ok(output),
        unread => {
            output.print(printed_as);
            let files = count(workflows.len(), "file");
            Err(Failure::Incomplete(format!("{unread} of {files} could not be read -> check the paths")))
        }
    }
}

/// Shows on a terminal how far it is.
async fn run_simulate(arguments: Simulate) -> Result<Output, Failure> {
    let mut recorded = None;
    if let Some(wanted) = arguments.history.wanted() {
        // A recording can take long, so mistakes in the pool files are found first.
        for file in &arguments.files {
            let file = PoolFile::read(file)?;
            if !file.errors.is_empty() {
                return Ok(file.report());
            }
        }
        let history = wanted.obtain(&|line| anstream::eprintln!("{}", one_line(line))).await?;
        if let (Some(file), []) = (arguments.history.record(), &arguments.files[..]) {
            return Ok(history.output(file));
        }
        history.notes.iter().for_each(|note| anstream::eprintln!("note: {}", one_line(note)));
        recorded = Some(history.trace);
    }
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(100),
        false => ProgressBar::hidden(),
    };
    let output = simulate::simulate(&arguments.request(recorded), &|share| bar.set_position((share * 100.0) as u64));
    bar.finish_and_clear();
    output
}

fn variables_of(file: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| cannot_read(file, &error))?;
    let invalid = |line| format!("{}:{line}: must be NAME=VALUE -> correct the line", file.display());
    lint::variables(&text).map_err(|line| Failure::Usage(invalid(line)))
}

async fn run_pools(command: PoolsCommand, format: Format, now: Timestamp) -> Result<Output, Failure> {
    match command {
        PoolsCommand::Check { file } => Ok(PoolFile::read(&file)?.report()),
        PoolsCommand::Apply { file, yes: _, dry_run: true } => run_apply(&file, Consent::DryRun, now).await,
        PoolsCommand::Apply { file, yes: true, dry_run: false } => run_apply(&file, Consent::Given, now).await,
        PoolsCommand::Apply { file, yes: false, dry_run: false } => {
            let has_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
            let consent = match (has_terminal, format) {
                (true, Format::Text | Format::Wide) => Consent::Ask(&ask),
                (false, _) | (true, Format::Json | Format::JsonLines) => Consent::Nobody,
            };
            run_apply(&file, consent, now).await
        }
        PoolsCommand::Diff { file } => {
            let (file, aws) = (PoolFile::read(&file)?, aws().await?);
            apply::diff(file, &table(&aws)?, &ec2(&aws)?, now).await
        }
        PoolsCommand::Init { owner, file } => pool_example::write(owner.as_ref(), &file),
        PoolsCommand::Show { pool } => pool_example::show(&table(&aws().await?)?, pool.as_ref()).await,
    }
}

/// Shows what is asked about, and reads the answer.
fn ask(text: &str) -> bool {
    eprint!("{text}Apply? [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

async fn run_apply(file: &Path, consent: Consent<'_>, now: Timestamp) -> Result<Output, Failure> {
    let file = PoolFile::read(file)?;
    let aws = aws().await?;
    let github = control::github(&aws).map_err(|error| error.to_string());
    let (table, ec2, inspect, stack) = (table(&aws)?, ec2(&aws)?, Inspect::new(&aws), parsed("DROVER_STACK")?);
    let github = github.as_ref().map_err(Clone::clone);
    let installation = Installation { table: &table, ec2: &ec2, inspect: &inspect, github, stack: &stack };
    apply::apply(file, &installation, consent, now).await
}

/// Repeats a command, and clears the terminal before each result.
async fn watch(format: Format, read: impl AsyncFn(Timestamp) -> Result<Output, Failure>) -> Result<Output, Failure> {
    loop {
        let output = read(SystemClock.now()).await?;
        if std::io::stdout().is_terminal() {
            print!("{CLEAR_SCREEN}");
        }
        output.print(format);
        tokio::time::sleep(REFRESH_INTERVAL).await;
    }
}

fn surroundings(aws: &SdkConfig) -> Result<Surroundings, Failure> {
    Ok(Surroundings::new(parsed("DROVER_STACK")?, aws))
}

async fn run_retire(instances: &[InstanceId], how: Retirement) -> Result<Output, Failure> {
    let aws = aws().await?;
    let (table, ec2, queue) = (table(&aws)?, ec2(&aws)?, queue(&aws)?);
    let operator = operator(&aws, &table, &ec2, "retire").await?;
    each(instances, async |instance| operator.retire(&queue, instance, how).await).await
}

/// Does it for each machine. What fails for one of several is part of the result, which also says what was done for the others.
async fn each(
    instances: &[InstanceId],
    action: impl AsyncFn(&InstanceId) -> Result<Output, Failure>,
) -> Result<Output, Failure> {
    let mut outputs = Vec::new();
    for instance in instances {
        outputs.push(match action(instance).await {
            Err(failure) if instances.len() > 1 => refused(instance, format!("{instance}: {failure}")),
            result => result?,
        });
    }
    Ok(Output::joined(outputs))
}

async fn run_version() -> Result<Output, Failure> {
    let aws = aws().await?;
    let (table, inspect) = (table(&aws)?, Inspect::new(&aws));
    Ok(version::version(Ok((&table, &inspect))).await)
}

async fn run_runners() -> Result<Output, Failure> {
    let aws = aws().await?;
    let github = control::github(&aws)?;
    runners::runners(&table(&aws)?, &github, &parsed("DROVER_STACK")?).await
}

async fn run_secrets(command: SecretsCommand) -> Result<Output, Failure> {
    let aws = platform::aws::config().await?;
    let inspect = Inspect::new(&aws);
    match command {
        SecretsCommand::Put(Put::App { app_id, file }) => {
            let (id, key) = (required("DROVER_APP_SECRET")?, secrets::value(file.as_deref())?);
            let api_url = api_url_of_app(&aws, &id).await?;
            secrets::put_app(&inspect, &id, app_id, &key, api_url.as_ref()).await
        }
        SecretsCommand::Put(Put::Webhook { file }) => {
            let (id, text) = (required("DROVER_WEBHOOK_SECRET")?, secrets::value(file.as_deref())?);
            secrets::put_webhook(&inspect, &id, &text).await
        }
        SecretsCommand::Rotate(Rotate::Webhook) => {
            let (id, github) = (required("DROVER_WEBHOOK_SECRET")?, control::github(&aws)?);
            secrets::rotate_webhook(&inspect, &id, &github).await
        }
    }
}

/// The address of the GitHub that has the app, as set or as the present secret has it.
async fn api_url_of_app(aws: &SdkConfig, secret: &str) -> Result<Option<ApiUrl>, Failure> {
    if let Some(url) = github_api_url()? {
        return Ok(Some(url));
    }
    // Before the first key there is no secret.
    let present = Secret::new(aws, secret.to_owned()).read(SecretVersion::Current).await.ok().flatten();
    Ok(present.and_then(|present| stored_api_url(&present.text)))
}

fn table(aws: &SdkConfig) -> Result<Table, Failure> {
    Ok(control::table(aws)?)
}

fn ec2(aws: &SdkConfig) -> Result<Ec2, Failure> {
    let stack: StackName = parsed("DROVER_STACK")?;
    Ok(Ec2::new(aws, stack))
}

fn queue(aws: &SdkConfig) -> Result<Queue, Failure> {
    Ok(Queue::new(aws, required("DROVER_QUEUE_URL")?))
}

/// The event log names the caller's ARN and the command as the cause of a change.
async fn operator<'a>(
    aws: &SdkConfig,
    table: &'a Table,
    ec2: &'a Ec2,
    command: &str,
) -> Result<Operator<'a, Table>, Failure> {
    let identity = format!("drover {command}, {}", Inspect::new(aws).identity().await?.arn);
    Ok(Operator { table, ec2, identity, now: SystemClock.now() })
}

/// The manual page of `drover`, followed by those of its commands.
fn manual() -> Result<Output, Failure> {
    let mut all = command();
    all.build();
    let mut page = Vec::new();
    append_pages(&all, &mut page).map_err(|error| Failure::Usage(format!("cannot write the manual page: {error}")))?;
    Ok(document(&page))
}

fn append_pages(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(page)?;
    command.get_subcommands().filter(|it| it.get_name() != "help").try_for_each(|it| append_pages(it, page))
}

/// Writes a page for each command.
fn manual_pages(dir: &Path) -> Result<Output, Failure> {
    clap_mangen::generate_to(command().disable_help_subcommand(true), dir)
        .map_err(|error| cannot_write(dir, &error))?;
    let text = format!("the pages are in {}\n", dir.display());
    Ok(Output { ok: true, json: json!({ "dir": dir }), text })
}

fn document(bytes: &[u8]) -> Output {
    let text = String::from_utf8_lossy(bytes).into_owned();
    Output { ok: true, json: json!({ "text": text }), text }
}
