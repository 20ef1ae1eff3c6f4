//! Secrets Manager.

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use crate::aws::describe;

/// A rotated webhook secret is good for so long after the new one was made: GitHub signs with the old one until somebody
/// tells it the new one, and redeliveries carry old signatures.
pub const PREVIOUS_GOOD_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Anybody can send us forged signatures; they must not become as many calls to Secrets Manager.
pub const READ_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// What was read is read again after so long even if every signature matches: else a process that lives for days would
/// go on to accept a secret that was rotated away.
pub const READ_GOOD_FOR: SignedDuration = SignedDuration::from_hours(1);

/// A secret could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot read the secret {id}: {why}")]
pub struct SecretError {
    /// Its name or ARN.
    pub id: String,
    /// What is the matter. Never the secret.
    pub why: String,
}

/// One secret.
#[derive(Debug, Clone)]
pub struct Secret {
    client: Client,
    id: String,
}

struct Version {
    text: String,
    created_at: Option<Timestamp>,
}

impl Secret {
    /// The secret of that name or ARN. Makes no call.
    pub fn new(aws: &SdkConfig, id: String) -> Self {
        Self { client: Client::new(aws), id }
    }

    /// Its current text.
    ///
    /// # Errors
    /// When it cannot be read, has no text, or is empty.
    pub async fn read(&self) -> Result<String, SecretError> {
        Ok(self.version("AWSCURRENT").await?.ok_or_else(|| self.error("it has no current version"))?.text)
    }

    async fn version(&self, stage: &str) -> Result<Option<Version>, SecretError> {
        let answer = self.client.get_secret_value().secret_id(&self.id).version_stage(stage).send().await;
        let value = match answer {
            Ok(value) => value,
            // A secret that was never rotated has no previous version.
            Err(error) if stage == "AWSPREVIOUS" && error.code() == Some("ResourceNotFoundException") => {
                return Ok(None);
            }
            Err(error) => return Err(self.error(&describe(&error))),
        };
        let text = value.secret_string.ok_or_else(|| self.error("it is binary, not text"))?;
        // A file that was put in with the CLI ends in a newline; no secret does.
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        if text.is_empty() {
            return Err(self.error("it is empty"));
        }
        let created_at = value.created_date.and_then(|date| Timestamp::from_second(date.secs()).ok());
        Ok(Some(Version { text, created_at }))
    }

    fn error(&self, why: &str) -> SecretError {
        SecretError { id: self.id.clone(), why: why.to_owned() }
    }
}

/// The secret that GitHub signs webhooks with, through its rotations.
#[derive(Debug)]
pub struct WebhookSecret {
    secret: Secret,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    current: Option<String>,
    previous: Option<(String, Timestamp)>,
    read_at: Option<Timestamp>,
    read_again_at: Option<Timestamp>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("read_at", &self.read_at).finish_non_exhaustive()
    }
}

impl Known {
    fn matches(&self, check: &impl Fn(&[u8]) -> bool, now: Timestamp) -> bool {
        let current = self.current.as_ref().is_some_and(|secret| check(secret.as_bytes()));
        let previous = self.previous.as_ref().is_some_and(|(secret, until)| now < *until && check(secret.as_bytes()));
        current || previous
    }
}

impl WebhookSecret {
    /// Reads nothing yet.
    pub fn new(secret: Secret) -> Self {
        Self { secret, known: Mutex::default() }
    }

    /// Whether `check` holds for the current secret, or for the previous one while that is still good.
    ///
    /// A mismatch may mean a rotation we have not heard of: then both are read again, at most once per
    /// [`READ_AGAIN_AFTER`].
    ///
    /// # Errors
    /// When the secret cannot be read. That is not remembered: the next call reads again.
    pub async fn accepts(&self, check: impl Fn(&[u8]) -> bool, now: Timestamp) -> Result<bool, SecretError> {
        let mut known = self.known.lock().await;
        let outdated = known.read_at.is_none_or(|at| now.duration_since(at) >= READ_GOOD_FOR);
        if outdated {
            match self.secret.version("AWSCURRENT").await {
                Ok(current) => {
                    // What was the current secret until now is judged as the previous one by the reading below.
                    *known = Known { current: current.map(|it| it.text), read_at: Some(now), ..Known::default() };
                }
                Err(error) if known.current.is_none() => return Err(error),
                Err(error) => tracing::warn!("the webhook secret is not refreshed: {error}"),
            }
        }
        if known.matches(&check, now) {
            return Ok(true);
        }
        if known.read_again_at.is_some_and(|at| now.duration_since(at) < READ_AGAIN_AFTER) {
            return Ok(false);
        }
        let current = self.secret.version("AWSCURRENT").await?;
        let previous = self.secret.version("AWSPREVIOUS").await?;
        let rotated_at = current.as_ref().and_then(|current| current.created_at);
        *known = Known {
            previous: previous.and_then(|it| Some((it.text, rotated_at? + PREVIOUS_GOOD_FOR))),
            current: current.map(|it| it.text),
            read_at: Some(now),
            read_again_at: Some(now),
        };
        Ok(known.matches(&check, now))
    }
}
