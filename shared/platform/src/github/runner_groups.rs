//! Runner groups, which decide whose jobs a runner gets.

use domain::ids::{Owner, Repository, Scope};
use engine::ports::{Clock, GitHubError};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::answer::{error, parse};
use super::app::GitHubApp;
use super::client::NO_BODY;
use crate::clock::SystemClock;

/// GitHub's largest page of runner groups.
const PER_PAGE: usize = 100;

const MAX_PAGES: usize = 1000;

/// A runner group, as far as it limits which repositories use its runners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerGroup {
    pub id: u64,
    pub name: String,
    /// Whether only selected repositories may use the group.
    pub selected: bool,
    /// Whether public repositories may use the group.
    pub allows_public: bool,
}

impl GitHubApp {
    /// The runner groups of an organisation, including those of its enterprise. If `visible_to` names a repository of the
    /// organisation, only the groups that this repository may use.
    ///
    /// # Errors
    /// If GitHub does not list them. It lists them only for apps that may administer self-hosted runners.
    pub async fn runner_groups(
        &self,
        owner: &Owner,
        visible_to: Option<&Repository>,
    ) -> Result<Vec<RunnerGroup>, GitHubError> {
        #[derive(Deserialize)]
        struct Page {
            total_count: usize,
            runner_groups: Vec<Group>,
        }
        #[derive(Deserialize)]
        struct Group {
            id: u64,
            name: String,
            visibility: String,
            allows_public_repositories: bool,
        }
        let only = visible_to.map(|it| format!("&visible_to_repository={}", it.name())).unwrap_or_default();
        let mut groups = Vec::new();
        for page in 1..=MAX_PAGES {
            let path = format!("/orgs/{owner}/actions/runner-groups?per_page={PER_PAGE}&page={page}{only}");
            let answer = self.call(Method::GET, &Scope::Organization(owner.clone()), &path, NO_BODY).await?;
            if answer.status() != StatusCode::OK {
                return Err(error(answer, SystemClock.now()).await);
            }
            let listed: Page = parse(answer).await?;
            let is_last = listed.runner_groups.is_empty() || page * PER_PAGE >= listed.total_count;
            groups.extend(listed.runner_groups.into_iter().map(|group| RunnerGroup {
                id: group.id,
                name: group.name,
                selected: group.visibility == "selected",
                allows_public: group.allows_public_repositories,
            }));
            if is_last {
                break;
            }
        }
        Ok(groups)
    }
}
