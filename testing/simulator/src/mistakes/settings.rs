//! Mistakes that an operator could make in the pool file.

use domain::config::{Day, Pool, Span, TimeOfDay};

use crate::mistakes::kinds::Mistake;

/// The pools as the mistake configures them.
pub(crate) fn settings(mistake: Option<Mistake>, pools: Vec<Pool>) -> Vec<Pool> {
    let change = |mut pool: Pool| {
        if mistake == Some(Mistake::ZeroGrace) {
            pool.timings.boot_grace = zero();
        }
        if mistake == Some(Mistake::NoRelaunchBound) {
            pool.timings.relaunch_window = zero();
        }
        if mistake == Some(Mistake::NoSchedule) {
            pool.schedules.clear();
        }
        if mistake == Some(Mistake::EndlessSchedule)
            && let Some(schedule) = pool.schedules.first_mut()
        {
            // No world lasts a day.
            (schedule.from, schedule.to, schedule.days) = (midnight(), TimeOfDay::END, Day::ALL.into());
            pool.schedules.truncate(1);
        }
        pool
    };
    pools.into_iter().map(change).collect()
}

fn midnight() -> TimeOfDay {
    "00:00".parse().expect("a time of day")
}

fn zero() -> Span {
    "0s".parse().expect("zero is allowed")
}
