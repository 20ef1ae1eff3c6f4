//! Secrets in Secrets Manager.

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use crate::aws::describe;

/// How long the previous webhook secret stays valid after a rotation. GitHub signs with it until an operator gives GitHub
/// the new one, and redeliveries carry old signatures.
pub const PREVIOUS_VALID_FOR: SignedDuration = SignedDuration::from_hours(24);

/// The shortest time between two reads after a wrong signature. Without it, a flood of forged signatures would become a
/// flood of calls to Secrets Manager.
pub const MIN_REREAD_INTERVAL: SignedDuration = SignedDuration::from_secs(10);

/// How long a secret is used before it is read again, even if every signature matches. A process that lives for days must
/// not accept a secret that was replaced.
pub const CACHED_FOR: SignedDuration = SignedDuration::from_hours(1);

/// The version stages of Secrets Manager.
const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";

/// A secret could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot read the secret {id}: {why}")]
pub struct SecretError {
    /// The secret's name or ARN.
    pub id: String,
    /// The reason, without any part of the secret.
    pub why: String,
}

/// One secret.
#[derive(Debug, Clone)]
pub struct Secret {
    client: Client,
    id: String,
}

struct Version {
    text: SecretString,
    created_at: Option<Timestamp>,
}

impl Secret {
    /// The secret with this name or ARN. Makes no call.
    pub fn new(aws: &SdkConfig, id: String) -> Self {
        Self { client: Client::new(aws), id }
    }

    /// The current text.
    ///
    /// # Errors
    /// If the secret cannot be read, has no text, or is empty.
    pub async fn read(&self) -> Result<SecretString, SecretError> {
        Ok(self.version(CURRENT).await?.ok_or_else(|| self.error("it has no current version"))?.text)
    }

    async fn version(&self, stage: &str) -> Result<Option<Version>, SecretError> {
        let answer = self.client.get_secret_value().secret_id(&self.id).version_stage(stage).send().await;
        let value = match answer {
            Ok(value) => value,
            // A secret that was never rotated has no previous version.
            Err(error) if stage == PREVIOUS && error.code() == Some("ResourceNotFoundException") => {
                return Ok(None);
            }
            Err(error) => return Err(self.error(&describe(&error))),
        };
        let text = value.secret_string.ok_or_else(|| self.error("it is binary, not text"))?;
        // A file stored with the AWS CLI ends in a newline, which is not part of the secret.
        let text = SecretString::from(text.trim_end_matches(['\r', '\n']));
        if text.expose_secret().is_empty() {
            return Err(self.error("it is empty"));
        }
        let created_at = value.created_date.and_then(|date| Timestamp::from_second(date.secs()).ok());
        Ok(Some(Version { text, created_at }))
    }

    fn error(&self, why: &str) -> SecretError {
        SecretError { id: self.id.clone(), why: why.to_owned() }
    }
}

/// The secret with which GitHub signs webhooks, and the previous one for a while after a rotation.
#[derive(Debug)]
pub struct WebhookSecret {
    secret: Secret,
    cached: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    current: Option<SecretString>,
    /// The previous secret, and until when it is valid.
    previous: Option<(SecretString, Timestamp)>,
    read_at: Option<Timestamp>,
    /// When both secrets were last read because of a wrong signature.
    reread_at: Option<Timestamp>,
}

impl Cached {
    fn matches(&self, check: &impl Fn(&[u8]) -> bool, now: Timestamp) -> bool {
        let check = |secret: &SecretString| check(secret.expose_secret().as_bytes());
        let current = self.current.as_ref().is_some_and(check);
        let previous = self.previous.as_ref().is_some_and(|(secret, until)| now < *until && check(secret));
        current || previous
    }
}

impl WebhookSecret {
    /// Makes no call: the first check reads the secret.
    pub fn new(secret: Secret) -> Self {
        Self { secret, cached: Mutex::default() }
    }

    /// Whether `check` holds for the current secret, or for the previous one while it is valid.
    ///
    /// If it holds for neither, the secret may have been rotated: both are read again, at most once per
    /// [`MIN_REREAD_INTERVAL`].
    ///
    /// # Errors
    /// If the secret cannot be read. The next call tries again.
    pub async fn accepts(&self, check: impl Fn(&[u8]) -> bool, now: Timestamp) -> Result<bool, SecretError> {
        let mut cached = self.cached.lock().await;
        let outdated = cached.read_at.is_none_or(|at| now.duration_since(at) >= CACHED_FOR);
        if outdated {
            match self.secret.version(CURRENT).await {
                Ok(current) => {
                    // If the secret was rotated, the reading below finds the old one as the previous version.
                    *cached = Cached { current: current.map(|it| it.text), read_at: Some(now), ..Cached::default() };
                }
                Err(error) if cached.current.is_none() => return Err(error),
                Err(error) => {
                    tracing::warn!("the webhook secret could not be read again, and the cached one is used: {error}")
                }
            }
        }
        if cached.matches(&check, now) {
            return Ok(true);
        }
        if cached.reread_at.is_some_and(|at| now.duration_since(at) < MIN_REREAD_INTERVAL) {
            return Ok(false);
        }
        let current = self.secret.version(CURRENT).await?;
        let previous = self.secret.version(PREVIOUS).await?;
        let rotated_at = current.as_ref().and_then(|current| current.created_at);
        *cached = Cached {
            previous: previous.and_then(|it| Some((it.text, rotated_at? + PREVIOUS_VALID_FOR))),
            current: current.map(|it| it.text),
            read_at: Some(now),
            reread_at: Some(now),
        };
        Ok(cached.matches(&check, now))
    }
}
