//! The environment: read at start, whole, and nowhere else.

use std::fmt::Display;
use std::str::FromStr;

/// A variable that is missing or makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// Not set, or empty.
    #[error("the environment variable {0} is not set")]
    Missing(&'static str),
    /// Set to something else than it may be.
    #[error("the environment variable {name} is {value:?}: {rule}")]
    Invalid {
        /// Which.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it must be.
        rule: String,
    },
}

/// A variable; None if it is not set or not UTF-8.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn optional(name: &'static str) -> Option<String> {
    std::env::var(name).ok()
}

/// A variable that must be there and not empty.
///
/// # Errors
/// [`EnvironmentError::Missing`].
pub fn required(name: &'static str) -> Result<String, EnvironmentError> {
    optional(name).filter(|value| !value.is_empty()).ok_or(EnvironmentError::Missing(name))
}

/// A variable that must be there, read as its type.
///
/// # Errors
/// When it is missing, or not what the type may be.
pub fn parsed<T: FromStr<Err: Display>>(name: &'static str) -> Result<T, EnvironmentError> {
    let value = required(name)?;
    value.parse().map_err(|error: T::Err| EnvironmentError::Invalid { name, rule: error.to_string(), value })
}

/// `true` or `false`; not set means false.
///
/// # Errors
/// Anything else: a switch that is misspelt must not be off silently.
pub fn flag(name: &'static str) -> Result<bool, EnvironmentError> {
    match optional(name).as_deref() {
        None | Some("" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(value) => {
            let rule = "must be true or false".to_owned();
            Err(EnvironmentError::Invalid { name, value: value.to_owned(), rule })
        }
    }
}
