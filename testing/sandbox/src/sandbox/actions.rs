//! What users of GitHub and of the AWS account do.

use std::time::Duration;

use world::ec2::{Market, RunInstances, Tags, TemplateRef};
use world::github::{Group, JobId, JobState, QueueJob};

use super::Sandbox;
use crate::names::STACK;
use crate::state::{Notification, Secret};

impl Sandbox {
    /// Queues a job of `owner/name`.
    ///
    /// # Panics
    /// If there is no such repository.
    pub fn queue_job(&self, repository: &str, labels: &[&str], runs_for: Duration) -> JobId {
        self.queue(repository, labels, |job| QueueJob { runs_for, ..job })
    }

    /// Queues a job of `owner/name` after a change to its other fields.
    ///
    /// # Panics
    /// If there is no such repository.
    pub fn queue(&self, repository: &str, labels: &[&str], change: impl FnOnce(QueueJob) -> QueueJob) -> JobId {
        let (owner, name) = repository.split_once('/').expect("a repository is owner/name");
        self.world.act(|state, now| {
            let repository = state.github.find_repository(owner, name).expect("the repository exists").id;
            state.github.queue_job(change(QueueJob::new(repository, labels)), now)
        })
    }

    /// Ends the work of a running job now, instead of after its run time. No effect on a job that does not run.
    pub fn finish(&self, job: JobId) {
        self.world.look(|state| {
            if let Some(JobState::InProgress { runner }) = state.github.job(job).map(|job| &job.state)
                && let Some(session) = state.sessions.get(&runner.id)
            {
                // The runner may have lost its connection.
                let _ = session.send(Notification::Finish);
            }
        });
    }

    /// Launches a machine that has Drover's tags and these, but is not in the table.
    ///
    /// # Panics
    /// If EC2 refuses the launch.
    pub fn unowned(&self, more: &[(&str, &str)]) -> String {
        let own = [("drover:stack", STACK), ("drover:pool", "linux"), ("drover:batch", "linux.zz9.7.1")];
        let tags: Tags = own.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let request = RunInstances {
            template: TemplateRef::Name("drover-runner".to_owned()),
            template_version: None,
            min_count: 1,
            max_count: 1,
            subnet: "subnet-a".into(),
            instance_type: None,
            market: Market::OnDemand,
            client_token: None,
            tags,
            volume_tags: Tags::new(),
        };
        let launched = self.world.act(|state, now| state.ec2.run_instances(request, now));
        launched.expect("EC2 launches it").instances[0].id.to_string()
    }

    /// Allows all repositories in every runner group, so that jobs of other repositories may take the pools' runners.
    pub fn open_groups(&self) {
        self.world.act(|state, _| {
            let owners: Vec<_> = state.github.owners().map(|owner| (owner.id, owner.groups.clone())).collect();
            for (owner, groups) in owners {
                for group in groups {
                    state.github.set_group(owner, Group { repositories: None, allows_public: true, ..group });
                }
            }
        });
    }

    /// Empties the secrets and uninstalls the app, as before the setup.
    pub fn forget_app(&self) {
        self.world.act(|state, _| {
            for secret in state.secrets.values_mut() {
                *secret = Secret { current: String::new(), previous: None, created_at: secret.created_at };
            }
            let owners: Vec<_> = state.github.owners().map(|owner| owner.id).collect();
            owners.into_iter().for_each(|owner| state.github.uninstall(owner));
        });
    }
}
