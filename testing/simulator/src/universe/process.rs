//! The processes of the functions, which keep the app's key from one invocation to the next.

use std::sync::Mutex;

use engine::app_key::AppKey;
use engine::ports::GitHubError;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

/// A process of a function.
#[derive(Debug)]
pub(super) struct Process {
    /// The number of the key.
    pub(super) key: AppKey<u32>,
    reads: Mutex<Reads>,
}

#[derive(Debug, Default)]
pub(super) struct Reads {
    pub(super) last_at: Option<Timestamp>,
    /// How many reads have failed.
    pub(super) failed: u32,
    pub(super) first_key: Option<u32>,
}

impl Process {
    pub(super) fn new() -> Self {
        let number = |text: &SecretString| {
            let unusable = || GitHubError::SecretUnusable("not a number".to_owned());
            text.expose_secret().parse().map_err(|_| unusable())
        };
        Self { key: AppKey::new(number), reads: Mutex::default() }
    }

    pub(super) fn reads<T>(&self, access: impl FnOnce(&mut Reads) -> T) -> T {
        access(&mut self.reads.lock().expect("no thread panics while it holds the lock"))
    }
}
