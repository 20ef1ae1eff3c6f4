//! The cause of a port's error.

use std::error::Error;
use std::ops::Deref;
use std::sync::Arc;

/// The error that caused a port's error, as the platform's client reported it.
///
/// The engine does not look at it. A program that uses a concrete platform finds the platform's own error type with
/// [`Error::source`].
#[derive(Debug, Clone)]
pub struct Source(Arc<dyn Error + Send + Sync>);

impl Source {
    pub fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

impl Deref for Source {
    type Target = dyn Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}
