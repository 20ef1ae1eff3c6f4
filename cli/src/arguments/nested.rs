//! Commands below other commands, and the options of `drover init`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use domain::ids::{PoolName, Scope};

use crate::candidates;

#[derive(Args)]
pub(crate) struct Init {
    /// Where to register runners: an organisation, or OWNER/REPOSITORY
    pub(crate) owner: Scope,
    /// The owner is your own account, not an organisation
    #[arg(long)]
    pub(crate) personal: bool,
    /// Name of the app [default: drover-OWNER]
    #[arg(long, conflicts_with = "app_id")]
    pub(crate) name: Option<String>,
    /// Let the app re-run jobs whose machine EC2 reclaimed (rerun_on_interruption)
    #[arg(long)]
    pub(crate) reruns: bool,
    /// Replace the app that is set up now
    #[arg(long)]
    pub(crate) replace: bool,
    /// Print the URL of the page instead of opening a browser
    #[arg(long)]
    pub(crate) no_browser: bool,
    /// Save a copy of the private key in this new file
    #[arg(long, value_name = "FILE", conflicts_with = "app_id")]
    pub(crate) save_key: Option<PathBuf>,
    /// Id of an existing app to use
    #[arg(long, requires = "key")]
    pub(crate) app_id: Option<u64>,
    /// Private key file of the existing app, as downloaded from GitHub
    #[arg(long, value_name = "FILE", requires = "app_id")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum SecretsCommand {
    /// Store a secret
    ///
    /// Checks the format first. An app's key is also tried against GitHub.
    #[command(
        subcommand,
        after_help = "Example:\n  drover secrets put app --app-id 4242 drover.private-key.pem\n  openssl rand -hex 32 | drover secrets put webhook"
    )]
    Put(Put),
    /// Generate a new secret, store it and send it to GitHub, without losing a delivery
    #[command(subcommand, after_help = "Example:\n  drover secrets rotate webhook")]
    Rotate(Rotate),
}

#[derive(Subcommand)]
pub(crate) enum Put {
    /// The app's id and private key
    #[command(after_help = "Example:\n  drover secrets put app --app-id 4242 drover.private-key.pem")]
    App {
        /// Id of the app
        #[arg(long)]
        app_id: u64,
        /// Private key file, as downloaded from GitHub [default: standard input]
        file: Option<PathBuf>,
    },
    /// The secret that GitHub signs webhooks with
    #[command(after_help = "Example:\n  openssl rand -hex 32 | drover secrets put webhook")]
    Webhook {
        /// File with the secret [default: standard input]
        file: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Rotate {
    /// The secret that GitHub signs webhooks with
    ///
    /// A new private key for the app can only be generated on GitHub's website; store it with drover secrets put app.
    #[command(after_help = "Example:\n  drover secrets rotate webhook")]
    Webhook,
}

#[derive(Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List the messages
    #[command(after_help = "Example:\n  drover dead-letters list")]
    List,
    /// Show a message with its body
    #[command(after_help = "Example:\n  drover dead-letters show 5f0c2d1e-7a3b-4c88-9e21-d4b6a7f01c35")]
    Show {
        /// Id of the message, from the list
        #[arg(value_parser = message)]
        id: String,
    },
    /// Delete messages for good
    ///
    /// Deleting a message about a job loses nothing while GitHub knows the job: Drover finds it by asking GitHub.
    #[command(after_help = "Example:\n  drover dead-letters delete 5f0c2d1e-7a3b-4c88-9e21-d4b6a7f01c35")]
    Delete {
        /// Ids of the messages, from the list
        #[arg(conflicts_with = "all", value_parser = message)]
        ids: Vec<String>,
        /// Every message that is in the queue now
        #[arg(long)]
        all: bool,
    },
    /// Send messages to the scaler again
    #[command(after_help = "Example:\n  drover dead-letters redrive --all")]
    Redrive {
        /// Ids of the messages, from the list
        #[arg(conflicts_with = "all", value_parser = message)]
        ids: Vec<String>,
        /// Every message that is in the queue now
        #[arg(long)]
        all: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum PoolsCommand {
    /// Check a pool file; needs no AWS account
    #[command(after_help = "Example:\n  drover pools check pools.toml")]
    Check {
        /// The pool file
        file: PathBuf,
    },
    /// Apply a pool file
    ///
    /// The file is in force within a minute. A pool that is no longer in it takes no new jobs and finishes those it has. Before
    /// that, the app's installations, runner groups, images and a dry run of each new launch option are checked. Asks if a pool
    /// ends or loses capacity.
    #[command(
        after_help = "Example:\n  drover pools apply pools.toml\n  drover pools apply pools.toml --dry-run\n  drover pools apply pools.toml --yes"
    )]
    Apply {
        /// The pool file
        file: PathBuf,
        /// Do not ask whether pools may end or lose capacity
        #[arg(long, short, conflicts_with = "dry_run")]
        yes: bool,
        /// Check the file against the account and show what it changes, and apply nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show what a pool file would change; exits with 1 if there is a difference
    #[command(after_help = "Example:\n  drover pools diff pools.toml")]
    Diff {
        /// The pool file
        file: PathBuf,
    },
    /// Write an example of a pool file
    #[command(
        after_help = "Example:\n  drover pools init octo-org\n  drover pools init octo-org --file pools/blue.toml"
    )]
    Init {
        /// The organisation, or OWNER/REPOSITORY [default: octo-org, to be replaced]
        owner: Option<Scope>,
        /// The file to write
        #[arg(long, default_value = "pools.toml")]
        file: PathBuf,
    },
    /// Print the pools in force as a pool file
    #[command(after_help = "Example:\n  drover pools show\n  drover pools show linux")]
    Show {
        /// Only this pool
        #[arg(add = ArgValueCandidates::new(candidates::pools))]
        pool: Option<PoolName>,
    },
}

/// Parses a message's id.
fn message(text: &str) -> Result<String, &'static str> {
    let is_id =
        (1..=100).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_id { Ok(text.to_owned()) } else { Err("must be an id that drover dead-letters list shows") }
}
