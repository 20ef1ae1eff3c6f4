//! Makes a trace of jobs as a source has them: in any order, some of them twice, with names of any length.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use crate::needs;
use crate::trace::{Header, Job, LONGEST_NAME, LONGEST_PERIOD, MOST_LABELS, Trace};

impl Trace {
    /// The trace of these jobs. Leaves out jobs that were queued outside of the header's period, and sets `after`. Of two jobs with
    /// the same id the first is kept.
    pub fn of(header: Header, jobs: impl IntoIterator<Item = Job>) -> Self {
        let mut ids = HashSet::new();
        let is_within = |job: &Job| (header.from..=header.until).contains(&job.queued_at);
        let mut jobs: Vec<Job> =
            jobs.into_iter().filter(|job| is_within(job) && ids.insert(job.id)).map(corrected).collect();
        jobs.sort_by_key(|job| (job.queued_at, job.id));
        needs::infer(&mut jobs);
        Self { header, jobs }
    }
}

/// The job with names and times as a trace may have them.
fn corrected(job: Job) -> Job {
    // Times come from different machines and are rounded, so a job may start a second before it was queued.
    let not_before = |at: Option<Timestamp>, begin: Timestamp| {
        at.map(|at| at.max(begin)).filter(|at| at.duration_since(begin) <= LONGEST_PERIOD)
    };
    let started_at = not_before(job.started_at, job.queued_at);
    let ended_at = not_before(job.ended_at, started_at.unwrap_or(job.queued_at));
    let mut labels: Vec<String> = job.labels.iter().map(|label| short(label)).collect();
    labels.truncate(MOST_LABELS);
    Job {
        workflow: job.workflow.as_deref().map(short),
        name: job.name.as_deref().map(short),
        conclusion: job.conclusion.as_deref().map(short),
        labels,
        started_at,
        ended_at,
        ..job
    }
}

/// Names are written by users.
fn short(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect()
}

/// The median, in seconds to the tenth. None without times.
pub fn median(mut times: Vec<SignedDuration>) -> Option<f64> {
    times.sort_unstable();
    let (low, high) = (times.get(times.len().checked_sub(1)? / 2)?, times.get(times.len() / 2)?);
    let middle = f64::midpoint(low.as_secs_f64(), high.as_secs_f64());
    Some((middle * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Compression, Measured, Source, VERSION};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn job(id: u64, queued: i64) -> Job {
        Job {
            id,
            run: 1,
            attempt: 1,
            repository: "octo-org/widgets".to_owned(),
            workflow: Some("CI".to_owned()),
            name: Some("build".to_owned()),
            labels: vec!["linux".to_owned()],
            queued_at: at(queued),
            started_at: Some(at(queued + 20)),
            ended_at: Some(at(queued + 80)),
            conclusion: Some("success".to_owned()),
            after: None,
        }
    }

    #[test]
    fn jobs_in_any_order_and_with_any_names_make_a_trace_that_can_be_read() {
        let header = Header {
            drover_trace: VERSION,
            source: Source::GitHub,
            from: at(0),
            until: at(1000),
            days: Vec::new(),
            region: None,
            anonymous: false,
            measured: Measured::default(),
        };
        let odd = Job {
            name: Some(format!("\u{1b}[31m{}\n", "x".repeat(1000))),
            labels: (0..100).map(|label| format!("label\t{label}")).collect(),
            started_at: Some(at(99)),
            ended_at: Some(at(98)),
            ..job(3, 100)
        };
        let jobs = vec![job(2, 200), odd, job(2, 500), job(4, -1), job(5, 1001), job(1, 0), job(6, 81)];
        let trace = Trace::of(header, jobs);
        let ids: Vec<u64> = trace.jobs.iter().map(|job| job.id).collect();
        assert_eq!(ids, [1, 6, 3, 2]);
        assert_eq!(trace.jobs[1].after, Some(1));
        assert_eq!((trace.jobs[2].started_at, trace.jobs[2].ended_at), (Some(at(100)), Some(at(100))));
        let mut file = Vec::new();
        trace.write(&mut file, Compression::None).unwrap();
        assert_eq!(Trace::read(file.as_slice()).unwrap(), trace);
    }

    #[test]
    fn the_median_of_two_times_is_between_them() {
        let seconds = |times: &[i64]| median(times.iter().map(|time| SignedDuration::from_millis(*time)).collect());
        assert_eq!(seconds(&[]), None);
        assert_eq!(seconds(&[3000]), Some(3.0));
        assert_eq!(seconds(&[9000, 1000, 2000]), Some(2.0));
        assert_eq!(seconds(&[4000, 1000, 2000, 3000]), Some(2.5));
    }
}
