//! The app's key: read from the secret store once, kept for the life of the process, and read again when GitHub refuses it.
//!
//! GitHub's client calls GitHub through [`AppKey::call`], in production and in the simulator. A process that outlives a
//! rotation works again with the first call that is refused; no function needs a restart.

use std::fmt;
use std::sync::Arc;

use domain::policy::secret::may_read;
use futures::lock::Mutex;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use crate::ports::{Clock, GitHubError, SecretStore, SecretVersion, Source};

/// Makes a key of a secret's text.
type Parse<K> = Box<dyn Fn(&SecretString) -> Result<K, GitHubError> + Send + Sync>;

/// A key `K` made from the text of a secret.
pub struct AppKey<K> {
    parse: Parse<K>,
    /// Locked during a read, so that concurrent calls cause one read.
    state: Mutex<State<K>>,
}

struct State<K> {
    /// None until a read has succeeded. A read that fails does not replace it.
    held: Option<Held<K>>,
    /// When the last read began.
    read_at: Option<Timestamp>,
    /// Why the last read gave no key.
    failure: Option<GitHubError>,
}

struct Held<K> {
    text: SecretString,
    key: Arc<K>,
}

impl<K> Clone for Held<K> {
    fn clone(&self) -> Self {
        Self { text: self.text.clone(), key: self.key.clone() }
    }
}

impl<K> fmt::Debug for AppKey<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppKey(<secret>)")
    }
}

impl<K> AppKey<K> {
    /// Makes no call: the first use reads the secret.
    pub fn new(parse: impl Fn(&SecretString) -> Result<K, GitHubError> + Send + Sync + 'static) -> Self {
        let state = State { held: None, read_at: None, failure: None };
        Self { parse: Box::new(parse), state: Mutex::new(state) }
    }

    /// Makes a call with the key. If the answer shows that GitHub does not accept the key, the secret is read again, and if
    /// it has changed, the call is made once more.
    ///
    /// The secret is read at most once in ten seconds ([`may_read`]), whether or not the last read succeeded. In between,
    /// a process without a key gets the last read's error, and a refused call its answer.
    ///
    /// # Errors
    /// If no key could be read yet.
    pub async fn call<A, F: Future<Output = A>>(
        &self,
        store: &dyn SecretStore,
        clock: &dyn Clock,
        call: impl Fn(Arc<K>) -> F,
        is_refused: impl Fn(&A) -> bool,
    ) -> Result<A, GitHubError> {
        let held = self.held(store, clock).await?;
        let answer = call(held.key.clone()).await;
        if !is_refused(&answer) {
            return Ok(answer);
        }
        match self.renewed(store, clock, &held).await {
            Some(renewed) => Ok(call(renewed.key).await),
            None => Ok(answer),
        }
    }

    async fn held(&self, store: &dyn SecretStore, clock: &dyn Clock) -> Result<Held<K>, GitHubError> {
        let mut state = self.state.lock().await;
        if let Some(held) = &state.held {
            return Ok(held.clone());
        }
        if !may_read(state.read_at, clock.now()) {
            let unfinished = || GitHubError::SecretUnreadable {
                message: "the last read of the secret did not end".to_owned(),
                source: None,
            };
            return Err(state.failure.clone().unwrap_or_else(unfinished));
        }
        let held = self.read(&mut state, store, clock).await?;
        state.held = Some(held.clone());
        Ok(held)
    }

    /// A key other than the one that GitHub refused; None if there is none yet, or if it is too early to look.
    async fn renewed(&self, store: &dyn SecretStore, clock: &dyn Clock, refused: &Held<K>) -> Option<Held<K>> {
        let mut state = self.state.lock().await;
        if let Some(held) = &state.held
            && !Arc::ptr_eq(&held.key, &refused.key)
        {
            // Another call was refused before this one and has read the secret.
            return Some(held.clone());
        }
        if !may_read(state.read_at, clock.now()) {
            return None;
        }
        match self.read(&mut state, store, clock).await {
            Ok(held) if held.text.expose_secret() == refused.text.expose_secret() => None,
            Ok(held) => {
                tracing::info!("GitHub refused the app's key, and the secret has another one: it is used from now on");
                state.held = Some(held.clone());
                Some(held)
            }
            Err(error) => {
                tracing::warn!("GitHub refused the app's key, and the secret cannot be read again: {error}");
                None
            }
        }
    }

    async fn read(
        &self,
        state: &mut State<K>,
        store: &dyn SecretStore,
        clock: &dyn Clock,
    ) -> Result<Held<K>, GitHubError> {
        // Before the read: one whose invocation ends counts, too.
        state.read_at = Some(clock.now());
        let read = self.read_once(store).await;
        state.failure = read.as_ref().err().cloned();
        read
    }

    async fn read_once(&self, store: &dyn SecretStore) -> Result<Held<K>, GitHubError> {
        let stored = store.read(SecretVersion::Current).await.map_err(|error| GitHubError::SecretUnreadable {
            message: error.to_string(),
            source: Some(Source::new(error)),
        })?;
        let none = || GitHubError::SecretUnusable("it has no current version".to_owned());
        let text = stored.ok_or_else(none)?.text;
        let key = Arc::new((self.parse)(&text)?);
        Ok(Held { text, key })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use async_trait::async_trait;
    use futures::executor::block_on;
    use futures::future::join_all;
    use jiff::SignedDuration;

    use super::*;
    use crate::ports::{SecretError, StoredSecret};

    /// A store and a clock. `text` is None while the store cannot be read.
    #[derive(Default)]
    struct World {
        text: StdMutex<Option<&'static str>>,
        reads: StdMutex<u32>,
        seconds: StdMutex<i64>,
    }

    #[async_trait]
    impl SecretStore for World {
        async fn read(&self, _: SecretVersion) -> Result<Option<StoredSecret>, SecretError> {
            *self.reads.lock().unwrap() += 1;
            let text = *self.text.lock().unwrap();
            let unreadable = || SecretError { id: "app".to_owned(), why: "throttled".to_owned() };
            Ok(Some(StoredSecret { text: text.ok_or_else(unreadable)?.into(), created_at: None }))
        }
    }

    #[async_trait]
    impl Clock for World {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH + SignedDuration::from_secs(*self.seconds.lock().unwrap())
        }

        async fn sleep_until(&self, _: Timestamp) {
            std::future::pending().await
        }
    }

    struct Case {
        world: World,
        key: AppKey<String>,
    }

    impl Case {
        fn new() -> Self {
            let world = World::default();
            let key = AppKey::new(|text| match text.expose_secret() {
                "unusable" => Err(GitHubError::SecretUnusable("no key".to_owned())),
                text => Ok(text.to_owned()),
            });
            Self { world, key }
        }

        fn store(&self, text: Option<&'static str>) {
            *self.world.text.lock().unwrap() = text;
        }

        fn wait(&self, seconds: i64) {
            *self.world.seconds.lock().unwrap() += seconds;
        }

        fn reads(&self) -> u32 {
            *self.world.reads.lock().unwrap()
        }

        /// Whether GitHub, which accepts only `accepted`, did what it was asked.
        async fn call(&self, accepted: &str) -> Result<bool, GitHubError> {
            let call = |key: Arc<String>| async move { key.as_str() == accepted };
            self.key.call(&self.world, &self.world, call, |done| !done).await
        }
    }

    #[test]
    fn a_rotated_key_is_found_by_the_first_refused_call() {
        let case = Case::new();
        case.store(Some("old"));
        assert!(block_on(case.call("old")).unwrap());
        case.wait(3600);
        case.store(Some("new"));
        assert!(block_on(case.call("new")).unwrap());
        assert!(block_on(case.call("new")).unwrap());
        assert_eq!(case.reads(), 2);
    }

    #[test]
    fn concurrent_refusals_cause_one_read() {
        let case = Case::new();
        case.store(Some("old"));
        assert!(block_on(case.call("old")).unwrap());
        case.wait(10);
        case.store(Some("new"));
        let done = block_on(join_all((0..20).map(|_| case.call("new"))));
        assert!(done.into_iter().all(|done| done.unwrap()));
        assert_eq!(case.reads(), 2);
    }

    #[test]
    fn a_refused_key_that_is_not_replaced_is_read_once_in_ten_seconds() {
        let case = Case::new();
        case.store(Some("deleted"));
        for _ in 0..100 {
            assert!(!block_on(case.call("other")).unwrap());
            case.wait(1);
        }
        assert_eq!(case.reads(), 10);
    }

    #[test]
    fn a_failed_read_is_repeated_after_ten_seconds_and_never_kept_as_a_key() {
        let case = Case::new();
        for _ in 0..10 {
            let error = block_on(case.call("new")).unwrap_err();
            assert!(matches!(&error, GitHubError::SecretUnreadable { message, .. } if message.contains("throttled")));
            case.wait(1);
        }
        assert_eq!(case.reads(), 1);
        case.store(Some("unusable"));
        assert!(matches!(block_on(case.call("new")), Err(GitHubError::SecretUnusable(_))));
        case.wait(10);
        case.store(Some("new"));
        assert!(block_on(case.call("new")).unwrap());
        // With a key, a failed read changes nothing.
        case.wait(10);
        case.store(None);
        assert!(!block_on(case.call("newer")).unwrap());
        assert!(block_on(case.call("new")).unwrap());
        assert_eq!(case.reads(), 4);
    }

    #[test]
    fn the_key_is_not_printed() {
        let case = Case::new();
        case.store(Some("hunter2"));
        block_on(case.call("hunter2")).unwrap();
        assert!(!format!("{:?}", case.key).contains("hunter2"));
    }
}
