//! Which job queued another one. GitHub's API and Drover's log do not contain `needs`, so it follows from the times.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::trace::Job;

/// GitHub queues a job within seconds of the end of the last job that it needs.
const LONGEST_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// A job that was queued this soon after the first job of its run needs no other job. GitHub's times have whole seconds.
const BEGINNING: SignedDuration = SignedDuration::from_secs(2);

/// Sets `after` of each job: the job of the same attempt of the run that ended last before this one was queued, if that was at
/// most `LONGEST_DELAY` before. The jobs are sorted by `queued_at`.
pub fn infer(jobs: &mut [Job]) {
    let mut attempts: HashMap<(u64, u32), Vec<usize>> = HashMap::new();
    for (index, job) in jobs.iter_mut().enumerate() {
        job.after = None;
        attempts.entry((job.run, job.attempt)).or_default().push(index);
    }
    for attempt in attempts.into_values() {
        let begin = attempt.first().map_or(Timestamp::MIN, |first| jobs[*first].queued_at);
        let mut ends: Vec<(Timestamp, usize)> =
            attempt.iter().filter_map(|index| Some((jobs[*index].ended_at?, *index))).collect();
        ends.sort_unstable();
        for index in attempt {
            let queued_at = jobs[index].queued_at;
            if queued_at.duration_since(begin) <= BEGINNING {
                continue;
            }
            let ended = &ends[..ends.partition_point(|(ended_at, _)| *ended_at <= queued_at)];
            let recent = ended.iter().rev().take_while(|(at, _)| queued_at.duration_since(*at) <= LONGEST_DELAY);
            // A job that was cancelled at once may have ended at the time at which this one was queued, and come after it.
            let cause = recent.map(|(_, cause)| *cause).find(|cause| *cause < index);
            jobs[index].after = cause.map(|cause| jobs[cause].id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A job of attempt 1 of a run: its id, and the seconds at which it was queued and ended.
    fn job(run: u64, id: u64, queued: i64, ended: Option<i64>) -> Job {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        Job {
            id,
            run,
            attempt: 1,
            repository: "octo-org/widgets".to_owned(),
            workflow: None,
            name: None,
            labels: vec!["linux".to_owned()],
            queued_at: at(queued),
            started_at: None,
            ended_at: ended.map(at),
            conclusion: None,
            after: None,
        }
    }

    fn inferred(mut jobs: Vec<Job>) -> Vec<Option<u64>> {
        infer(&mut jobs);
        jobs.into_iter().map(|job| job.after).collect()
    }

    #[test]
    fn a_job_is_after_the_last_job_that_ended_before_it_was_queued() {
        // Two builds, then a test of both, then a release.
        let jobs =
            vec![job(1, 1, 0, Some(60)), job(1, 2, 0, Some(90)), job(1, 3, 92, Some(150)), job(1, 4, 150, Some(200))];
        assert_eq!(inferred(jobs), [None, None, Some(2), Some(3)]);
    }

    #[test]
    fn a_job_that_was_queued_long_after_every_end_is_after_none() {
        // An approval took longer.
        assert_eq!(inferred(vec![job(1, 1, 0, Some(60)), job(1, 2, 90, None)]), [None, Some(1)]);
        assert_eq!(inferred(vec![job(1, 1, 0, Some(60)), job(1, 2, 91, None)]), [None, None]);
    }

    #[test]
    fn a_job_of_the_runs_beginning_is_after_none() {
        let jobs = vec![job(1, 1, 0, Some(1)), job(1, 2, 2, Some(40)), job(1, 3, 3, None)];
        assert_eq!(inferred(jobs), [None, None, Some(1)]);
    }

    #[test]
    fn jobs_of_other_runs_and_attempts_do_not_count() {
        let again = Job { attempt: 2, ..job(1, 3, 61, None) };
        assert_eq!(inferred(vec![job(1, 1, 0, Some(60)), job(2, 2, 30, None), again]), [None, None, None]);
    }

    #[test]
    fn a_job_is_after_earlier_jobs_only() {
        let at_once = vec![job(1, 1, 0, None), job(1, 2, 50, None), job(1, 3, 50, Some(50))];
        assert_eq!(inferred(at_once), [None, None, None]);
        let of_an_earlier_trace = Job { after: Some(77), ..job(1, 1, 0, None) };
        assert_eq!(inferred(vec![of_an_earlier_trace]), [None]);
    }
}
