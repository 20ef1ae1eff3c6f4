//! Environment variables. Programs read all of them at their start.

use std::fmt::Display;
use std::str::FromStr;

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

/// An optional variable. None if it is not set or not UTF-8.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn optional(name: &'static str) -> Option<String> {
    std::env::var(name).ok()
}

/// A variable that must be set and not empty.
///
/// # Errors
/// [`EnvironmentError::Missing`].
pub fn required(name: &'static str) -> Result<String, EnvironmentError> {
    optional(name).filter(|value| !value.is_empty()).ok_or(EnvironmentError::Missing(name))
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
        None | Some("" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(value) => {
            let rule = "must be true or false".to_owned();
            Err(EnvironmentError::Invalid { name, value: value.to_owned(), rule })
        }
    }
}
