//! GitHub's rate limits, and the counts of calls.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Failure, InstallationId, UserTokenId};

/// The published limits.
#[derive(Debug, Clone)]
pub struct Limits {
    pub enforced: bool,
    /// Requests per hour and installation.
    pub requests_per_hour: u64,
    /// Points per minute, installation and endpoint. A read costs 1 point, a write 5.
    pub points_per_minute: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { enforced: true, requests_per_hour: 5000, points_per_minute: 900 }
    }
}

/// The caller of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// No credentials, for the conversion of a manifest.
    Anonymous,
    /// The app, with a JWT.
    App,
    /// An installation, with its token.
    Installation(InstallationId),
    /// A user, with a personal access token.
    User(UserTokenId),
}

/// Declares the endpoints, each with method and path as in GitHub's documentation.
macro_rules! endpoints {
    ($($variant:ident = $operation:literal;)*) => {
        /// An operation of GitHub's API that the model has.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Endpoint {
            $(#[doc = concat!("`", $operation, "`")] $variant,)*
        }
        impl Endpoint {
            /// Method and path; `{scope}` stands for `orgs/{org}` or `repos/{owner}/{repo}`.
            pub fn as_str(self) -> &'static str {
                match self { $(Endpoint::$variant => $operation,)* }
            }
        }
    };
}

endpoints! {
    GetApp = "GET /app";
    ListInstallations = "GET /app/installations";
    FindInstallation = "GET /{scope}/installation";
    CreateToken = "POST /app/installations/{id}/access_tokens";
    GenerateJit = "POST /{scope}/actions/runners/generate-jitconfig";
    ListRunners = "GET /{scope}/actions/runners";
    GetRunner = "GET /{scope}/actions/runners/{id}";
    DeleteRunner = "DELETE /{scope}/actions/runners/{id}";
    ListGroups = "GET /orgs/{org}/actions/runner-groups";
    GetJob = "GET /repos/{owner}/{repo}/actions/jobs/{id}";
    ListRuns = "GET /repos/{owner}/{repo}/actions/runs";
    ListRunJobs = "GET /repos/{owner}/{repo}/actions/runs/{id}/jobs";
    ListRepositories = "GET /installation/repositories";
    ListOrganizationRepositories = "GET /orgs/{org}/repos";
    CreateCheckRun = "POST /repos/{owner}/{repo}/check-runs";
    UpdateCheckRun = "PATCH /repos/{owner}/{repo}/check-runs/{id}";
    RerunJob = "POST /repos/{owner}/{repo}/actions/jobs/{id}/rerun";
    ListDeliveries = "GET /app/hook/deliveries";
    Redeliver = "POST /app/hook/deliveries/{id}/attempts";
    GetHook = "GET /app/hook/config";
    UpdateHook = "PATCH /app/hook/config";
    ConvertManifest = "POST /app-manifests/{code}/conversions";
}

impl Endpoint {
    /// The points that a call costs.
    fn points(self) -> u64 {
        if self.as_str().starts_with("GET ") { 1 } else { 5 }
    }
}

/// The values of the `x-ratelimit-*` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per hour.
    pub limit: u64,
    /// Requests in the current window.
    pub used: u64,
    /// When the window ends.
    pub reset: Timestamp,
}

/// The use of a limit in a window, which begins with its first call.
#[derive(Debug)]
struct Window {
    ends: Timestamp,
    used: u64,
}

impl Window {
    fn current(window: &mut Option<Window>, length: Duration, now: Timestamp) -> &mut Window {
        if window.as_ref().is_some_and(|window| window.ends <= now) {
            *window = None;
        }
        window.get_or_insert_with(|| Window { ends: now + length, used: 0 })
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// The use of all limits.
#[derive(Debug, Default)]
pub(super) struct Usage {
    hours: BTreeMap<Caller, Option<Window>>,
    minutes: BTreeMap<(Caller, Endpoint), Option<Window>>,
}

impl Usage {
    /// Charges a call. A refused call costs nothing, although GitHub may ban integrations that continue.
    pub(super) fn charge(
        &mut self,
        limits: &Limits,
        caller: Caller,
        endpoint: Endpoint,
        now: Timestamp,
    ) -> Result<(), Failure> {
        if !limits.enforced {
            return Ok(());
        }
        let hour = Window::current(self.hours.entry(caller).or_default(), HOUR, now);
        if hour.used >= limits.requests_per_hour {
            return Err(Failure::PrimaryLimit { reset: hour.ends });
        }
        let minute = Window::current(self.minutes.entry((caller, endpoint)).or_default(), MINUTE, now);
        if minute.used + endpoint.points() > limits.points_per_minute {
            return Err(Failure::SecondaryLimit { until: minute.ends });
        }
        minute.used += endpoint.points();
        hour.used += 1;
        Ok(())
    }

    pub(super) fn refund(&mut self, caller: Caller, now: Timestamp) {
        let hour = Window::current(self.hours.entry(caller).or_default(), HOUR, now);
        hour.used = hour.used.saturating_sub(1);
    }

    pub(super) fn rate(&mut self, limits: &Limits, caller: Caller, now: Timestamp) -> Rate {
        let hour = Window::current(self.hours.entry(caller).or_default(), HOUR, now);
        Rate { limit: limits.requests_per_hour, used: hour.used, reset: hour.ends }
    }
}
