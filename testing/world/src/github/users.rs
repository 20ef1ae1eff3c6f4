//! Users' tokens, which read without the app.

use jiff::Timestamp;

use super::*;

impl From<Reader> for Caller {
    fn from(reader: Reader) -> Self {
        match reader {
            Reader::Installation(installation) => Caller::Installation(installation),
            Reader::User(token) => Caller::User(token),
        }
    }
}

impl GitHub {
    /// A user creates a token. Returns its text.
    pub fn add_user_token(&mut self, access: UserAccess) -> String {
        let (id, text) = (UserTokenId(self.fresh_id()), format!("github_pat_{}", self.fresh_secret()));
        self.user_tokens.insert(text.clone(), (id, access));
        text
    }

    /// Changes what a user's token may read. None deletes it.
    pub fn set_user_access(&mut self, token: &str, access: Option<UserAccess>) {
        if let (Some((id, _)), Some(access)) = (self.user_tokens.remove(token), access) {
            self.user_tokens.insert(token.to_owned(), (id, access));
        }
    }

    /// The installation or the user that a valid token belongs to.
    pub fn reader(&self, token: &str, now: Timestamp) -> Result<Reader, Failure> {
        match self.user_tokens.get(token) {
            Some((id, _)) => Ok(Reader::User(*id)),
            None => self.authorize(token, now).map(Reader::Installation),
        }
    }

    fn user_access(&self, token: UserTokenId) -> Result<&UserAccess, Failure> {
        let found = self.user_tokens.values().find(|(id, _)| *id == token);
        found.map(|(_, access)| access).ok_or(Failure::Unauthorized)
    }

    /// The repository of a call that reads runs or jobs, if the caller may read them.
    pub(super) fn readable_repository(&self, reader: Reader, owner: &str, name: &str) -> Result<RepositoryId, Failure> {
        let token = match reader {
            Reader::Installation(installation) => return self.entitled_repository(installation, owner, name),
            Reader::User(token) => token,
        };
        let access = self.user_access(token)?;
        let repository = self.find_repository(owner, name).ok_or(Failure::NotFound)?;
        match (repository.visibility, access.accounts.contains(&repository.owner), access.actions) {
            (Visibility::Public, ..) | (Visibility::Private, true, true) => Ok(repository.id),
            (Visibility::Private, true, false) => {
                Err(Failure::Forbidden("Resource not accessible by personal access token".to_owned()))
            }
            // GitHub does not admit that it exists.
            (Visibility::Private, false, _) => Err(Failure::NotFound),
        }
    }

    /// `GET /orgs/{org}/repos`: the repositories that a user's token may see.
    pub fn list_organization_repositories(
        &mut self,
        token: UserTokenId,
        org: &str,
        paging: Paging,
        now: Timestamp,
    ) -> Result<Listed<Repository>, Failure> {
        let reply = self.admit(Caller::User(token), Endpoint::ListOrganizationRepositories, now)?;
        let access = self.user_access(token)?;
        let owner = self.find_owner(org).filter(|it| it.kind == OwnerKind::Organization).ok_or(Failure::NotFound)?.id;
        let sees_private = access.accounts.contains(&owner);
        let visible = |it: &&Repository| it.owner == owner && (sees_private || it.visibility == Visibility::Public);
        reply.with(paging.of(self.repositories.values().filter(visible).cloned()))
    }
}
