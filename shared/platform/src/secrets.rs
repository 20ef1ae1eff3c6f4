//! Secrets in Secrets Manager.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use domain::policy::secret::may_read;
pub use engine::ports::SecretError;
use engine::ports::{SecretStore, SecretVersion, StoredSecret};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use crate::aws::describe;

/// How long the previous webhook secret stays valid after a rotation. GitHub signs with it until an operator gives GitHub
/// the new one, and redeliveries carry old signatures.
pub const PREVIOUS_VALID_FOR: SignedDuration = SignedDuration::from_hours(24);

/// How long a secret is used before it is read again, even if every signature matches. A process that lives for days must
/// not accept a secret that was replaced.
pub const CACHED_FOR: SignedDuration = SignedDuration::from_hours(1);

/// One secret.
#[derive(Debug, Clone)]
pub struct Secret {
    client: Client,
    id: String,
}

impl Secret {
    /// The secret with this name or ARN. Makes no call.
    pub fn new(aws: &SdkConfig, id: String) -> Self {
        Self { client: Client::new(aws), id }
    }

    fn error(&self, why: &str) -> SecretError {
        SecretError { id: self.id.clone(), why: why.to_owned() }
    }
}

#[async_trait]
impl SecretStore for Secret {
    async fn read(&self, version: SecretVersion) -> Result<Option<StoredSecret>, SecretError> {
        let stage = match version {
            SecretVersion::Current => "AWSCURRENT",
            SecretVersion::Previous => "AWSPREVIOUS",
        };
        let answer = self.client.get_secret_value().secret_id(&self.id).version_stage(stage).send().await;
        let value = match answer {
            Ok(value) => value,
            // A secret that was never rotated has no previous version.
            Err(error) if version == SecretVersion::Previous && error.code() == Some("ResourceNotFoundException") => {
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
        Ok(Some(StoredSecret { text, created_at }))
    }
}

/// The secret with which GitHub signs webhooks, and the previous one for a while after a rotation.
#[derive(Debug)]
pub struct WebhookSecret<S = Secret> {
    store: S,
    cached: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    current: Option<StoredSecret>,
    previous: Previous,
    /// When the current version was last read successfully.
    current_at: Option<Timestamp>,
    /// When the last reading began, successful or not.
    read_at: Option<Timestamp>,
    /// Why the last reading failed, if it did.
    failure: Option<SecretError>,
}

/// The previous version. It is read only if a signature does not match the current one.
#[derive(Debug, Default)]
enum Previous {
    #[default]
    NotRead,
    Read(Option<SecretString>),
}

/// Whether GitHub signed a body.
#[derive(Debug, Clone)]
pub enum Verdict {
    Signed,
    Forged,
    /// The secret could not be read, so the signature may be right.
    Unknown(SecretError),
}

impl Cached {
    fn matches(&self, check: &impl Fn(&[u8]) -> bool, now: Timestamp) -> bool {
        let check = |secret: &SecretString| check(secret.expose_secret().as_bytes());
        let Some(current) = &self.current else { return false };
        let still_valid = current.created_at.is_some_and(|rotated_at| now < rotated_at + PREVIOUS_VALID_FOR);
        let previous = match &self.previous {
            Previous::Read(Some(previous)) if still_valid => check(previous),
            Previous::Read(_) | Previous::NotRead => false,
        };
        // Both are always computed, so that the time does not show which secret signed.
        check(&current.text) | previous
    }

    fn is_outdated(&self, now: Timestamp) -> bool {
        self.current_at.is_none_or(|at| now.duration_since(at) >= CACHED_FOR)
    }
}

impl<S: SecretStore> WebhookSecret<S> {
    /// Makes no call: the first check reads the secret.
    pub fn new(store: S) -> Self {
        Self { store, cached: Mutex::default() }
    }

    /// Whether `check` holds for the current secret, or for the previous one while it is valid.
    ///
    /// If it holds for neither, the secret may have been rotated and is read again. There is at most one reading in ten
    /// seconds, whether or not the last one succeeded ([`may_read`]): of the current version and, as soon as a signature does
    /// not match that, of the previous one. Within ten seconds after a reading that failed, a signature that does not match is neither right
    /// nor forged, because the secret that would match may not have been read.
    pub async fn verify(&self, check: impl Fn(&[u8]) -> bool, now: Timestamp) -> Verdict {
        let mut cached = self.cached.lock().await;
        let reads_now = cached.is_outdated(now) && may_read(cached.read_at, now);
        if reads_now {
            self.read_current(&mut cached, now).await;
        }
        if cached.matches(&check, now) {
            return Verdict::Signed;
        }
        if !reads_now && may_read(cached.read_at, now) {
            self.read_current(&mut cached, now).await;
        }
        let previous_is_unknown = matches!(cached.previous, Previous::NotRead) && cached.failure.is_none();
        if previous_is_unknown && !cached.matches(&check, now) {
            self.read_previous(&mut cached).await;
        }
        match (cached.matches(&check, now), &cached.failure) {
            (true, _) => Verdict::Signed,
            (false, None) => Verdict::Forged,
            (false, Some(error)) => Verdict::Unknown(error.clone()),
        }
    }

    /// If this fails, the versions that are cached stay in use.
    async fn read_current(&self, cached: &mut Cached, now: Timestamp) {
        cached.read_at = Some(now);
        match self.store.read(SecretVersion::Current).await {
            // If the secret was rotated, the old one is now the previous version.
            Ok(current) => {
                *cached = Cached { current, current_at: Some(now), read_at: Some(now), ..Cached::default() };
            }
            Err(error) => {
                tracing::warn!("the webhook secret cannot be read: {error}");
                cached.failure = Some(error);
            }
        }
    }

    async fn read_previous(&self, cached: &mut Cached) {
        match self.store.read(SecretVersion::Previous).await {
            Ok(previous) => cached.previous = Previous::Read(previous.map(|it| it.text)),
            Err(error) => {
                tracing::warn!("the previous webhook secret cannot be read: {error}");
                cached.failure = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use super::*;

    /// A store that counts its reads. None: the version cannot be read.
    #[derive(Debug, Default)]
    struct Store {
        current: StdMutex<Option<&'static str>>,
        previous: StdMutex<Option<&'static str>>,
        reads: StdMutex<Vec<SecretVersion>>,
    }

    const ROTATED_AT: i64 = 1_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(ROTATED_AT + seconds).unwrap()
    }

    #[async_trait]
    impl SecretStore for &Store {
        async fn read(&self, version: SecretVersion) -> Result<Option<StoredSecret>, SecretError> {
            self.reads.lock().unwrap().push(version);
            let text = match version {
                SecretVersion::Current => *self.current.lock().unwrap(),
                SecretVersion::Previous => *self.previous.lock().unwrap(),
            };
            let unreadable = || SecretError { id: "webhook".to_owned(), why: "throttled".to_owned() };
            Ok(Some(StoredSecret { text: text.ok_or_else(unreadable)?.into(), created_at: Some(at(0)) }))
        }
    }

    impl Store {
        fn with(current: Option<&'static str>, previous: Option<&'static str>) -> Self {
            Self { current: StdMutex::new(current), previous: StdMutex::new(previous), ..Self::default() }
        }

        fn reads(&self) -> usize {
            self.reads.lock().unwrap().len()
        }
    }

    async fn verdict(secret: &WebhookSecret<&Store>, signed_with: &str, seconds: i64) -> &'static str {
        match secret.verify(|secret| secret == signed_with.as_bytes(), at(seconds)).await {
            Verdict::Signed => "signed",
            Verdict::Forged => "forged",
            Verdict::Unknown(_) => "unknown",
        }
    }

    #[tokio::test]
    async fn a_flood_of_forged_signatures_reads_both_versions_once_in_ten_seconds() {
        let store = Store::with(Some("new"), Some("old"));
        let secret = WebhookSecret::new(&store);
        for second in 0..60 {
            for _ in 0..20 {
                assert_eq!(verdict(&secret, "forged", second).await, "forged");
            }
        }
        assert_eq!(store.reads(), 12);
        assert_eq!(verdict(&secret, "new", 60).await, "signed");
        assert_eq!(verdict(&secret, "old", 60).await, "signed");
        assert_eq!(verdict(&secret, "old", 24 * 3600).await, "forged", "the old one is valid for a day");
    }

    #[tokio::test]
    async fn the_previous_secret_is_accepted_by_a_process_that_has_just_read_the_current_one() {
        let store = Store::with(Some("new"), Some("old"));
        let secret = WebhookSecret::new(&store);
        assert_eq!(verdict(&secret, "new", 0).await, "signed");
        assert_eq!(store.reads(), 1, "the previous version is not needed yet");
        assert_eq!(verdict(&secret, "old", 3).await, "signed");
        assert_eq!(verdict(&secret, "old", 4).await, "signed");
        assert_eq!(store.reads(), 2);
    }

    #[tokio::test]
    async fn a_rotation_is_found_by_the_first_signature_after_ten_seconds() {
        let store = Store::with(Some("first"), None);
        let secret = WebhookSecret::new(&store);
        assert_eq!(verdict(&secret, "first", 0).await, "signed");
        (*store.current.lock().unwrap(), *store.previous.lock().unwrap()) = (Some("second"), Some("first"));
        assert_eq!(verdict(&secret, "second", 10).await, "signed");
        assert_eq!(verdict(&secret, "first", 10).await, "signed");
    }

    #[tokio::test]
    async fn a_failed_read_is_no_verdict_and_is_repeated_after_ten_seconds() {
        let store = Store::with(None, None);
        let secret = WebhookSecret::new(&store);
        for second in 0..10 {
            assert_eq!(verdict(&secret, "new", second).await, "unknown");
        }
        assert_eq!(store.reads(), 1);
        *store.current.lock().unwrap() = Some("new");
        assert_eq!(verdict(&secret, "new", 10).await, "signed");
        // The previous version cannot be read, so another signature may be right.
        assert_eq!(verdict(&secret, "old", 11).await, "unknown");
        assert_eq!(verdict(&secret, "old", 12).await, "unknown");
        assert_eq!(verdict(&secret, "new", 12).await, "signed", "what is known stays in use");
        assert_eq!(store.reads(), 3);
        *store.previous.lock().unwrap() = Some("old");
        assert_eq!(verdict(&secret, "old", 20).await, "signed");
        // The hourly read fails: the cached versions stay in use.
        *store.current.lock().unwrap() = None;
        assert_eq!(verdict(&secret, "new", 2 * 3600).await, "signed");
        assert_eq!(verdict(&secret, "other", 2 * 3600 + 1).await, "unknown");
    }

    #[test]
    fn nothing_prints_the_secret() {
        let stored = StoredSecret { text: "hunter2".into(), created_at: None };
        let cached =
            Cached { current: Some(stored), previous: Previous::Read(Some("hunter3".into())), ..Cached::default() };
        assert!(!format!("{cached:?}").contains("hunter"));
    }
}
