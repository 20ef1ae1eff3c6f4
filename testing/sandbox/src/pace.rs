//! How fast this machine is now. The executables run in real time, so the sandbox adapts its time limits to a slow or busy
//! machine, and tests wait for events.

use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// The longest wait for an event. Only a test that fails waits this long.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The time in which a machine that does nothing else starts and ends a small program, rounded up.
const UNLOADED: Duration = Duration::from_millis(10);

/// Slower machines do not get longer time limits.
const SLOWEST: u32 = 8;

/// How many times longer than on an unloaded machine something takes now: from 1 to `SLOWEST`.
pub fn slowness() -> u32 {
    let mut took: Vec<Duration> = (0..3).map(|_| start_and_end()).collect();
    took.sort();
    let times = took[1].as_millis() / UNLOADED.as_millis();
    u32::try_from(times).unwrap_or(SLOWEST).clamp(1, SLOWEST)
}

fn start_and_end() -> Duration {
    let began = Instant::now();
    // If there is no shell, nothing is slow either.
    let _ = Command::new("sh").args(["-c", "true"]).stdin(Stdio::null()).status();
    began.elapsed()
}
