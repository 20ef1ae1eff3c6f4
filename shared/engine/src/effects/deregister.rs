//! Deregistering a runner, with the proof that a termination needs.

use domain::ids::{RunnerId, Scope};
use domain::policy::retire::Deregistration;

use crate::context::Context;
use crate::ports::{Deregistered, GitHubError};

/// Deregisters a runner. After a 404 the scope's list is read for its name, because GitHub also answers 404 if the app has
/// lost access to the scope.
pub(crate) async fn deregister(
    context: &Context<'_>,
    scope: &Scope,
    runner: RunnerId,
    name: &str,
) -> Result<Deregistration, GitHubError> {
    let github = context.ports.github;
    match github.deregister(scope, runner).await? {
        Deregistered::Removed => Ok(Deregistration::removed()),
        Deregistered::Busy => Ok(Deregistration::Busy),
        Deregistered::NotFound(token) => {
            let listed = github.runners_named(scope, name).await?;
            Ok(Deregistration::not_found(scope, runner, token, &listed))
        }
    }
}
