//! What the GitHub App needs: one webhook event, and permissions that depend on the pools.

use std::fmt;

use domain::config::Pool;
use domain::ids::Scope;
use platform::github::Permissions;

/// The only webhook event that Drover uses.
pub(crate) const EVENT: &str = "workflow_job";

const ORGANIZATION_RUNNERS: &str = "organization_self_hosted_runners";
const REPOSITORY_RUNNERS: &str = "administration";

/// Features that need a permission of their own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Features {
    pub(crate) organization_runners: bool,
    pub(crate) repository_runners: bool,
    /// `rerun_on_interruption`.
    pub(crate) reruns: bool,
}

impl Features {
    pub(crate) fn of(pools: &[Pool]) -> Self {
        Self {
            organization_runners: pools.iter().any(|pool| matches!(pool.owner, Scope::Organization(_))),
            repository_runners: pools.iter().any(|pool| matches!(pool.owner, Scope::Repository(_))),
            reruns: pools.iter().any(|pool| pool.rerun_on_interruption),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Importance {
    /// Jobs do not run without it.
    Required,
    /// Jobs run without it.
    Optional,
}

/// A permission of the app, named as in GitHub's API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permission {
    pub(crate) name: &'static str,
    /// `read` or `write`.
    pub(crate) access: &'static str,
    pub(crate) purpose: &'static str,
    pub(crate) importance: Importance,
}

impl Permission {
    /// Whether the app needs it to register runners and to read their groups.
    pub(crate) fn registers_runners(&self) -> bool {
        matches!(self.name, ORGANIZATION_RUNNERS | REPOSITORY_RUNNERS)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}), needed to {}", self.name, self.access, self.purpose)
    }
}

/// The permissions that these features need.
pub(crate) fn needed(features: Features) -> Vec<Permission> {
    let required = |name, access, purpose| Permission { name, access, purpose, importance: Importance::Required };
    let mut needed = Vec::new();
    if features.organization_runners {
        needed.push(required(ORGANIZATION_RUNNERS, "write", "register runners"));
    }
    if features.repository_runners {
        needed.push(required(REPOSITORY_RUNNERS, "write", "register a repository's runners"));
    }
    needed.push(match features.reruns {
        true => required("actions", "write", "re-run jobs (rerun_on_interruption)"),
        false => required("actions", "read", "read the state of jobs"),
    });
    let purpose = "show a job's author why the job waits";
    needed.push(Permission { name: "checks", access: "write", purpose, importance: Importance::Optional });
    needed
}

/// The needed permissions that were not granted.
pub(crate) fn missing(features: Features, granted: &Permissions) -> Vec<Permission> {
    let has = |it: &Permission| granted.get(it.name).is_some_and(|access| access == "write" || access == it.access);
    needed(features).into_iter().filter(|permission| !has(permission)).collect()
}
