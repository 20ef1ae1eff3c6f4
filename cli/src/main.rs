//! The command line.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use aws_config::SdkConfig;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use domain::config::{PRICES, Prices};
use domain::ids::{InstanceId, PoolName, Repository, Scope, StackName};
use drover::cost::{By, cost};
use drover::dashboard::Dashboard;
use drover::dead_letters::{self, Which};
use drover::doctor::{Subject, doctor};
use drover::events::{Reader, Wanted};
use drover::explain::{self, JobReference};
use drover::init::{self, Places};
use drover::lint::{self, Home};
use drover::operate::{Drain, Hands, Hold, Retirement};
use drover::output::{Failure, Output};
use drover::pool_file::{PoolFile, Written};
use drover::{apply, jobs, logs, pools, ps, read, replay, secrets};
use engine::ports::Clock;
use jiff::SignedDuration;
use platform::clock::SystemClock;
use platform::control;
use platform::ec2::Ec2;
use platform::environment::{optional, parsed, required};
use platform::inspect::Inspect;
use platform::queue::{DeadLetters, Queue};
use platform::secrets::Secret;
use platform::table::Table;
use serde_json::json;

/// Between two looks of whoever watches.
const AGAIN: Duration = Duration::from_secs(2);

/// Makes a terminal's screen empty.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Runs GitHub Actions jobs on EC2, one fresh machine a job.
///
/// Exit codes: 0 fine; 1 the answer is no; 2 something was said wrong, here or in the environment; 3 AWS is not reached, does not
/// allow it or has no such stack, or a newer drover wrote the table. An error is one line that ends with what to do.
#[derive(Parser)]
#[command(name = "drover", version)]
struct Arguments {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print a shell's completions.
    #[command(after_help = "Example:\n  drover completions bash > /etc/bash_completion.d/drover")]
    Completions {
        /// Which shell's.
        shell: Shell,
    },
    /// What machines cost, by what they worked for.
    ///
    /// At list prices on demand, which are the upper bound of what spot machines cost. The log goes back a month.
    #[command(after_help = "Example:\n  drover cost --by workflow --since 7d")]
    Cost {
        /// What they are added up by.
        #[arg(long, value_enum, default_value_t = By::Pool)]
        by: By,
        /// How far back: days (7d) or hours (12h).
        #[arg(long, default_value = "7d", value_parser = time)]
        since: SignedDuration,
        /// Other prices than this version's, as make prices writes them.
        #[arg(long, value_name = "FILE")]
        prices: Option<PathBuf>,
    },
    /// Pools, machines, waiting jobs and events on a page of this machine, until Ctrl-C.
    ///
    /// It only reads. Whoever is logged in to this machine can look at it.
    #[command(after_help = "Example:\n  drover dashboard")]
    Dashboard {
        /// Its port; 0 is any that is free.
        #[arg(long, default_value_t = 4780)]
        port: u16,
    },
    /// Messages that the scaler could not use.
    #[command(subcommand, after_help = "Example:\n  drover dead-letters list\n  drover dead-letters redrive --all")]
    DeadLetters(Letters),
    /// Is it set up right, and does it work?
    ///
    /// Looks at AWS, the app and the pools, and says what is wrong and what to do. It has GitHub repeat the newest delivery
    /// and EC2 try a launch, which changes nothing.
    #[command(after_help = "Example:\n  drover doctor --fix")]
    Doctor {
        /// Put right what is safe: where the webhook goes, and its secret.
        #[arg(long)]
        fix: bool,
    },
    /// Let a pool take no new jobs, and finish what it has.
    ///
    /// Until it is undone, or the pool is in a file that is applied.
    #[command(after_help = "Example:\n  drover drain linux\n  drover drain linux --undo")]
    Drain {
        /// Which.
        pool: PoolName,
        /// Let it take jobs again.
        #[arg(long)]
        undo: bool,
    },
    /// What happened, oldest first.
    #[command(after_help = "Example:\n  drover events --follow --pool linux")]
    Events {
        /// Go on with what happens.
        #[arg(long, short)]
        follow: bool,
        /// Only this pool's.
        #[arg(long)]
        pool: Option<PoolName>,
        /// Only what changed this job: its number, or the address of its page.
        #[arg(long)]
        job: Option<JobReference>,
        /// How far back.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
        newest: u16,
    },
    /// Why a job waits, or what became of it, with its time line.
    #[command(after_help = "Example:\n  drover explain https://github.com/octo-org/widgets/actions/runs/7/job/12")]
    Explain {
        /// The job's number, or the address of its page.
        job: JobReference,
    },
    /// Keep Drover's hands off a machine.
    ///
    /// It is neither ended nor given a runner, whatever becomes of its job. It still powers itself off when its job is over:
    /// to keep it longer than that, stop the agent on it.
    #[command(after_help = "Example:\n  drover hold i-0123456789abcdef0")]
    Hold {
        /// Which.
        instance: InstanceId,
    },
    /// Make the GitHub App, or take one that exists: its key, its webhook, its installation.
    ///
    /// Shows a page that goes to GitHub with the app's description, and waits until the app is made and installed. Its key and
    /// the webhook's secret go to Secrets Manager, and nowhere else.
    #[command(after_help = "Example:\n  drover init octo-org")]
    Init(Init),
    /// Every job that waits or runs.
    #[command(after_help = "Example:\n  drover jobs --pool linux")]
    Jobs {
        /// Only this pool's.
        #[arg(long)]
        pool: Option<PoolName>,
    },
    /// Will each job of a workflow find a pool, and which?
    ///
    /// Exit code 1 if one finds none. Knows the pools in force, or those of a file, for which it needs no AWS account.
    #[command(
        after_help = "Example:\n  drover lint .github/workflows/*.yml --repository octo-org/widgets --pools pools.toml"
    )]
    Lint {
        /// The workflows' files.
        #[arg(required = true)]
        workflows: Vec<PathBuf>,
        /// Whose workflows they are, as owner/name.
        #[arg(long, short)]
        repository: Repository,
        /// The repository is public.
        #[arg(long)]
        public: bool,
        /// A pool file.
        #[arg(long)]
        pools: Option<PathBuf>,
    },
    /// What a machine wrote to its console.
    ///
    /// EC2 keeps it for an hour after the machine's end; the end of what one wrote that failed is kept for a month.
    #[command(after_help = "Example:\n  drover logs i-0123456789abcdef0")]
    Logs {
        /// Whose.
        instance: InstanceId,
    },
    /// Print the manual page.
    #[command(after_help = "Example:\n  drover man | man -l -")]
    Man,
    /// The pools: what each needs, has and may have. Also: check a pool file, and make it true.
    #[command(after_help = "Example:\n  drover pools\n  drover pools apply pools.toml")]
    Pools {
        #[command(subcommand)]
        command: Option<Pools>,
    },
    /// Every machine and every waiting job.
    #[command(after_help = "Example:\n  drover ps --watch")]
    Ps {
        /// Only this pool's.
        #[arg(long)]
        pool: Option<PoolName>,
        /// Again every two seconds.
        #[arg(long, short)]
        watch: bool,
    },
    /// Let Drover have a machine again that was held.
    #[command(after_help = "Example:\n  drover release i-0123456789abcdef0")]
    Release {
        /// Which.
        instance: InstanceId,
    },
    /// What the log says everything looks like.
    #[command(after_help = "Example:\n  drover replay --verify")]
    Replay {
        /// Compare it with the table. Exit code 1 if they differ.
        #[arg(long)]
        verify: bool,
    },
    /// End a machine. One that has a job is left alone.
    #[command(after_help = "Example:\n  drover retire i-0123456789abcdef0")]
    Retire {
        /// Which.
        instance: InstanceId,
        /// End it even if that kills the job it runs.
        #[arg(long)]
        force: bool,
    },
    /// What Secrets Manager holds: the app's key, and what webhooks are signed with.
    #[command(subcommand, after_help = "Example:\n  drover secrets rotate webhook")]
    Secrets(Secrets),
}

#[derive(clap::Args)]
struct Init {
    /// Where runners are to be registered: an organisation, or `owner/repository`.
    owner: Scope,
    /// The owner is your own account, not an organisation.
    #[arg(long)]
    personal: bool,
    /// The app's name; `drover-` and the owner unless told otherwise.
    #[arg(long, conflicts_with = "app_id")]
    name: Option<String>,
    /// Permit to run jobs again whose machine EC2 took (rerun_on_interruption).
    #[arg(long)]
    reruns: bool,
    /// Give up the app that is set up now.
    #[arg(long)]
    replace: bool,
    /// Print the page's address, and start no browser.
    #[arg(long)]
    no_browser: bool,
    /// Keep the private key in this new file, too.
    #[arg(long, value_name = "FILE", conflicts_with = "app_id")]
    save_key: Option<PathBuf>,
    /// An app that exists.
    #[arg(long, requires = "key")]
    app_id: Option<u64>,
    /// Its private key, the file that GitHub made.
    #[arg(long, value_name = "FILE", requires = "app_id")]
    key: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Secrets {
    /// Store one. Its form is checked first, and an app's key tried at GitHub.
    #[command(subcommand)]
    Put(Put),
    /// Make a new one, store it and tell GitHub, without losing a delivery.
    #[command(subcommand)]
    Rotate(Rotate),
}

#[derive(Subcommand)]
enum Put {
    /// The app's id and private key.
    #[command(after_help = "Example:\n  drover secrets put app --app-id 4242 drover.private-key.pem")]
    App {
        /// The app's id.
        #[arg(long)]
        app_id: u64,
        /// The key, the file that GitHub made; otherwise the standard input.
        file: Option<PathBuf>,
    },
    /// What GitHub signs webhooks with.
    #[command(after_help = "Example:\n  openssl rand -hex 32 | drover secrets put webhook")]
    Webhook {
        /// A file with it; otherwise the standard input.
        file: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum Rotate {
    /// What GitHub signs webhooks with. (For the app's key, GitHub has a page and no call: put app.)
    Webhook,
}

#[derive(Subcommand)]
enum Letters {
    /// All of them.
    List,
    /// One of them, whole.
    Show {
        /// Its id, from the list.
        id: String,
    },
    /// Send them to the scaler again: those of these ids, or all.
    Redrive {
        /// Their ids, from the list.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// All that are there now.
        #[arg(long)]
        all: bool,
    },
}

#[derive(Subcommand)]
enum Pools {
    /// Say whether a pool file is right. Needs no AWS account.
    Check {
        /// The pool file.
        file: PathBuf,
    },
    /// Make a pool file true: within a minute. Pools that are no longer in it finish what they have.
    Apply {
        /// The pool file.
        file: PathBuf,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command, arguments.json).await {
        Ok(output) => {
            output.print(arguments.json);
            output.exit_code()
        }
        Err(failure) => {
            failure.print(arguments.json);
            failure.exit_code()
        }
    }
}

/// AWS, as whoever calls; somewhere.
async fn aws() -> Result<SdkConfig, Failure> {
    let aws = platform::aws::config().await?;
    match aws.region() {
        Some(_) => Ok(aws),
        None => Err(Failure::Usage("no region is set -> export AWS_REGION=the stack's".to_owned())),
    }
}

/// `7d` or `12h`.
fn time(text: &str) -> Result<SignedDuration, String> {
    let days: Option<u16> = text.strip_suffix('d').and_then(|days| days.parse().ok());
    let time = match days {
        Some(days) => Some(SignedDuration::from_hours(24 * i64::from(days))),
        None => text.parse().ok(),
    };
    time.filter(|time| time.is_positive()).ok_or_else(|| "must be like 7d or 12h".to_owned())
}

/// GitHub's API, where it is not github.com's.
fn github_api_url() -> Option<String> {
    optional("DROVER_GITHUB_API_URL").filter(|url| !url.is_empty())
}

async fn run(command: Command, json: bool) -> Result<Output, Failure> {
    let now = SystemClock.now();
    match command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "drover", &mut script);
            Ok(document(&script))
        }
        Command::Cost { by, since, prices } => {
            let aws = aws().await?;
            let text = match &prices {
                Some(file) => std::fs::read_to_string(file)
                    .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?,
                None => PRICES.to_owned(),
            };
            let region = aws.region().map(ToString::to_string).unwrap_or_default();
            let prices = Prices::parse(&text).map_err(|error| {
                Failure::Usage(format!("the prices are of another form: {error} -> make prices writes one"))
            })?;
            cost(&control::table(&aws)?, by, since, &prices, &region, now).await
        }
        Command::Dashboard { port } => {
            let table = control::table(&aws().await?)?;
            let dashboard = Dashboard::at(port).await?;
            let url = dashboard.url();
            let told = Output { yes: true, text: format!("{url}  (Ctrl-C ends)\n"), json: json!({ "url": url }) };
            told.print(json);
            dashboard.serve(table).await?;
            Ok(told)
        }
        Command::Init(told) => {
            let aws = platform::aws::config().await?;
            let inspect = Inspect::new(&aws);
            let places = Places {
                aws: &aws,
                inspect: &inspect,
                webhook_url: required("DROVER_WEBHOOK_URL")?,
                webhook_secret: required("DROVER_WEBHOOK_SECRET")?,
                app_secret: required("DROVER_APP_SECRET")?,
                api_url: github_api_url(),
            };
            let key = told.key.as_deref().map(|file| secrets::value(Some(file))).transpose()?;
            let wanted = init::Wanted {
                owner: told.owner,
                personal: told.personal,
                name: told.name,
                reruns: told.reruns,
                replace: told.replace,
                browser: !told.no_browser,
                save_key: told.save_key,
                existing: told.app_id.zip(key),
            };
            init::init(&places, wanted).await
        }
        Command::Secrets(command) => {
            let aws = platform::aws::config().await?;
            let inspect = Inspect::new(&aws);
            match command {
                Secrets::Put(Put::App { app_id, file }) => {
                    let (id, key) = (required("DROVER_APP_SECRET")?, secrets::value(file.as_deref())?);
                    let secret = Secret::new(&aws, id.clone());
                    secrets::put_app(&inspect, (&id, secret), app_id, &key, github_api_url().as_deref()).await
                }
                Secrets::Put(Put::Webhook { file }) => {
                    let (id, text) = (required("DROVER_WEBHOOK_SECRET")?, secrets::value(file.as_deref())?);
                    secrets::put_webhook(&inspect, &id, &text).await
                }
                Secrets::Rotate(Rotate::Webhook) => {
                    let (id, github) = (required("DROVER_WEBHOOK_SECRET")?, control::github(&aws)?);
                    secrets::rotate_webhook(&inspect, &id, &github).await
                }
            }
        }
        Command::DeadLetters(command) => {
            let aws = aws().await?;
            let letters = DeadLetters::of(&aws, required("DROVER_QUEUE_URL")?).await?;
            match command {
                Letters::List => dead_letters::list(&letters, now).await,
                Letters::Show { id } => dead_letters::show(&letters, &id, now).await,
                Letters::Redrive { all: true, .. } => dead_letters::redrive(&letters, &Which::All, now).await,
                Letters::Redrive { ids, .. } => {
                    dead_letters::redrive(&letters, &Which::Named(ids.into_iter().collect()), now).await
                }
            }
        }
        Command::Doctor { fix } => {
            let aws = platform::aws::config().await?;
            let (inspect, table, github) = (Inspect::new(&aws), control::table(&aws), control::github(&aws));
            let subject = Subject {
                inspect: &inspect,
                table: table.as_ref().map_err(Clone::clone),
                github: github.as_ref().map_err(Clone::clone),
                queue: required("DROVER_QUEUE_URL"),
                webhook_url: required("DROVER_WEBHOOK_URL"),
                webhook_secret: required("DROVER_WEBHOOK_SECRET"),
                fix,
                now,
            };
            Ok(doctor(&subject).await)
        }
        Command::Drain { pool, undo } => {
            let drain = if undo { Drain::Undo } else { Drain::Begin };
            let aws = aws().await?;
            let (table, ec2, queue) = (control::table(&aws)?, ec2(&aws)?, queue(&aws)?);
            hands(&aws, &table, &ec2, "drain").await?.drain(&queue, &pool, drain).await
        }
        Command::Events { follow, pool, job, newest } => {
            let table = control::table(&aws().await?)?;
            let wanted = Wanted { pool, job: job.map(|job| job.id()), newest: newest.into() };
            let mut reader = Reader::new(wanted);
            loop {
                let output = reader.next(&table).await?;
                if !follow {
                    break Ok(output);
                }
                if !output.text.is_empty() {
                    output.print(json);
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
        Command::Explain { job } => explain::explain(&control::table(&aws().await?)?, &job, now).await,
        Command::Hold { instance } => {
            let aws = aws().await?;
            let (table, ec2) = (control::table(&aws)?, ec2(&aws)?);
            hands(&aws, &table, &ec2, "hold").await?.hold(&instance, Hold::Keep).await
        }
        Command::Jobs { pool } => jobs::jobs(&control::table(&aws().await?)?, pool.as_ref(), now).await,
        Command::Lint { workflows, repository, public, pools } => {
            let pools = match pools {
                None => read::config(&control::table(&aws().await?)?).await?.pools,
                Some(file) => {
                    let file = PoolFile::read(&file)?;
                    if !file.errors.is_empty() {
                        return Ok(file.report());
                    }
                    file.pools.iter().map(Written::unresolved).collect()
                }
            };
            lint::lint(&workflows, &pools, &Home { repository, public })
        }
        Command::Logs { instance } => {
            let aws = aws().await?;
            logs::logs(&control::table(&aws)?, &ec2(&aws)?, &instance).await
        }
        Command::Man => {
            let mut page = Vec::new();
            manual(&mut page).map_err(|error| Failure::Usage(format!("no manual page: {error}")))?;
            Ok(document(&page))
        }
        Command::Pools { command: None } => pools::pools(&control::table(&aws().await?)?, now).await,
        Command::Pools { command: Some(Pools::Check { file }) } => Ok(PoolFile::read(&file)?.report()),
        Command::Pools { command: Some(Pools::Apply { file }) } => {
            let file = PoolFile::read(&file)?;
            let aws = aws().await?;
            let github = control::github(&aws).map_err(|error| error.to_string());
            let github = github.as_ref().map_err(Clone::clone);
            apply::apply(file, &control::table(&aws)?, &ec2(&aws)?, github, now).await
        }
        Command::Ps { pool, watch } => {
            let table = control::table(&aws().await?)?;
            loop {
                let output = ps::ps(&table, pool.as_ref(), SystemClock.now()).await?;
                if !watch {
                    break Ok(output);
                }
                if std::io::stdout().is_terminal() {
                    print!("{CLEAR}");
                }
                output.print(json);
                tokio::time::sleep(AGAIN).await;
            }
        }
        Command::Release { instance } => {
            let aws = aws().await?;
            let (table, ec2) = (control::table(&aws)?, ec2(&aws)?);
            hands(&aws, &table, &ec2, "release").await?.hold(&instance, Hold::Release).await
        }
        Command::Replay { verify } => {
            let table = control::table(&aws().await?)?;
            match verify {
                true => replay::verify(&table, now).await,
                false => replay::replay(&table).await,
            }
        }
        Command::Retire { instance, force } => {
            let how = if force { Retirement::Force } else { Retirement::Spare };
            let aws = aws().await?;
            let (table, ec2, queue) = (control::table(&aws)?, ec2(&aws)?, queue(&aws)?);
            hands(&aws, &table, &ec2, "retire").await?.retire(&queue, &instance, how).await
        }
    }
}

fn ec2(aws: &SdkConfig) -> Result<Ec2, Failure> {
    let stack: StackName = parsed("DROVER_STACK")?;
    Ok(Ec2::new(aws, stack))
}

fn queue(aws: &SdkConfig) -> Result<Queue, Failure> {
    Ok(Queue::new(aws, required("DROVER_QUEUE_URL")?))
}

/// What changes something is told in the log in the name that AWS knows its caller by.
async fn hands<'a>(
    aws: &SdkConfig,
    table: &'a Table,
    ec2: &'a Ec2,
    command: &str,
) -> Result<Hands<'a, Table>, Failure> {
    let who = format!("drover {command}, {}", Inspect::new(aws).identity().await?.arn);
    Ok(Hands { table, ec2, who, now: SystemClock.now() })
}

/// The page of `drover`, and of each of its commands.
fn manual(page: &mut Vec<u8>) -> std::io::Result<()> {
    let mut all = Arguments::command();
    all.build();
    clap_mangen::Man::new(all.clone()).render(page)?;
    for command in all.get_subcommands().filter(|command| command.get_name() != "help") {
        clap_mangen::Man::new(command.clone()).render(page)?;
    }
    Ok(())
}

fn document(bytes: &[u8]) -> Output {
    let text = String::from_utf8_lossy(bytes).into_owned();
    Output { yes: true, json: serde_json::json!({ "text": text }), text }
}
