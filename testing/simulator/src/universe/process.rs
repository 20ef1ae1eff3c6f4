//! The processes of the functions, which keep the app's key from one invocation to the next. Each has a clock of its own.

use std::sync::Mutex;

use engine::app_key::AppKey;
use engine::ports::GitHubError;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use secrecy::{ExposeSecret, SecretString};

/// A process of a function.
#[derive(Debug)]
pub(super) struct Process {
    /// The number of the key.
    pub(super) key: AppKey<u32>,
    number: u64,
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
    pub(super) fn new(number: u64) -> Self {
        let key = |text: &SecretString| {
            let unusable = || GitHubError::SecretUnusable("not a number".to_owned());
            text.expose_secret().parse().map_err(|_| unusable())
        };
        Self { key: AppKey::new(key), number, reads: Mutex::default() }
    }

    /// By how much its clock is wrong, if clocks are wrong by up to `most`. Each third process has a clock that is right.
    pub(super) fn clock_error(&self, most: SignedDuration) -> SignedDuration {
        if self.number.is_multiple_of(3) || most.is_zero() {
            return SignedDuration::ZERO;
        }
        let mut rng = SmallRng::seed_from_u64(self.number);
        most.mul_f64(rng.random_range(-1.0..=1.0))
    }

    /// Whether Lambda, too, has that clock, and counts the deadlines of its invocations by it.
    pub(super) fn has_lambdas_clock(&self) -> bool {
        self.number.is_multiple_of(2)
    }

    pub(super) fn reads<T>(&self, access: impl FnOnce(&mut Reads) -> T) -> T {
        access(&mut self.reads.lock().expect("no thread panics while it holds the lock"))
    }
}
