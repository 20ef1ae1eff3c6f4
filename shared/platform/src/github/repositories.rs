//! The repositories that an installation may access.

use domain::ids::{Owner, Repository, Scope};
use domain::policy::search::REPOSITORIES_PER_PAGE;
use engine::ports::{GitHubError, RepositoryPage};
use serde::Deserialize;

use super::app::{GitHubApp, Read};
use super::listed::{Listed, readable};

impl GitHubApp {
    /// One page of the repositories, counted from 1. Workflows do not run in archived and in disabled repositories.
    pub(super) async fn list_repositories(&self, owner: &Owner, page: usize) -> Result<RepositoryPage, GitHubError> {
        #[derive(Deserialize)]
        struct Page {
            total_count: usize,
            repositories: Vec<Listed<Accessible>>,
        }
        #[derive(Deserialize)]
        struct Accessible {
            full_name: Repository,
            #[serde(default)]
            archived: bool,
            #[serde(default)]
            disabled: bool,
        }
        let path = format!("/installation/repositories?per_page={REPOSITORIES_PER_PAGE}&page={page}");
        let read = self.read_cached::<Page>(&Scope::Organization(owner.clone()), &path).await?;
        let Read { resource: listed, counted } = read.map_err(|not_found| GitHubError::Refused(not_found.0))?;
        let (repositories, unreadable) = readable(listed.repositories);
        let runs_workflows = repositories.into_iter().filter(|it| !it.archived && !it.disabled);
        let repositories = runs_workflows.map(|it| it.full_name).collect();
        Ok(RepositoryPage { repositories, unreadable, total: listed.total_count, counted })
    }
}
