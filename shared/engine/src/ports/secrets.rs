//! Secrets Manager.

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::SecretString;

/// One secret. Not part of [`Ports`](super::Ports): the engine's effects use GitHub's port, whose implementation holds the
/// app's secret. Only [`AppKey`](crate::app_key::AppKey) reads through this trait.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// Returns a version of the secret, or None if the secret has no such version.
    async fn read(&self, version: SecretVersion) -> Result<Option<StoredSecret>, SecretError>;
}

/// The version stages of Secrets Manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretVersion {
    /// `AWSCURRENT`.
    Current,
    /// `AWSPREVIOUS`, which a secret has after its first change.
    Previous,
}

/// A version of a secret. `Debug` does not print the text.
#[derive(Debug, Clone)]
pub struct StoredSecret {
    pub text: SecretString,
    pub created_at: Option<Timestamp>,
}

/// A secret could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot read the secret {id}: {why}")]
pub struct SecretError {
    /// The secret's name or ARN.
    pub id: String,
    /// The reason, without any part of the secret.
    pub why: String,
}
