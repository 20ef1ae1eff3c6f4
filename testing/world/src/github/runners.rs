//! Runner registrations.

use jiff::Timestamp;

use super::*;

/// The body of `generate-jitconfig`.
#[derive(Debug, Clone)]
pub struct JitRequest {
    /// At most 64 characters, unique in the scope.
    pub name: String,
    pub group: GroupId,
    /// 1 to 100 labels.
    pub labels: Vec<String>,
}

/// A new registration and its JIT config.
#[derive(Debug, Clone)]
pub struct JitRegistration {
    /// The registration, which is offline.
    pub runner: Runner,
    /// The secret of the JIT config, with which one process can connect once.
    pub secret: String,
}

impl GitHub {
    /// `POST .../actions/runners/generate-jitconfig`. Does not bind the runner to a job.
    pub fn generate_jit(
        &mut self,
        caller: InstallationId,
        scope: &Scope,
        request: JitRequest,
        now: Timestamp,
    ) -> Result<JitRegistration, Failure> {
        let reply = self.admit(Caller::Installation(caller), Endpoint::GenerateJit, now)?;
        let owner = self.entitled_to_runners(caller, scope, "write")?;
        if matches!(scope, Scope::Organization(_)) && owner.kind == OwnerKind::User {
            return Err(Failure::NotFound);
        }
        let group = owner.groups.iter().find(|group| group.id == request.group).ok_or(Failure::NotFound)?.clone();
        let invalid = |rule: &str| Err(Failure::Unprocessable(format!("Invalid runner registration: {rule}")));
        if request.name.is_empty() || request.name.chars().count() > 64 {
            return invalid("the name must have 1 to 64 characters");
        }
        if request.labels.is_empty()
            || request.labels.len() > 100
            || request.labels.iter().any(|label| label.trim().is_empty())
        {
            return invalid("1 to 100 labels are needed, none of them empty");
        }
        if self.runners.values().any(|runner| runner.scope == *scope && runner.name == request.name) {
            return Err(Failure::Conflict(format!(
                "Already exists - A runner with the name {} already exists.",
                request.name
            )));
        }
        let runner = self.register(scope.clone(), request.name, request.labels, &group, Operator::Process, now);
        let secret = self.fresh_secret();
        self.secrets.insert(secret.clone(), runner.id);
        self.agenda.plan(now + self.config.offline_limit, Due::OfflineLimit(runner.id, now));
        reply.with(JitRegistration { runner, secret })
    }

    /// Adds another user's runner, which the model operates. It takes any job that fits, one after the other.
    pub fn add_foreign_runner(&mut self, scope: Scope, name: &str, labels: &[&str], now: Timestamp) -> RunnerId {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let group = Group { id: DEFAULT_GROUP, name: "Default".to_owned(), repositories: None, allows_public: true };
        let runner = self.register(scope, name.to_owned(), labels, &group, Operator::Model, now).id;
        if let Some(runner) = self.runners.get_mut(&runner) {
            runner.online = true;
            runner.connected_at = Some(now);
        }
        self.idle.insert(runner);
        self.assign(now);
        runner
    }

    fn register(
        &mut self,
        scope: Scope,
        name: String,
        labels: Vec<String>,
        group: &Group,
        operator: Operator,
        now: Timestamp,
    ) -> Runner {
        let id = RunnerId(self.fresh_id());
        let runner = Runner {
            id,
            scope,
            name,
            labels,
            group: group.id,
            group_name: group.name.clone(),
            ephemeral: operator == Operator::Process,
            operator,
            online: false,
            job: None,
            created_at: now,
            connected_at: None,
            offline_since: now,
            busy_since: None,
        };
        self.runners.insert(id, runner.clone());
        runner
    }

    /// `GET .../actions/runners`, optionally by name. May show a runner as idle that became busy a moment ago.
    pub fn list_runners(
        &mut self,
        caller: InstallationId,
        scope: &Scope,
        name: Option<&str>,
        paging: Paging,
        now: Timestamp,
    ) -> Result<Listed<Runner>, Failure> {
        let reply = self.admit(Caller::Installation(caller), Endpoint::ListRunners, now)?;
        self.entitled_to_runners(caller, scope, "read")?;
        let listed = self
            .runners
            .values()
            .filter(|runner| runner.scope == *scope && name.is_none_or(|name| runner.name == name))
            .filter(|_| !self.faults.lists_nothing);
        let page = paging.of(listed);
        let items = page.items.into_iter().map(|runner| self.as_listed(runner, now)).collect();
        reply.with(Listed { total: page.total, items })
    }

    /// `GET .../actions/runners/{id}`, with the delay of the list.
    pub fn get_runner(
        &mut self,
        caller: InstallationId,
        scope: &Scope,
        id: RunnerId,
        now: Timestamp,
    ) -> Result<Runner, Failure> {
        let reply = self.admit(Caller::Installation(caller), Endpoint::GetRunner, now)?;
        self.entitled_to_runners(caller, scope, "read")?;
        let runner = self.runners.get(&id).filter(|runner| runner.scope == *scope).ok_or(Failure::NotFound)?;
        reply.with(self.as_listed(runner, now))
    }

    fn as_listed(&self, runner: &Runner, now: Timestamp) -> Runner {
        let mut listed = runner.clone();
        if runner.busy_since.is_some_and(|since| since + self.faults.busy_lag > now) {
            listed.job = None;
        }
        listed
    }

    /// `DELETE .../actions/runners/{id}`. Answers 422 if the runner is busy, without the delay of the list.
    pub fn delete_runner(
        &mut self,
        caller: InstallationId,
        scope: &Scope,
        id: RunnerId,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let reply = self.admit(Caller::Installation(caller), Endpoint::DeleteRunner, now)?;
        self.entitled_to_runners(caller, scope, "write")?;
        let runner = self.runners.get(&id).filter(|runner| runner.scope == *scope).ok_or(Failure::NotFound)?;
        if runner.job.is_some() {
            return Err(Failure::Unprocessable(format!(
                "Bad request - Runner \"{}\" is currently running a job and cannot be deleted.",
                runner.name
            )));
        }
        self.remove_runner(id, now);
        reply.with(())
    }

    /// Removes a registration and its JIT config.
    pub(super) fn remove_runner(&mut self, id: RunnerId, now: Timestamp) {
        if self.runners.remove(&id).is_some() {
            self.idle.remove(&id);
            self.secrets.retain(|_, runner| *runner != id);
            self.agenda.plan(now, Due::Report(Happening::RunnerRemoved { runner: id }));
        }
    }

    pub(super) fn offline_too_long(&mut self, id: RunnerId, since: Timestamp) {
        let expired = self.runners.get(&id).is_some_and(|runner| {
            runner.ephemeral && !runner.online && runner.job.is_none() && runner.offline_since == since
        });
        if expired {
            self.remove_runner(id, since + self.config.offline_limit);
        }
    }

    pub(super) fn idle_too_long(&mut self, id: RunnerId, since: Timestamp, now: Timestamp) {
        let expired =
            self.idle.contains(&id) && self.runners.get(&id).is_some_and(|runner| runner.connected_at == Some(since));
        if expired {
            self.remove_runner(id, now);
        }
    }
}
