//! From a queued job to a message on the queue.

use std::time::Duration;

use domain::wire::Message;
use jiff::SignedDuration;
use world::github::{self, Delivery};

use crate::swarm::agenda::Due;
use crate::swarm::arrival::ORGANIZATION;
use crate::swarm::faults::Fault;
use crate::swarm::seed::Swarm;
use crate::swarm::shape::{Groups, soon};
use crate::universe::notice;

pub(super) fn as_texts(labels: &[String]) -> Vec<&str> {
    labels.iter().map(String::as_str).collect()
}

impl Swarm<'_> {
    /// A job is queued.
    pub(super) fn arrive(&mut self, index: usize) {
        let arrival = self.shape.arrivals[index].clone();
        let foreign = arrival.repository.0 == ORGANIZATION && self.dice.strikes(Fault::ForeignJob);
        let repository = if foreign { (ORGANIZATION, "elsewhere") } else { arrival.repository };
        let gated = self.dice.strikes(Fault::Gated);
        let job = self.universe.github(|github, now| {
            let repository = github.find_repository(repository.0, repository.1).expect("a repository of this world").id;
            let job = github::QueueJob {
                runs_for: arrival.runs_for.unsigned_abs(),
                ..github::QueueJob::new(repository, &as_texts(&arrival.labels))
            };
            if gated { github.queue_gated_job(job, now) } else { github.queue_job(job, now) }
        });
        if foreign {
            self.truth.foreign.insert(job);
        }
        if self.dice.strikes(Fault::Immortal) {
            self.immortal_job(repository, &arrival.labels);
        }
        if gated {
            let after = SignedDuration::from_secs(60 + self.dice.pick(Fault::Gated, 600) as i64);
            self.truth.gated.insert(job);
            self.plan_in(after, Due::Approve(job));
        }
        self.log_world(|| {
            let how = if gated { " and waits for an approval" } else { "" };
            format!(
                "job {job} of {}/{} is queued{how}, with the labels {:?}",
                repository.0, repository.1, arrival.labels
            )
        });
    }

    pub(super) fn github_happened(&mut self, happening: github::Happening) {
        match happening {
            github::Happening::Deliver(delivery) => self.deliver(delivery),
            github::Happening::Offered(offer) => {
                let after = soon(&mut self.rng);
                if self.dice.strikes(Fault::NotPickedUp) {
                    self.log_world(|| format!("runner {} does not pick up job {}", offer.runner, offer.job));
                } else {
                    self.plan_in(after, Due::PickUp(offer));
                }
            }
            github::Happening::CancelWanted { runner, job } => {
                let after = soon(&mut self.rng);
                self.plan_in(after, Due::Finish(runner, job, github::Conclusion::Cancelled));
            }
            github::Happening::RunnerRemoved { runner } => {
                if let Some(instance) = self.runs_on.remove(&runner) {
                    self.runner_ended(&instance);
                }
            }
        }
    }

    /// A job that GitHub calls queued for ever. Half of them send no webhook, and only a search can find them.
    fn immortal_job(&mut self, repository: (&'static str, &'static str), labels: &[String]) {
        const HOURS: [u64; 6] = [1, 23, 25, 20 * 24, 36 * 24, 98 * 24];
        let hours = HOURS[self.dice.pick(Fault::Immortal, HOURS.len())];
        let kinds = [github::Immortal::RunUnderWay, github::Immortal::RunOver];
        let kind = kinds[self.dice.pick(Fault::Immortal, kinds.len())];
        let webhooks = [github::Webhooks::Sent, github::Webhooks::NeverAttempted];
        let webhooks = webhooks[self.dice.pick(Fault::Immortal, webhooks.len())];
        let job = self.universe.github(|github, now| {
            let repository = github.find_repository(repository.0, repository.1).expect("a repository of this world").id;
            let job = github::QueueJob { webhooks, ..github::QueueJob::new(repository, &as_texts(labels)) };
            github.queue_immortal_job(job, kind, Duration::from_secs(hours * 3600), now)
        });
        self.log_world(|| {
            let name = repository.1;
            format!("GitHub calls job {job} of {name} queued for ever: {hours} h old, {kind:?}, webhooks {webhooks:?}")
        });
    }

    fn deliver(&mut self, delivery: Box<Delivery>) {
        if self.dice.strikes(Fault::WebhookNeverSent) {
            self.log_world(|| format!("GitHub never sends {} of job {}", delivery.event.action, delivery.event.job.id));
            return;
        }
        if self.dice.strikes(Fault::WebhookFailed) {
            self.log_world(|| format!("ingest fails for {} of job {}", delivery.event.action, delivery.event.job.id));
            self.universe.github(|github, now| {
                github.record_answer(delivery.id, github::Answer::Status(503), Duration::from_millis(20), now);
            });
            return;
        }
        if self.dice.strikes(Fault::WebhookTwice) {
            let after = soon(&mut self.rng);
            self.plan_in(after, Due::Webhook(delivery.clone()));
        }
        if self.dice.strikes(Fault::WebhookLate) {
            let after = SignedDuration::from_millis(self.dice.pick(Fault::WebhookLate, 600_000) as i64);
            self.plan_in(after, Due::Webhook(delivery));
        } else {
            self.ingest(&delivery);
        }
    }

    pub(super) fn ingest(&mut self, delivery: &Delivery) {
        self.universe.state().received(&delivery.event, self.now);
        let mut notice = notice(&delivery.event, &delivery.guid, self.now);
        notice.job = self.universe.state().with_forged_id(notice.job);
        if self.dice.lasts(Fault::GithubClock) {
            let skew = SignedDuration::from_secs_f64(240.0 * self.dice.intensity(Fault::GithubClock) - 120.0);
            notice.job.created_at += skew;
            notice.job.started_at = notice.job.started_at.map(|at| at + skew);
            notice.job.completed_at = notice.job.completed_at.map(|at| at + skew);
        }
        self.universe.github(|github, now| {
            github.record_answer(delivery.id, github::Answer::Status(202), Duration::from_millis(20), now);
        });
        self.send(&Message::WorkflowJob(Box::new(notice)), SignedDuration::ZERO);
    }

    pub(super) fn send(&mut self, message: &Message, after: SignedDuration) {
        self.send_body(&message.to_body(), &message.group(), after);
    }

    pub(super) fn send_body(&mut self, body: &str, group: &str, after: SignedDuration) {
        let late = if self.dice.strikes(Fault::MessageLate) {
            SignedDuration::from_millis(self.dice.pick(Fault::MessageLate, 300_000) as i64)
        } else {
            SignedDuration::ZERO
        };
        let times = if self.dice.strikes(Fault::MessageTwice) { 2 } else { 1 };
        let delay = (after + late).unsigned_abs().min(Duration::from_secs(900));
        for _ in 0..times {
            let group = (self.shape.groups == Groups::Stated).then_some(group);
            let sent = self.sqs.send_in_group("main", body, group, delay, self.now);
            sent.expect("a message of a valid size");
        }
        self.plan(self.now + delay, Due::Receive);
    }
}
