//! The app, its installations, tokens and hook, and the accounts with their repositories.

use std::time::Duration;

use jiff::Timestamp;

use super::*;

/// How long the code of a manifest is valid.
const MANIFEST_CODE_LIFE: Duration = Duration::from_secs(3600);

impl GitHub {
    /// Adds an account without the app, which the app cannot access and which sends no webhooks.
    pub fn add_owner(&mut self, login: &str, kind: OwnerKind, now: Timestamp) -> OwnerId {
        let id = OwnerId(self.fresh_id());
        let default = Group { id: DEFAULT_GROUP, name: "Default".to_owned(), repositories: None, allows_public: true };
        let owner = Owner {
            id,
            login: login.to_owned(),
            kind,
            installation: None,
            suspended_at: None,
            has_selected: false,
            since: now,
            groups: vec![default],
            granted: BTreeMap::new(),
        };
        self.owners.insert(id, owner);
        id
    }

    /// The account installs the app on all its repositories.
    pub fn install(&mut self, owner: OwnerId, now: Timestamp) -> InstallationId {
        let installation = InstallationId(self.fresh_id());
        if let Some(owner) = self.owners.get_mut(&owner) {
            owner.installation = Some(installation);
            owner.suspended_at = None;
            owner.since = now;
            owner.granted = self.app.permissions.clone();
        }
        installation
    }

    /// The account uninstalls the app, which invalidates the tokens of the installation.
    pub fn uninstall(&mut self, owner: OwnerId) {
        let removed = self.owners.get_mut(&owner).and_then(|owner| owner.installation.take());
        self.tokens.retain(|_, (installation, _)| Some(*installation) != removed);
    }

    /// The account removes a repository from the installation. Every call about it is then answered with 404, and it sends
    /// no webhooks.
    pub fn exclude_repository(&mut self, repository: RepositoryId) {
        self.excluded.insert(repository);
    }

    /// The account adds the repository to the installation again.
    pub fn include_repository(&mut self, repository: RepositoryId) {
        self.excluded.remove(&repository);
    }

    /// The app's owner changes a requested permission. Less takes effect in all accounts at once; more takes effect only
    /// after the account accepts it, as [`GitHub::install`] does.
    pub fn set_permission(&mut self, permission: &str, level: Option<&str>) {
        let requested = &mut self.app.permissions;
        match level {
            Some(level) => drop(requested.insert(permission.to_owned(), level.to_owned())),
            None => drop(requested.remove(permission)),
        }
        for owner in self.owners.values_mut() {
            owner.granted.retain(|name, level| {
                let requested = requested.get(name);
                if requested.is_some_and(|requested| requested == "read") {
                    "read".clone_into(level);
                }
                requested.is_some()
            });
        }
    }

    /// The app's owner changes the subscribed events.
    pub fn set_events(&mut self, events: &[&str]) {
        self.app.events = events.iter().map(|event| (*event).to_owned()).collect();
    }

    /// Generates a private key for the app, and returns its number.
    pub fn add_key(&mut self) -> u32 {
        self.app.add_key()
    }

    /// Deletes the app's other private keys.
    pub fn keep_only_key(&mut self, number: u32) {
        self.app.keep_only_key(number);
    }

    /// The account suspends the app, or, with `None`, ends the suspension.
    pub fn suspend(&mut self, owner: OwnerId, since: Option<Timestamp>) {
        if let Some(owner) = self.owners.get_mut(&owner) {
            owner.suspended_at = since;
        }
    }

    /// The account selects repositories for the app, or all.
    pub fn select_repositories(&mut self, owner: OwnerId, has_selected: bool) {
        if let Some(owner) = self.owners.get_mut(&owner) {
            owner.has_selected = has_selected;
        }
    }

    /// Adds a repository to an account.
    pub fn add_repository(
        &mut self,
        owner: OwnerId,
        name: &str,
        visibility: Visibility,
        now: Timestamp,
    ) -> RepositoryId {
        let id = RepositoryId(self.fresh_id());
        let owner_login = self.owners.get(&owner).map(|owner| owner.login.clone()).unwrap_or_default();
        let repository = Repository { id, owner, owner_login, name: name.to_owned(), visibility, created_at: now };
        self.repositories.insert(id, repository);
        id
    }

    /// Adds a runner group to an account, or changes one.
    pub fn set_group(&mut self, owner: OwnerId, group: Group) {
        if let Some(owner) = self.owners.get_mut(&owner) {
            owner.groups.retain(|each| each.id != group.id);
            owner.groups.push(group);
        }
    }

    /// Deletes a runner group. Its runners stay registered and get no jobs.
    pub fn remove_group(&mut self, owner: OwnerId, group: GroupId) {
        if let Some(owner) = self.owners.get_mut(&owner) {
            owner.groups.retain(|each| each.id != group);
        }
    }

    /// Renames a repository. Calls under the old name are redirected to `/repositories/{id}`. The registered runners stay.
    pub fn rename_repository(&mut self, id: RepositoryId, name: &str) {
        let Some(repository) = self.repositories.get_mut(&id) else { return };
        let old = Scope::repository(&repository.owner_login, &repository.name);
        repository.name = name.to_owned();
        let new = Scope::repository(&repository.owner_login, name);
        for runner in self.runners.values_mut().filter(|runner| runner.scope == old) {
            runner.scope = new.clone();
        }
        self.former_names.remove(&new);
        self.former_names.insert(old, id);
    }

    /// Transfers a repository with its runs to another owner. Calls under its old name are redirected, and need access to the
    /// new owner's repository.
    pub fn transfer_repository(&mut self, id: RepositoryId, to: OwnerId) {
        let Some(owner) = self.owners.get(&to).map(|owner| owner.login.clone()) else { return };
        let Some(repository) = self.repositories.get_mut(&id) else { return };
        let old = Scope::repository(&repository.owner_login, &repository.name);
        (repository.owner, repository.owner_login) = (to, owner);
        self.former_names.insert(old, id);
    }

    /// The repository that had this name before it was renamed or transferred.
    pub fn moved(&self, owner: &str, name: &str) -> Option<RepositoryId> {
        self.former_names.get(&Scope::repository(owner, name)).copied()
    }

    /// A repository by its id.
    pub fn repository(&self, id: RepositoryId) -> Option<&Repository> {
        self.repositories.get(&id)
    }

    /// A repository by its name.
    pub fn find_repository(&self, owner: &str, name: &str) -> Option<&Repository> {
        let scope = Scope::repository(owner, name);
        self.repositories.values().find(|repository| scope.covers(repository))
    }

    /// An account by its login.
    pub fn find_owner(&self, login: &str) -> Option<&Owner> {
        self.owners.values().find(|owner| owner.login.eq_ignore_ascii_case(login))
    }

    /// Every account.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.owners.values()
    }

    /// An account by its id.
    pub fn owner(&self, id: OwnerId) -> Option<&Owner> {
        self.owners.get(&id)
    }

    /// `GET /app`: the app and the number of its installations.
    pub fn get_app(&mut self, now: Timestamp) -> Result<(App, usize), Failure> {
        let reply = self.admit(Caller::App, Endpoint::GetApp, now)?;
        let installed = self.owners.values().filter(|owner| owner.installation.is_some()).count();
        reply.with((self.app.clone(), installed))
    }

    /// The app, without a call.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// `GET /app/installations`
    pub fn list_installations(&mut self, paging: Paging, now: Timestamp) -> Result<Listed<Owner>, Failure> {
        let reply = self.admit(Caller::App, Endpoint::ListInstallations, now)?;
        reply.with(paging.of(self.owners.values().filter(|owner| owner.installation.is_some()).cloned()))
    }

    /// `GET /orgs/{org}/installation` and `GET /repos/{owner}/{repo}/installation`
    pub fn find_installation(&mut self, scope: &Scope, now: Timestamp) -> Result<Owner, Failure> {
        let reply = self.admit(Caller::App, Endpoint::FindInstallation, now)?;
        self.included(scope)?;
        let owner =
            self.find_owner(scope.owner()).filter(|owner| owner.installation.is_some()).ok_or(Failure::NotFound)?;
        if matches!(scope, Scope::Organization(_)) && owner.kind == OwnerKind::User {
            return Err(Failure::NotFound);
        }
        reply.with(owner.clone())
    }

    /// `POST /app/installations/{id}/access_tokens`
    pub fn create_token(&mut self, installation: InstallationId, now: Timestamp) -> Result<AccessToken, Failure> {
        let reply = self.admit(Caller::App, Endpoint::CreateToken, now)?;
        self.installed(installation)?;
        let token = format!("ghs_{}", self.fresh_secret());
        let expires_at = now + self.config.token_life;
        self.tokens.retain(|_, (_, expires)| *expires > now);
        self.tokens.insert(token.clone(), (installation, expires_at));
        reply.with(AccessToken { token, expires_at })
    }

    /// The installation of a valid token.
    pub fn authorize(&self, token: &str, now: Timestamp) -> Result<InstallationId, Failure> {
        match self.tokens.get(token) {
            Some((installation, expires)) if *expires > now => {
                self.installed(*installation)?;
                Ok(*installation)
            }
            _ => Err(Failure::Unauthorized),
        }
    }

    /// Fails unless the installation exists and is not suspended.
    fn installed(&self, installation: InstallationId) -> Result<(), Failure> {
        let owner = self.owners.values().find(|owner| owner.installation == Some(installation));
        match owner.ok_or(Failure::NotFound)?.suspended_at {
            Some(_) => Err(Failure::Forbidden("This installation has been suspended".to_owned())),
            None => Ok(()),
        }
    }

    /// The account of a scope, if the installation may access it.
    pub(super) fn entitled(&self, caller: InstallationId, scope: &Scope) -> Result<&Owner, Failure> {
        let account = self.find_owner(scope.owner()).ok_or(Failure::NotFound)?;
        self.included(scope)?;
        if account.installation != Some(caller) {
            return Err(Failure::Forbidden("Resource not accessible by integration".to_owned()));
        }
        Ok(account)
    }

    /// Fails if the scope is a repository that does not exist or that was removed from the installation.
    fn included(&self, scope: &Scope) -> Result<(), Failure> {
        let Scope::Repository { owner, name } = scope else { return Ok(()) };
        let repository = self.find_repository(owner, name).ok_or(Failure::NotFound)?.id;
        if self.excluded.contains(&repository) { Err(Failure::NotFound) } else { Ok(()) }
    }

    /// The account of a scope, if the installation has this level of access to its runners.
    pub(super) fn entitled_to_runners(
        &self,
        caller: InstallationId,
        scope: &Scope,
        level: &str,
    ) -> Result<&Owner, Failure> {
        let owner = self.entitled(caller, scope)?;
        let permission = match scope {
            Scope::Organization(_) => "organization_self_hosted_runners",
            Scope::Repository { .. } => "administration",
        };
        match owner.granted.get(permission) {
            Some(granted) if granted == "write" || granted == level => Ok(owner),
            _ => Err(Failure::Forbidden("Resource not accessible by integration".to_owned())),
        }
    }

    /// The repository of a call, if the installation may access it.
    pub(super) fn entitled_repository(
        &self,
        caller: InstallationId,
        owner: &str,
        name: &str,
    ) -> Result<RepositoryId, Failure> {
        self.entitled(caller, &Scope::repository(owner, name))?;
        self.find_repository(owner, name).map(|repository| repository.id).ok_or(Failure::NotFound)
    }

    /// `GET /orgs/{org}/actions/runner-groups`. With `visible_to`, only groups that this repository of the organisation may
    /// use.
    pub fn list_groups(
        &mut self,
        caller: InstallationId,
        org: &str,
        visible_to: Option<&str>,
        paging: Paging,
        now: Timestamp,
    ) -> Result<Listed<Group>, Failure> {
        let reply = self.admit(Caller::Installation(caller), Endpoint::ListGroups, now)?;
        let owner = self.entitled_to_runners(caller, &Scope::organization(org), "read")?;
        if owner.kind == OwnerKind::User {
            return Err(Failure::NotFound);
        }
        let repository = visible_to.map(|name| self.find_repository(org, name).ok_or(Failure::NotFound)).transpose()?;
        let visible = |group: &&Group| repository.is_none_or(|repository| group.admits(repository));
        reply.with(paging.of(owner.groups.iter().filter(visible).cloned()))
    }

    /// `GET /installation/repositories`: the repositories that the installation may access, which is all of the account's.
    pub fn list_installation_repositories(
        &mut self,
        caller: InstallationId,
        paging: Paging,
        now: Timestamp,
    ) -> Result<Listed<Repository>, Failure> {
        let reply = self.admit(Caller::Installation(caller), Endpoint::ListRepositories, now)?;
        let owner =
            self.owners.values().find(|owner| owner.installation == Some(caller)).ok_or(Failure::Unauthorized)?;
        let is_accessible = |it: &&Repository| it.owner == owner.id && !self.excluded.contains(&it.id);
        reply.with(paging.of(self.repositories.values().filter(is_accessible).cloned()))
    }

    /// The webhook's configuration, without a call.
    pub fn hook(&self) -> &HookConfig {
        &self.hook
    }

    /// Sets the configuration of the hook, as the form of a new app does.
    pub fn set_hook(&mut self, hook: HookConfig) {
        self.hook = hook;
    }

    /// `GET /app/hook/config`
    pub fn get_hook(&mut self, now: Timestamp) -> Result<HookConfig, Failure> {
        let reply = self.admit(Caller::App, Endpoint::GetHook, now)?;
        reply.with(self.hook.clone())
    }

    /// `PATCH /app/hook/config`: changes the given fields.
    pub fn update_hook(
        &mut self,
        url: Option<String>,
        secret: Option<String>,
        now: Timestamp,
    ) -> Result<HookConfig, Failure> {
        let reply = self.admit(Caller::App, Endpoint::UpdateHook, now)?;
        if let Some(url) = url {
            self.hook.url = url;
        }
        self.hook.secret = secret.or_else(|| self.hook.secret.take());
        reply.with(self.hook.clone())
    }

    /// Creates an app from a manifest. It replaces the previous app and has no installations.
    pub fn replace_app(&mut self, app: App, hook: HookConfig) {
        let owners: Vec<OwnerId> = self.owners.keys().copied().collect();
        owners.into_iter().for_each(|owner| self.uninstall(owner));
        self.app = app;
        self.hook = hook;
    }

    /// An unused id for a new app.
    pub fn new_app_id(&mut self) -> u64 {
        self.fresh_id()
    }

    /// Adds the code of a manifest, which can be converted once, within an hour.
    pub fn add_manifest_code(&mut self, code: &str, now: Timestamp) {
        self.manifest_codes.insert(code.to_owned(), now + MANIFEST_CODE_LIFE);
    }

    /// `POST /app-manifests/{code}/conversions`
    pub fn convert_manifest(&mut self, code: &str, now: Timestamp) -> Result<App, Failure> {
        let reply = self.admit(Caller::Anonymous, Endpoint::ConvertManifest, now)?;
        match self.manifest_codes.remove(code) {
            Some(until) if until > now => reply.with(self.app.clone()),
            _ => Err(Failure::NotFound),
        }
    }
}
