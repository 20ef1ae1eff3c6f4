//! Compares this machine's clock with those of AWS and GitHub.

use jiff::SignedDuration;

use super::report::{Group, Level};
use crate::output::age;

/// Nothing fails at this difference yet, but it is likely to grow.
const WARN_FROM: SignedDuration = SignedDuration::from_secs(30);

/// GitHub refuses a JWT issued in its future. Drover backdates its JWTs by as much.
const FAIL_FROM: SignedDuration = SignedDuration::from_secs(120);

/// `ahead` is how far the other clock is ahead of this machine's.
pub(super) fn clock(group: &mut Group, whose: &str, ahead: SignedDuration) {
    let difference = ahead.abs();
    let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
    let message = format!("{whose}'s clock is {} {direction} this machine's", age(difference));
    let remedy = "set this machine's clock (timedatectl); if it is right, the functions are affected as well";
    let level = match difference {
        difference if difference > FAIL_FROM => Level::Fail,
        difference if difference > WARN_FROM => Level::Warn,
        _ => Level::Pass,
    };
    group.add("clock", level, message, (level != Level::Pass).then(|| remedy.to_owned()));
}
