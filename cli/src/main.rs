//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use aws_config::SdkConfig;
use clap::{Parser, Subcommand};
use domain::ids::{PoolName, StackName};
use drover::dead_letters::{self, Which};
use drover::doctor::{Patient, doctor};
use drover::explain::JobReference;
use drover::output::{Failure, Output};
use drover::pool_file::PoolFile;
use drover::{apply, explain, ps};
use engine::ports::Clock;
use platform::clock::SystemClock;
use platform::control;
use platform::ec2::Ec2;
use platform::environment::{parsed, required};
use platform::queue::DeadLetters;
use platform::survey::Survey;

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
    /// The pool file: what runs where.
    #[command(subcommand)]
    Pools(Pools),
    /// Every machine and every waiting job.
    Ps {
        /// Only this pool.
        #[arg(long)]
        pool: Option<PoolName>,
    },
    /// Why a job is where it is.
    Explain {
        /// The job's number, or the address of its page.
        job: JobReference,
    },
    /// Is it set up right, and does it work?
    ///
    /// Looks at AWS, the app and the pools, and says what is wrong and what to do. It has GitHub repeat the newest delivery
    /// and EC2 try a launch, which changes nothing.
    Doctor {
        /// Put right what is safe: where the webhook goes, and its secret.
        #[arg(long)]
        fix: bool,
    },
    /// Messages that the scaler could not use.
    #[command(subcommand)]
    DeadLetters(Letters),
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
    match run(arguments.command).await {
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

async fn run(command: Command) -> Result<Output, Failure> {
    let now = SystemClock.now();
    match command {
        Command::Pools(Pools::Check { file }) => Ok(PoolFile::read(&file)?.report()),
        Command::Pools(Pools::Apply { file }) => {
            let file = PoolFile::read(&file)?;
            let aws = aws().await?;
            let stack: StackName = parsed("DROVER_STACK")?;
            let github = control::github(&aws).map_err(|error| error.to_string());
            let github = github.as_ref().map_err(Clone::clone);
            apply::apply(file, &control::table(&aws)?, &Ec2::new(&aws, stack), github, now).await
        }
        Command::Ps { pool } => {
            let aws = aws().await?;
            ps::ps(&control::table(&aws)?, pool.as_ref(), now).await
        }
        Command::Explain { job } => {
            let aws = aws().await?;
            explain::explain(&control::table(&aws)?, &job, now).await
        }
        Command::Doctor { fix } => {
            let aws = platform::aws::config().await?;
            let (survey, table, github) = (Survey::new(&aws), control::table(&aws), control::github(&aws));
            let patient = Patient {
                survey: &survey,
                table: table.as_ref().map_err(Clone::clone),
                github: github.as_ref().map_err(Clone::clone),
                queue: required("DROVER_QUEUE_URL"),
                webhook_url: required("DROVER_WEBHOOK_URL"),
                webhook_secret: required("DROVER_WEBHOOK_SECRET"),
                fix,
                now,
            };
            Ok(doctor(&patient).await)
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
    }
}
