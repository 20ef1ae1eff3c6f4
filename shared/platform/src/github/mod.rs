//! GitHub's REST API, called as the app, as one of its installations, or, to read the history, with a user's token. One file
//! per part of the API.
//!
//! A rate limit is an answer like any other: it is returned to the caller and never waited for.

mod answer;
mod api_url;
mod app;
mod app_manifest;
mod budgets;
mod checks;
mod client;
mod deliveries;
mod etag_cache;
mod history;
mod jobs;
mod listed;
mod port;
mod repositories;
mod runner_groups;
mod runners;
mod setup;

pub use self::api_url::{ApiUrl, NotAnApiUrl};
pub use self::app::GitHubApp;
pub use self::app_manifest::{HookAttributes, Made, Manifest, app_secret, convert, stored_api_url};
pub use self::client::PublicRoots;
pub use self::deliveries::Attempt;
pub use self::history::{History, ListedRun, Page};
pub use self::runner_groups::RunnerGroup;
pub use self::setup::{About, Hook, Installed, Permissions, RepositorySelection};
