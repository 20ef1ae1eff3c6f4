//! Environment variables. Programs read all of them at their start.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Mutex;

/// A variable that is missing or invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    #[error("the environment variable {0} is not set")]
    Missing(&'static str),
    #[error("the environment variable {name} is {value:?}: {rule}")]
    Invalid {
        name: &'static str,
        value: String,
        /// What the variable must be.
        rule: String,
    },
}

/// Values that do not come from the environment: `drover` has them from its command line and its settings.
static SUPPLIED: Mutex<BTreeMap<&'static str, Supplied>> = Mutex::new(BTreeMap::new());

struct Supplied {
    value: String,
    /// Whether it replaces the value that the environment sets.
    wins: bool,
}

/// Supplies a value for a variable that the environment does not set, or leaves empty.
pub fn supply(name: &'static str, value: &str) {
    insert(name, value, false);
}

/// Sets a variable's value, whatever the environment has.
pub fn replace(name: &'static str, value: &str) {
    insert(name, value, true);
}

fn insert(name: &'static str, value: &str, wins: bool) {
    let supplied = Supplied { value: value.to_owned(), wins };
    SUPPLIED.lock().expect("no thread panics while it holds the lock").insert(name, supplied);
}

/// The value of a variable if it does not come from the environment.
pub(crate) fn supplied(name: &'static str) -> Option<String> {
    let supplied = SUPPLIED.lock().expect("no thread panics while it holds the lock");
    supplied.get(name).filter(|it| it.wins || own(name).is_none()).map(|it| it.value.clone())
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn own(name: &'static str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// An optional variable. None if it is not set, empty or not UTF-8.
pub fn optional(name: &'static str) -> Option<String> {
    supplied(name).or_else(|| own(name))
}

/// A variable that must be set and not empty.
///
/// # Errors
/// [`EnvironmentError::Missing`].
pub fn required(name: &'static str) -> Result<String, EnvironmentError> {
    optional(name).ok_or(EnvironmentError::Missing(name))
}

/// A variable that must be set, parsed.
///
/// # Errors
/// If the variable is missing or cannot be parsed.
pub fn parsed<T: FromStr<Err: Display>>(name: &'static str) -> Result<T, EnvironmentError> {
    let value = required(name)?;
    value.parse().map_err(|error: T::Err| EnvironmentError::Invalid { name, rule: error.to_string(), value })
}

/// `true` or `false`. Not set means false.
///
/// # Errors
/// Any other value, so that a misspelt value does not count as false.
pub fn flag(name: &'static str) -> Result<bool, EnvironmentError> {
    match optional(name).as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(value) => {
            let rule = "must be true or false".to_owned();
            Err(EnvironmentError::Invalid { name, value: value.to_owned(), rule })
        }
    }
}
