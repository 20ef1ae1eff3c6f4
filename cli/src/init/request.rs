//! What `drover init` is asked to do, and what it works on.

use std::path::PathBuf;

use domain::ids::Scope;
use platform::github::{ApiUrl, GitHubApp};
use platform::inspect::Inspect;

use crate::output::printable;
use crate::permissions::Features;

/// The parts of the stack that init writes to or points GitHub at.
#[derive(Debug)]
pub struct Target<'a> {
    pub inspect: &'a Inspect,
    /// The URL of ingest.
    pub webhook_url: String,
    /// The Secrets Manager ids.
    pub webhook_secret: String,
    pub app_secret: String,
    /// None for github.com.
    pub api_url: Option<ApiUrl>,
}

/// The kind of account that owns the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    Organization,
    /// The account of the user who is logged in to GitHub.
    Personal,
}

/// What to do if the stack's secrets already have values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingApp {
    Refuse,
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Browser {
    Open,
    PrintUrl,
}

/// The app to set up.
#[derive(Debug)]
pub struct Request {
    /// Where runners will be registered.
    pub owner: Scope,
    pub account: Account,
    /// None: `drover-` and the owner.
    pub name: Option<String>,
    /// Whether the app may re-run jobs.
    pub reruns: bool,
    pub existing: ExistingApp,
    pub browser: Browser,
    /// A new file for a copy of the private key.
    pub save_key: Option<PathBuf>,
    /// Id and private key of an app to use instead of a new one.
    pub use_app: Option<(u64, String)>,
}

impl Request {
    pub(super) fn features(&self) -> Features {
        Features {
            organization_runners: matches!(self.owner, Scope::Organization(_)),
            repository_runners: matches!(self.owner, Scope::Repository(_)),
            reruns: self.reruns,
        }
    }
}

/// An app whose key is stored.
pub(super) struct App {
    pub(super) github: GitHubApp,
    pub(super) id: u64,
    pub(super) html_url: String,
    /// The webhook secret, if GitHub does not have it yet.
    pub(super) new_webhook_secret: Option<String>,
}

/// Prints progress to standard error; the result goes to standard output.
pub(super) fn say(text: &str) {
    eprint!("{}", printable(&format!("{text}\n")));
}
