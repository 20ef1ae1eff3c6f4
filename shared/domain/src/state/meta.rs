//! A pool's own state.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{Market, Tuple};
use crate::ids::{Epoch, PoolName};

/// A pool's own state: the item `POOL#<pool>`, `META`. Its revision is the pool's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The pool.
    pub pool: PoolName,
    /// See [`Epoch`].
    pub epoch: Epoch,
    /// [`Pool::config_hash`] of the configuration that the last decision followed.
    #[serde(default)]
    pub config_hash: String,
    /// Whether launching makes sense.
    pub circuit: Circuit,
    /// Slots in a row that were configured and never came online.
    #[serde(default)]
    pub boot_failures: u32,
    /// Ways to launch that EC2 refused lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cooldowns: Vec<Cooldown>,
    /// Markets whose quota is used up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<Pause>,
    /// EC2 had too many calls of RunInstances lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<Throttle>,
    /// How often the item was written: the pool's version.
    pub revision: u64,
}

impl Meta {
    /// A pool that never decided anything.
    pub fn new(pool: PoolName, epoch: Epoch) -> Self {
        Self {
            pool,
            epoch,
            config_hash: String::new(),
            circuit: Circuit::Closed,
            boot_failures: 0,
            cooldowns: Vec::new(),
            pauses: Vec::new(),
            throttled: None,
            revision: 0,
        }
    }

    /// Whether RunInstances is to be left alone.
    pub fn is_throttled(&self, now: Timestamp) -> bool {
        self.throttled.as_ref().is_some_and(|throttled| throttled.until > now)
    }
}

/// How long RunInstances is left alone, by everybody who launches for the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// No call before then.
    pub until: Timestamp,
    /// How often in a row EC2 said so: the next wait is longer.
    pub times: u32,
}

/// Keeps a pool whose machines cannot work from launching more of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Circuit {
    /// Launch what is needed.
    Closed,
    /// Launch nothing before `until`, then one machine to see whether it works again.
    Open {
        /// When the next probe may be launched.
        until: Timestamp,
        /// How long the last wait was; the next is twice as long.
        backoff_seconds: i64,
        /// Since when the pool has not worked.
        since: Timestamp,
        /// Stored as `code`.
        #[serde(rename = "code")]
        cause: CircuitCause,
        /// EC2's message, or what to look at.
        message: String,
    },
}

/// Why a circuit is open. Stored as text: EC2's error code, `BootFailures` or `RegistrationRefused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum CircuitCause {
    /// Configured runners in a row never came online.
    BootFailures,
    /// GitHub refuses to register runners: the runner group or the app's installation is gone, for example.
    RegistrationRefused,
    /// EC2 refused a launch with this code, because of the configuration.
    LaunchRefused(String),
}

const BOOT_FAILURES: &str = "BootFailures";
const REGISTRATION_REFUSED: &str = "RegistrationRefused";

impl CircuitCause {
    /// The text that is stored and shown. EC2 has no code that is equal to one of ours.
    pub fn code(&self) -> &str {
        match self {
            CircuitCause::BootFailures => BOOT_FAILURES,
            CircuitCause::RegistrationRefused => REGISTRATION_REFUSED,
            CircuitCause::LaunchRefused(code) => code,
        }
    }
}
impl From<String> for CircuitCause {
    fn from(code: String) -> Self {
        match code.as_str() {
            BOOT_FAILURES => CircuitCause::BootFailures,
            REGISTRATION_REFUSED => CircuitCause::RegistrationRefused,
            _ => CircuitCause::LaunchRefused(code),
        }
    }
}
impl From<CircuitCause> for String {
    fn from(cause: CircuitCause) -> String {
        cause.code().to_owned()
    }
}
impl std::fmt::Display for CircuitCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

/// A way to launch that EC2 refused for want of capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    /// What was refused.
    pub tuple: Tuple,
    /// Not tried before then.
    pub until: Timestamp,
    /// How long this wait is; the next is twice as long.
    pub seconds: i64,
    /// EC2's code.
    pub code: String,
}

/// A market whose account quota is used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The market.
    pub market: Market,
    /// Not tried before then.
    pub until: Timestamp,
    /// EC2's code.
    pub code: String,
    /// EC2's message.
    pub message: String,
}
