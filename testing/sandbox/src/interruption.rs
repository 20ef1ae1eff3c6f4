//! Ctrl-C. The functions and machines are processes of sessions of their own, which no terminal ends: the sandbox does, when
//! it is dropped.

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

/// The program's work, which is dropped with all its processes and files when Ctrl-C is pressed or the program is asked to
/// end.
///
/// # Errors
/// The work's, or that it was interrupted.
pub async fn unless_interrupted(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        done = work => done,
        asked = interruption() => asked.and_then(|()| bail!("interrupted")),
    }
}

/// Returns once Ctrl-C is pressed or the program is asked to end.
///
/// # Errors
/// If signals cannot be received.
pub async fn interruption() -> anyhow::Result<()> {
    let receive = |kind| signal(kind).context("cannot receive signals");
    let (mut interrupt, mut terminate) = (receive(SignalKind::interrupt())?, receive(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
