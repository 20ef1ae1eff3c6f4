//! Webhooks: their deliveries, redeliveries and the list of deliveries.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;

use super::*;

impl GitHub {
    /// Whether the app is installed where it learns about the repository's jobs.
    pub fn sends_jobs_of(&self, repository: &Repository) -> bool {
        let has_app = |owner: &Owner| owner.installation.is_some() && owner.suspended_at.is_none();
        let subscribes = self.app.events.iter().any(|event| event == "workflow_job");
        self.owners.get(&repository.owner).is_some_and(has_app) && !self.excluded.contains(&repository.id) && subscribes
    }

    /// Plans the webhook for a change of a job, unless the account, the job or a fault prevents it.
    pub(super) fn announce(&mut self, id: JobId, action: &'static str, now: Timestamp) {
        let Some(job) = self.jobs.get(&id).cloned() else {
            return;
        };
        let (Some(run), Some(repository)) = (self.runs.get(&job.run), self.repositories.get(&job.repository)) else {
            return;
        };
        let Some(owner) = self.owners.get(&repository.owner) else {
            return;
        };
        if !self.sends_jobs_of(repository) || job.webhooks == Webhooks::NeverAttempted {
            return;
        }
        let event = Arc::new(JobEvent {
            action,
            at: now,
            head_sha: run.head_sha.clone(),
            repository: repository.clone(),
            owner: owner.clone(),
            job,
        });
        if self.rng.random::<f64>() < self.faults.never_attempted {
            return;
        }
        let secret = self.fresh_secret();
        let guid =
            format!("{}-{}-{}-{}-{}", &secret[..8], &secret[8..12], &secret[12..16], &secret[16..20], &secret[20..]);
        let (soonest, latest) = self.config.webhook_delay;
        let delay = soonest + latest.saturating_sub(soonest).mul_f64(self.rng.random());
        let id = DeliveryId(self.fresh_id());
        self.plan_delivery(Delivery { id, guid, redelivery: false, event, attempted: None }, now + delay);
    }

    fn plan_delivery(&mut self, delivery: Delivery, at: Timestamp) {
        self.agenda.plan(at, Due::Deliver(delivery.id));
        self.deliveries.insert(delivery.id, delivery);
    }

    pub(super) fn send(&mut self, id: DeliveryId) -> Option<Happening> {
        self.deliveries.get(&id).map(|delivery| Happening::Deliver(Box::new(delivery.clone())))
    }

    /// Records the outcome of a delivery. Failed deliveries are not repeated automatically.
    pub fn record_answer(&mut self, id: DeliveryId, answer: Answer, took: Duration, now: Timestamp) {
        let kept = self.config.deliveries_kept;
        // Ids grow, so the oldest come first.
        let is_old = |delivery: &Delivery| delivery.attempted.as_ref().is_some_and(|it| it.at + kept <= now);
        while self.deliveries.first_entry().is_some_and(|first| is_old(first.get())) {
            self.deliveries.pop_first();
        }
        if let Some(delivery) = self.deliveries.get_mut(&id) {
            delivery.attempted = Some(Attempted { at: now, took, answer });
        }
    }

    /// `GET /app/hook/deliveries`: attempted deliveries, newest first. `cursor` comes from the previous page.
    pub fn list_deliveries(
        &mut self,
        per_page: usize,
        cursor: Option<&str>,
        now: Timestamp,
    ) -> Result<(Vec<Delivery>, Option<String>), Failure> {
        let reply = self.admit(Caller::App, Endpoint::ListDeliveries, now)?;
        let before = match cursor {
            None => u64::MAX,
            Some(cursor) => {
                let number = cursor.strip_prefix("v1_").and_then(|number| number.parse().ok());
                number.ok_or_else(|| Failure::Unprocessable("Invalid cursor".to_owned()))?
            }
        };
        let kept = self.config.deliveries_kept;
        let mut listed = self
            .deliveries
            .range(..DeliveryId(before))
            .rev()
            .map(|(_, delivery)| delivery)
            .filter(|delivery| delivery.attempted.as_ref().is_some_and(|attempted| attempted.at + kept > now))
            .peekable();
        let page: Vec<Delivery> = listed.by_ref().take(per_page.clamp(1, 100)).cloned().collect();
        let more = listed.peek().is_some();
        let next = page.last().filter(|_| more).map(|last| format!("v1_{}", last.id));
        reply.with((page, next))
    }

    /// `POST /app/hook/deliveries/{id}/attempts`: delivers the same event again, with the same guid.
    pub fn redeliver(&mut self, id: DeliveryId, now: Timestamp) -> Result<(), Failure> {
        let reply = self.admit(Caller::App, Endpoint::Redeliver, now)?;
        let kept = self.config.deliveries_kept;
        let old = self
            .deliveries
            .get(&id)
            .filter(|old| old.attempted.as_ref().is_some_and(|attempted| attempted.at + kept > now));
        let (guid, event) = old.map(|old| (old.guid.clone(), Arc::clone(&old.event))).ok_or(Failure::NotFound)?;
        let id = DeliveryId(self.fresh_id());
        let again = Delivery { id, guid, redelivery: true, event, attempted: None };
        self.plan_delivery(again, now + self.config.webhook_delay.0);
        reply.with(())
    }

    /// Every delivery that the model keeps, including pending deliveries.
    pub fn deliveries(&self) -> impl Iterator<Item = &Delivery> {
        self.deliveries.values()
    }
}
