//! Accounts, repositories and scopes on GitHub.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};
use smol_str::SmolStr;

use crate::ids::plain::InvalidName;

/// An account on GitHub: an organisation or a user. Compared without case, as GitHub does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(SmolStr);

/// A repository, written `owner/name`. Compared without case, as GitHub does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, DeserializeFromStr, SerializeDisplay)]
pub struct Repository {
    pub owner: Owner,
    name: Owner,
}

/// Where runners are registered: an organisation, or one repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, DeserializeFromStr, SerializeDisplay)]
pub enum Scope {
    /// Written `org`. Its runners serve the repositories that their runner group allows.
    Organization(Owner),
    /// Written `org/repo`. Its runners serve this repository only.
    Repository(Repository),
}

/// GitHub's own rule for account and repository names is narrower. This one excludes everything that could change the
/// meaning of a URL path or a table key.
fn is_github_name(value: &str) -> bool {
    (1..=100).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && value != "."
        && value != ".."
}

const GITHUB_NAME_RULE: &str = "must be 1 to 100 characters of A-Z, a-z, 0-9, -, _ and .";

impl Owner {
    /// The name with the case that it was first read with.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}
impl Eq for Owner {}
impl PartialOrd for Owner {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Owner {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let [own, other] = [self, other].map(|name| name.0.bytes().map(|byte| byte.to_ascii_lowercase()));
        own.cmp(other)
    }
}
impl std::hash::Hash for Owner {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_ascii_lowercase().hash(state);
    }
}
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for Owner {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        if is_github_name(value) {
            Ok(Self(value.into()))
        } else {
            Err(InvalidName { kind: "owner", value: value.to_owned(), rule: GITHUB_NAME_RULE })
        }
    }
}

impl Repository {
    /// The repository's name without its owner.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
}
impl FromStr for Repository {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName {
            kind: "repository",
            value: value.to_owned(),
            rule: "must be owner/name, each 1 to 100 characters of A-Z, a-z, 0-9, -, _ and .",
        };
        let (owner, name) = value.split_once('/').ok_or_else(invalid)?;
        Ok(Self { owner: owner.parse().map_err(|_| invalid())?, name: name.parse().map_err(|_| invalid())? })
    }
}
impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl Scope {
    /// The account whose installation of the app is used for this scope.
    pub fn owner(&self) -> &Owner {
        match self {
            Scope::Organization(owner) => owner,
            Scope::Repository(repository) => &repository.owner,
        }
    }

    /// Whether GitHub can give jobs of this repository to runners that are registered in this scope. The runner group may
    /// still exclude the repository.
    pub fn covers(&self, repository: &Repository) -> bool {
        match self {
            Scope::Organization(owner) => *owner == repository.owner,
            Scope::Repository(own) => own == repository,
        }
    }
}
impl FromStr for Scope {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        if value.contains('/') { value.parse().map(Scope::Repository) } else { value.parse().map(Scope::Organization) }
    }
}
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Organization(owner) => owner.fmt(f),
            Scope::Repository(repository) => repository.fmt(f),
        }
    }
}

/// The repositories whose jobs a machine may run: `owner/name`, or `owner/*` for every repository of the owner. Compared
/// without case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RepositoryPattern(String);

impl RepositoryPattern {
    /// Every repository that the scope covers.
    pub fn all_of(scope: &Scope) -> Self {
        match scope {
            Scope::Organization(owner) => Self(format!("{owner}/*")),
            Scope::Repository(repository) => Self(repository.to_string()),
        }
    }

    pub fn only(repository: &Repository) -> Self {
        Self(repository.to_string())
    }

    /// Whether the machine may run a job of this repository.
    pub fn allows(&self, repository: &Repository) -> bool {
        match self.0.strip_suffix("/*") {
            Some(owner) => repository.owner.as_str().eq_ignore_ascii_case(owner),
            None => self.0.eq_ignore_ascii_case(&repository.to_string()),
        }
    }
}
