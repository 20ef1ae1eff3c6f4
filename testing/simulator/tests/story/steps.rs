//! Running an invocation up to one of its steps, where it may end or let another one run.

use std::pin::Pin;
use std::task::{Context, Waker};

/// Polls up to `steps` times after the first. Returns whether the future is done.
pub(crate) fn steps<F: Future>(mut future: Pin<&mut F>, steps: usize) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    (0..=steps).any(|_| future.as_mut().poll(&mut context).is_ready())
}
