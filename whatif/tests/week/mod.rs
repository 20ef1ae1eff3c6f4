//! A week of made-up jobs of one organization: pull requests in bursts, matrices, nightly builds, jobs that need others, and
//! cancellations.

use jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use whatif::trace::{Compression, Header, Job, Measured, Source, Trace, VERSION};

/// The same seed makes the same week.
const SEED: u64 = 20_261_102;

/// Monday.
const FIRST_DAY: &str = "2026-11-02T00:00:00Z";

/// UTC. People push from eight to six, less around noon.
const PUSHES_PER_HOUR: [(i64, u32); 11] =
    [(7, 4), (8, 12), (9, 20), (10, 24), (11, 18), (12, 10), (13, 20), (14, 26), (15, 24), (16, 16), (17, 6)];

/// A job of a workflow: its name, label, usual run time in seconds, and the index of the job that it needs.
type Template = (&'static str, &'static str, i64, Option<usize>);

/// A repository: its name, its share of the pushes in percent, and the jobs of a push.
const REPOSITORIES: [(&str, u32, &[Template]); 4] = [
    (
        "octo-org/shop",
        40,
        &[
            ("lint", "linux", 70, None),
            ("unit (1)", "linux", 260, None),
            ("unit (2)", "linux", 240, None),
            ("unit (3)", "linux", 280, None),
            ("build", "large", 330, None),
            ("browser", "linux", 520, Some(4)),
        ],
    ),
    (
        "octo-org/api",
        30,
        &[("lint", "linux", 45, None), ("test", "linux", 380, None), ("image", "large", 210, Some(1))],
    ),
    ("octo-org/site", 20, &[("build", "linux", 110, None), ("preview", "linux", 60, Some(0))]),
    ("octo-org/tools", 10, &[("test", "linux", 150, None), ("package", "linux", 90, Some(0))]),
];

/// The nightly matrix of octo-org/shop.
const NIGHTLY: usize = 40;

struct Week {
    rng: SmallRng,
    jobs: Vec<Job>,
    run: u64,
    last_id: u64,
}

/// The week as a compressed file.
#[allow(dead_code, reason = "the stories use the jobs only")]
pub(crate) fn file() -> Vec<u8> {
    let mut file = Vec::new();
    week().write(&mut file, Compression::Gzip).expect("writing to memory does not fail");
    file
}

/// The week.
pub(crate) fn week() -> Trace {
    let mut week = Week { rng: SmallRng::seed_from_u64(SEED), jobs: Vec::new(), run: 0, last_id: 0 };
    for day in 0..7 {
        let midnight = at(day, 0);
        for matrix in 0..NIGHTLY {
            week.nightly(midnight + SignedDuration::from_hours(2), matrix);
        }
        week.run += 1;
        // Few people push at a weekend.
        let share = if day < 5 { 1.0 } else { 0.06 };
        for (hour, pushes) in PUSHES_PER_HOUR {
            for _ in 0..(f64::from(pushes) * share * week.rng.random_range(0.7..1.3)).round() as u32 {
                let after = SignedDuration::from_secs(week.rng.random_range(0..3600));
                week.push(midnight + SignedDuration::from_hours(hour) + after);
            }
        }
    }
    finished(week.jobs)
}

fn at(day: i64, hour: i64) -> Timestamp {
    let first: Timestamp = FIRST_DAY.parse().expect("a time");
    first + SignedDuration::from_hours(24 * day + hour)
}

impl Week {
    /// A run time near the usual one.
    fn around(&mut self, seconds: i64) -> SignedDuration {
        let factor = self.rng.random_range(0.8..1.25) * if self.rng.random_bool(0.03) { 2.5 } else { 1.0 };
        SignedDuration::from_secs((seconds as f64 * factor).round() as i64)
    }

    fn nightly(&mut self, at: Timestamp, matrix: usize) {
        let runs_for = self.around(900);
        let name = format!("nightly ({})", matrix + 1);
        let job = self.job("octo-org/shop", "nightly", &name, "linux", at, runs_for);
        self.jobs.push(job);
    }

    /// Somebody pushes a commit. Often another commit follows within minutes, which cancels what has not ended.
    fn push(&mut self, at: Timestamp) {
        let mut pick = self.rng.random_range(0..100);
        let mut found = REPOSITORIES[0];
        for repository in REPOSITORIES {
            found = repository;
            if pick < repository.1 {
                break;
            }
            pick -= repository.1;
        }
        let superseded =
            self.rng.random_bool(0.12).then(|| at + SignedDuration::from_secs(self.rng.random_range(20..240)));
        self.run_of(found.0, found.2, at, superseded);
        if let Some(again) = superseded {
            self.run_of(found.0, found.2, again, None);
        }
    }

    fn run_of(&mut self, repository: &str, templates: &[Template], at: Timestamp, cancelled: Option<Timestamp>) {
        self.run += 1;
        let mut made: Vec<Option<usize>> = Vec::new();
        for (name, label, seconds, needs) in templates {
            let before = needs.map(|needed| made[needed].map(|index| &self.jobs[index]));
            let (queued_at, after) = match before {
                None => (at, None),
                // It was cancelled, so nothing follows.
                Some(None) => {
                    made.push(None);
                    continue;
                }
                Some(Some(job)) => match job.conclusion.as_deref() {
                    Some("success") => (job.ended_at.unwrap_or(at) + SignedDuration::from_secs(4), Some(job.id)),
                    Some(_) | None => {
                        made.push(None);
                        continue;
                    }
                },
            };
            let runs_for = self.around(*seconds);
            let mut job = self.job(repository, "ci", name, label, queued_at, runs_for);
            job.after = after;
            if let Some(cancelled) = cancelled.filter(|cancelled| job.ended_at.is_some_and(|end| end > *cancelled)) {
                job.started_at = job.started_at.filter(|start| *start < cancelled);
                job.ended_at = Some(cancelled.max(queued_at));
                job.conclusion = Some("cancelled".to_owned());
            } else if self.rng.random_bool(0.04) {
                job.conclusion = Some("failure".to_owned());
            }
            made.push(Some(self.jobs.len()));
            self.jobs.push(job);
        }
    }

    /// A job that ran on one of GitHub's own runners.
    fn job(
        &mut self,
        repository: &str,
        workflow: &str,
        name: &str,
        label: &str,
        queued_at: Timestamp,
        runs_for: SignedDuration,
    ) -> Job {
        let started_at = queued_at + SignedDuration::from_secs(self.rng.random_range(4..25));
        self.last_id += 1;
        Job {
            id: self.last_id,
            run: self.run,
            attempt: 1,
            repository: repository.to_owned(),
            workflow: Some(workflow.to_owned()),
            name: Some(name.to_owned()),
            labels: vec![label.to_owned()],
            queued_at,
            started_at: Some(started_at),
            ended_at: Some(started_at + runs_for),
            conclusion: Some("success".to_owned()),
            after: None,
        }
    }
}

/// The jobs by the time they were queued.
fn finished(mut jobs: Vec<Job>) -> Trace {
    jobs.sort_by_key(|job| (job.queued_at, job.id));
    let header = Header {
        drover_trace: VERSION,
        source: Source::Generated,
        from: at(0, 0),
        until: at(7, 0),
        days: Vec::new(),
        region: Some("us-east-1".to_owned()),
        anonymous: false,
        measured: Measured::default(),
    };
    Trace { header, jobs }
}
