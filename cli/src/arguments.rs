//! The command line: commands, arguments and their help texts.

mod history;
mod lint;
mod nested;
mod simulate;

use std::path::PathBuf;

use clap::{ColorChoice, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::{ArgValueCandidates, Shell};
use domain::ids::{InstanceId, PoolName, StackName};
use drover::cost::By;
use drover::explain::{JobReference, Reference};
use drover::output::Format;
use drover::settings::StackChoice;
use jiff::{SignedDuration, Timestamp};

pub(crate) use self::lint::Lint;
pub(crate) use self::nested::{DeadLettersCommand, Init, PoolsCommand, Put, Rotate, SecretsCommand};
pub(crate) use self::simulate::Simulate;
use crate::candidates;

/// The heading of the options that every command has.
const GLOBAL: &str = "Global options";

/// Runs GitHub Actions jobs on EC2, one fresh machine per job.
///
/// Start with drover doctor, which finds problems with the setup, drover status, which shows what is happening now, and drover
/// explain URL, which says why a job waits.
///
/// Exit codes: 0 success; 1 the answer is no: a check failed, nothing was found, or nothing was done; 2 a wrong argument, or no
/// such stack; 3 AWS or GitHub cannot be reached or refuses a call, a table, queue or secret of the stack does not exist, a newer
/// drover wrote the table, or a deployed function is too old. An error is one line that ends with the next step.
#[derive(Parser)]
#[command(name = "drover", version)]
pub(crate) struct Arguments {
    /// Print JSON: the same as --output json
    #[arg(long, global = true, conflicts_with = "output", help_heading = GLOBAL)]
    json: bool,
    /// The form of the output: docs/commands.md lists the fields of JSON
    #[arg(long, short, global = true, value_enum, value_name = "FORM", default_value_t = Form::Text, help_heading = GLOBAL)]
    output: Form,
    /// When to print colours; also never if NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value_t = ColorChoice::Auto, help_heading = GLOBAL)]
    pub(crate) color: ColorChoice,
    /// The stack; DROVER_STACK does the same [default: that of the profile, or drover]
    #[arg(long, global = true, value_name = "NAME", help_heading = GLOBAL)]
    stack: Option<StackName>,
    /// A profile of ~/.config/drover/config.toml, with a stack and its region; DROVER_PROFILE does the same
    #[arg(long, global = true, value_name = "NAME", help_heading = GLOBAL)]
    profile: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    /// Text with more columns
    Wide,
    Json,
    /// One JSON object per line
    Jsonl,
}

impl Arguments {
    pub(crate) fn selection(&self) -> StackChoice {
        StackChoice { stack: self.stack.clone(), profile: self.profile.clone() }
    }

    pub(crate) fn format(&self) -> Format {
        match (self.json, self.output) {
            (true, _) | (false, Form::Json) => Format::Json,
            (false, Form::Jsonl) => Format::JsonLines,
            (false, Form::Wide) => Format::Wide,
            (false, Form::Text) => Format::Text,
        }
    }
}

/// The commands by purpose, as the help lists them.
pub(crate) const GROUPS: [(&str, &[&str]); 4] = [
    ("Watch", &["status", "explain", "jobs", "ps", "pools", "runners", "events", "logs", "cost", "dashboard"]),
    ("Set up and check", &["init", "doctor", "lint", "shapes", "simulate", "secrets"]),
    ("Intervene", &["forget", "pause", "resume", "drain", "hold", "release", "retire", "dead-letters", "replay"]),
    ("Install", &["completions", "man", "version"]),
];

/// The command line with grouped commands in its help.
pub(crate) fn command() -> clap::Command {
    let all = Arguments::command();
    let mut groups = String::new();
    for (title, names) in GROUPS {
        groups += &format!("{title}:\n");
        for name in names {
            let about = all.find_subcommand(name).and_then(clap::Command::get_about).map(ToString::to_string);
            groups += &format!("  {name:<13}{}\n", about.unwrap_or_default());
        }
        groups.push('\n');
    }
    all.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}Options:\n{{options}}{{after-help}}"
    ))
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Print a shell completion script
    ///
    /// The script calls drover, which completes commands, options, and the names of pools and machines of the stack.
    #[command(after_help = "Example:\n  echo 'source <(drover completions bash)' >> ~/.bashrc")]
    Completions {
        /// The shell to print it for
        shell: Shell,
    },
    /// Show what machines cost, by pool, repository, workflow or instance type
    ///
    /// Uses the price that a machine's launch was decided with, in pools that need prices, and otherwise on-demand list prices,
    /// which are an upper bound for spot machines. Covers at most the last 30 days, because the event log goes back no further,
    /// and only pools that still exist.
    ///
    /// With --advice, prints for each job of a workflow the smallest machine that would have been enough, if it is cheaper. Every
    /// measured run would have taken at most 10 % longer, and its peak of memory fits with 20 % to spare. Needs pools with
    /// usage = true, and five measured runs that succeeded; Drover knows a job for a week after its end. Changes nothing.
    #[command(after_help = "Example:\n  drover cost --by workflow --since 7d\n  drover cost --advice")]
    Cost {
        /// What to group costs by
        #[arg(long, value_enum, default_value_t = By::Pool)]
        by: By,
        /// Print which smaller machines would have been enough for measured jobs, and what they would have cost
        #[arg(long, conflicts_with = "by")]
        advice: bool,
        /// Since this time, within the last 30 days: 7d or 12h ago, or a time such as 2026-11-26T08:00:00Z
        #[arg(long, value_name = "TIME", default_value = "7d", value_parser = moment)]
        since: Moment,
        /// Use this price file, as written by make prices, instead of the built-in prices
        #[arg(long, value_name = "FILE")]
        prices: Option<PathBuf>,
    },
    /// Serve a web page with pools, machines, waiting jobs and events on this machine, until Ctrl-C
    ///
    /// The page is read-only. Every user of this machine can open it.
    #[command(after_help = "Example:\n  drover dashboard")]
    Dashboard {
        /// The port to listen on; 0 picks a free port
        #[arg(long, default_value_t = 4780)]
        port: u16,
    },
    /// List, show, resend or delete messages that the scaler could not process
    #[command(subcommand, after_help = "Example:\n  drover dead-letters list\n  drover dead-letters redrive --all")]
    DeadLetters(DeadLettersCommand),
    /// Check the installation: AWS, the GitHub App and the pools
    ///
    /// Reports each problem with a remedy. Asks GitHub to redeliver the newest webhook delivery, and EC2 for dry runs of
    /// launches; neither changes anything.
    #[command(after_help = "Example:\n  drover doctor --fix")]
    Doctor {
        /// Repair the webhook's settings and its secret
        #[arg(long)]
        fix: bool,
    },
    /// Stop a pool from taking new jobs, and let it finish the jobs it has
    ///
    /// The drain ends with --undo. Applying a pool file does not end it.
    #[command(after_help = "Example:\n  drover drain linux\n  drover drain linux --undo")]
    Drain {
        /// Name of the pool
        #[arg(add = ArgValueCandidates::new(candidates::pools))]
        pool: PoolName,
        /// Let the pool take jobs again
        #[arg(long)]
        undo: bool,
    },
    /// Show the event log, oldest event first
    #[command(after_help = "Example:\n  drover events --follow --pool linux\n  drover events --since 2h --until 1h")]
    Events {
        /// Keep printing new events
        #[arg(long, short)]
        follow: bool,
        /// Only events of this pool
        #[arg(long, add = ArgValueCandidates::new(candidates::pools))]
        pool: Option<PoolName>,
        /// Only events that changed this job: its id, or the URL of its page
        #[arg(long)]
        job: Option<JobReference>,
        /// How many of the newest events to read from each pool's log
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "since")]
        newest: u16,
        /// All events after this time: 2h or 7d ago, or a time such as 2026-11-26T08:00:00Z
        #[arg(long, value_name = "TIME", value_parser = moment)]
        since: Option<Moment>,
        /// Only events before this time; needs --since
        #[arg(long, value_name = "TIME", value_parser = moment, requires = "since", conflicts_with = "follow")]
        until: Option<Moment>,
    },
    /// Explain why a job is waiting or how it ended, what happens next, and its history
    ///
    /// For a run, explains every job of the run that reached a pool recently.
    #[command(
        after_help = "Example:\n  drover explain https://github.com/octo-org/widgets/actions/runs/7/job/12\n  drover explain https://github.com/octo-org/widgets/actions/runs/7"
    )]
    Explain {
        /// Ids of jobs or runs, or URLs of their pages or of GitHub's API
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<Reference>,
        /// List every slot of the pool; for a run, also the history of each job
        #[arg(long)]
        all: bool,
    },
    /// Give up a waiting job that GitHub calls queued for ever
    ///
    /// Nothing is launched for it again, whatever GitHub says about it. A re-run of the job is a new job.
    #[command(after_help = "Example:\n  drover forget https://github.com/octo-org/widgets/actions/runs/7/job/12")]
    Forget {
        /// The job's id, or the URL of its page
        job: JobReference,
    },
    /// Keep Drover from terminating a machine or giving it a runner
    ///
    /// The hold lasts until drover release. The machine still powers itself off when its job ends, when its agent fails or is
    /// stopped, and at max_life.
    #[command(after_help = "Example:\n  drover hold i-0123456789abcdef0")]
    Hold {
        /// Instance ids of the machines
        #[arg(required = true, value_name = "INSTANCE", value_parser = instance, add = ArgValueCandidates::new(candidates::instances))]
        instances: Vec<InstanceId>,
    },
    /// Create the GitHub App, or set up an existing app, and wait until it is installed
    ///
    /// Serves a page that sends you to GitHub with the app's description. The app's key and the webhook secret are stored in
    /// Secrets Manager, and nowhere else unless you pass --save-key.
    #[command(after_help = "Example:\n  drover init octo-org")]
    Init(Init),
    /// List waiting and running jobs; with --finished also those that have ended
    #[command(after_help = "Example:\n  drover jobs --pool linux\n  drover jobs --finished --since 2h")]
    Jobs {
        /// Only jobs of this pool
        #[arg(long, add = ArgValueCandidates::new(candidates::pools))]
        pool: Option<PoolName>,
        /// Also jobs that have ended, by default in the last day; Drover knows a job for a week after its end
        #[arg(long)]
        finished: bool,
        /// Only jobs that ended after this time: 2h or 7d ago, or a time such as 2026-11-26T08:00:00Z
        #[arg(long, value_name = "TIME", value_parser = moment, requires = "finished")]
        since: Option<Moment>,
        /// Only jobs that ended before this time
        #[arg(long, value_name = "TIME", value_parser = moment, requires = "finished")]
        until: Option<Moment>,
    },
    /// Show which pool each job of a workflow matches
    ///
    /// Exits with 1 if a job matches no pool, or if GitHub refuses a workflow. Uses the pools in force, or those of a pool file,
    /// which needs no AWS account. Follows matrices, expressions, and workflows that are called as ./.github/workflows/NAME.
    /// Labels that are known only when a workflow runs are counted as unknown.
    #[command(
        after_help = "Example:\n  drover lint .github/workflows/*.yml --repository octo-org/widgets --pools pools.toml\n  drover \
                      lint .github/workflows/*.yml --repository octo-org/widgets --var RUNNER=linux --strict --format github"
    )]
    Lint(Lint),
    /// Print the console output of a machine
    ///
    /// EC2 keeps it for an hour after the machine's end. Drover keeps the end of a failed machine's output for a month.
    #[command(after_help = "Example:\n  drover logs i-0123456789abcdef0")]
    Logs {
        /// Instance id of the machine
        #[arg(value_parser = instance, add = ArgValueCandidates::new(candidates::instances))]
        instance: InstanceId,
    },
    /// Print the manual, or write a page for each command
    #[command(after_help = "Example:\n  drover man | man -l -\n  drover man --dir /usr/local/share/man/man1")]
    Man {
        /// Write the pages into this directory: drover.1, drover-pools-apply.1, and so on
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Stop a pool from launching machines; its jobs wait
    ///
    /// Running and warm machines stay, and take jobs. A launch that was decided before may still happen. The pause ends with
    /// drover resume. Applying a pool file does not end it.
    #[command(after_help = "Example:\n  drover pause linux")]
    Pause {
        /// Name of the pool
        #[arg(add = ArgValueCandidates::new(candidates::pools))]
        pool: PoolName,
    },
    /// List pools with their demand, supply and limits; check or apply a pool file
    #[command(after_help = "Example:\n  drover pools\n  drover pools apply pools.toml")]
    Pools {
        #[command(subcommand)]
        command: Option<PoolsCommand>,
    },
    /// List machines and waiting jobs
    #[command(after_help = "Example:\n  drover ps --watch")]
    Ps {
        /// Only machines and jobs of this pool
        #[arg(long, add = ArgValueCandidates::new(candidates::pools))]
        pool: Option<PoolName>,
        /// Repeat every two seconds
        #[arg(long, short)]
        watch: bool,
    },
    /// Release a held machine, so that Drover manages it again
    #[command(after_help = "Example:\n  drover release i-0123456789abcdef0")]
    Release {
        /// Instance ids of the machines
        #[arg(required = true, value_name = "INSTANCE", value_parser = instance, add = ArgValueCandidates::new(candidates::instances))]
        instances: Vec<InstanceId>,
    },
    /// Rebuild every record from the event log
    #[command(after_help = "Example:\n  drover replay --verify")]
    Replay {
        /// Compare the records with the table; exit with 1 if they differ
        #[arg(long)]
        verify: bool,
    },
    /// Let a pool launch machines again, within a minute
    ///
    /// Ends the pool's pause. Launch options that EC2 refused and quotas that were used up are tried again, and the next probe of
    /// an open circuit is due: use it after you have corrected an image, a permission or a quota.
    #[command(after_help = "Example:\n  drover resume linux")]
    Resume {
        /// Name of the pool
        #[arg(add = ArgValueCandidates::new(candidates::pools))]
        pool: PoolName,
    },
    /// Deregister a machine's runner and terminate the machine
    ///
    /// A machine with a job is left alone, unless you pass --force.
    #[command(after_help = "Example:\n  drover retire i-0123456789abcdef0")]
    Retire {
        /// Instance ids of the machines
        #[arg(required = true, value_name = "INSTANCE", value_parser = instance, add = ArgValueCandidates::new(candidates::instances))]
        instances: Vec<InstanceId>,
        /// Terminate the machine even if that kills a job
        #[arg(long)]
        force: bool,
    },
    /// List the runners of this stack that GitHub has registered
    #[command(after_help = "Example:\n  drover runners")]
    Runners,
    /// Store or rotate the app's key and the webhook secret
    #[command(subcommand, after_help = "Example:\n  drover secrets rotate webhook")]
    Secrets(SecretsCommand),
    /// List the machines that a label asks for, in the order in which they are tried, with their prices
    ///
    /// Only for pools with [pool.shapes]. Exits with 1 if no instance type satisfies the label.
    #[command(after_help = "Example:\n  drover shapes any/8cpu/32gb/arm64/spot")]
    Shapes {
        /// A label, as in runs-on
        label: String,
    },
    /// Simulate pool files with recorded jobs: queue times, machine hours and costs, side by side
    ///
    /// Runs the jobs of a trace or of a history through Drover's own decisions in virtual time, once for each pool file. Needs no AWS
    /// account, except for the history of a stack. With --record and without pool files, only records the history.
    /// docs/what-if.md says what is modelled.
    #[command(
        after_help = "Example:\n  drover simulate examples/pools.toml examples/warm.toml --trace examples/trace.jsonl.gz\n  drover \
                      simulate pools.toml --trace trace.jsonl.gz --label ubuntu-latest=linux\n  drover simulate pools.toml \
                      --history 30d --organization octo-org --record trace.jsonl.gz"
    )]
    Simulate(Simulate),
    /// Show on one screen what the stack does and what is wrong
    ///
    /// Versions, the last sweep, every pool with the reason if it cannot serve its jobs, the oldest waiting job, the failures
    /// of the last hour, and what today's machines (since midnight, UTC) cost, as drover cost shows it.
    #[command(after_help = "Example:\n  drover status --watch")]
    Status {
        /// Repeat every two seconds
        #[arg(long, short)]
        watch: bool,
    },
    /// Show the versions of drover, the functions, the agent and the table
    #[command(after_help = "Example:\n  drover version")]
    Version,
}

/// Parses an instance id, so that a mistyped one is refused before any call.
fn instance(text: &str) -> Result<InstanceId, String> {
    let is_id = text.strip_prefix("i-").is_some_and(|id| {
        (8..=17).contains(&id.len()) && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    if is_id { Ok(text.into()) } else { Err("must be like i-0123456789abcdef0".to_owned()) }
}

/// A time, as an operator writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Ago(SignedDuration),
    At(Timestamp),
}

impl Moment {
    pub(crate) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::Ago(time) => now - time,
            Moment::At(at) => at,
        }
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    let at = text.parse().map(Moment::At);
    at.or_else(|_| time(text).map(Moment::Ago)).map_err(|_| "must be like 2h, 7d or 2026-11-26T08:00:00Z".to_owned())
}

/// Parses `7d` or `12h`.
fn time(text: &str) -> Result<SignedDuration, String> {
    let days: Option<u16> = text.strip_suffix('d').and_then(|days| days.parse().ok());
    let time = match days {
        Some(days) => Some(SignedDuration::from_hours(24 * i64::from(days))),
        None => text.parse().ok(),
    };
    // A longer time might reach back before the calendar begins. Nothing that Drover keeps is that old.
    let longest = SignedDuration::from_hours(24 * 3650);
    let time = time.filter(|time| time.is_positive() && *time <= longest);
    time.ok_or_else(|| "must be like 7d or 12h, and at most ten years".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_positive_and_within_the_calendar() {
        assert_eq!(time("7d"), Ok(SignedDuration::from_hours(168)));
        for text in ["0d", "-1h", "3651d", "200000000h", "soon", ""] {
            assert!(time(text).is_err(), "{text}");
        }
        let now = "2026-11-27T00:00:00Z".parse().expect("a time");
        assert!(time("3650d").is_ok_and(|time| Moment::Ago(time).at(now) < now));
    }

    #[test]
    fn each_command_is_in_one_group_of_the_help() {
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let command = Arguments::command();
        let mut all: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        grouped.sort_unstable();
        all.sort_unstable();
        assert_eq!(grouped, all);
    }
}
