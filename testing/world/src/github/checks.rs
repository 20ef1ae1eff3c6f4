//! Check runs, with which an app shows messages to the author of a commit.

use jiff::Timestamp;

use super::*;

const STATUSES: [&str; 3] = ["queued", "in_progress", "completed"];
const CONCLUSIONS: [&str; 7] =
    ["success", "failure", "neutral", "cancelled", "skipped", "timed_out", "action_required"];

impl GitHub {
    /// `POST /repos/{owner}/{repo}/check-runs`
    pub fn create_check_run(
        &mut self,
        caller: InstallationId,
        owner: &str,
        repo: &str,
        head_sha: &str,
        change: CheckRunChange,
        now: Timestamp,
    ) -> Result<CheckRun, Failure> {
        let reply = self.admit(Caller::Installation(caller), Endpoint::CreateCheckRun, now)?;
        let repository = self.entitled_repository(caller, owner, repo)?;
        if change.name.as_ref().is_none_or(String::is_empty) || head_sha.len() != 40 {
            return Err(Failure::Unprocessable("Invalid request: name and head_sha are needed".to_owned()));
        }
        let current = CheckRunChange::default().changed(change)?;
        let id = CheckRunId(self.fresh_id());
        let run = CheckRun { id, repository, head_sha: head_sha.to_owned(), now: current, created_at: now };
        self.check_runs.insert(id, run.clone());
        reply.with(run)
    }

    /// `PATCH /repos/{owner}/{repo}/check-runs/{id}`
    pub fn update_check_run(
        &mut self,
        caller: InstallationId,
        owner: &str,
        repo: &str,
        id: CheckRunId,
        change: CheckRunChange,
        now: Timestamp,
    ) -> Result<CheckRun, Failure> {
        let reply = self.admit(Caller::Installation(caller), Endpoint::UpdateCheckRun, now)?;
        let repository = self.entitled_repository(caller, owner, repo)?;
        let run = self.check_runs.get_mut(&id).filter(|run| run.repository == repository).ok_or(Failure::NotFound)?;
        run.now = run.now.clone().changed(change)?;
        reply.with(run.clone())
    }

    /// Every check run.
    pub fn check_runs(&self) -> impl Iterator<Item = &CheckRun> {
        self.check_runs.values()
    }
}

impl CheckRunChange {
    fn changed(self, change: CheckRunChange) -> Result<CheckRunChange, Failure> {
        let is_valid =
            |value: &Option<String>, of: &[&str]| value.as_ref().is_none_or(|value| of.contains(&value.as_str()));
        if !is_valid(&change.status, &STATUSES) || !is_valid(&change.conclusion, &CONCLUSIONS) {
            return Err(Failure::Unprocessable("Invalid request: unknown status or conclusion".to_owned()));
        }
        // A conclusion completes the check run, even if the status is missing.
        let status = change.conclusion.as_ref().map(|_| "completed".to_owned()).or(change.status).or(self.status);
        if status.as_deref() == Some("completed") && change.conclusion.is_none() && self.conclusion.is_none() {
            return Err(Failure::Unprocessable("Invalid request: a completed check run needs a conclusion".to_owned()));
        }
        Ok(CheckRunChange {
            name: change.name.or(self.name),
            external_id: change.external_id.or(self.external_id),
            status,
            conclusion: change.conclusion.or(self.conclusion),
            details_url: change.details_url.or(self.details_url),
            output: change.output.or(self.output),
        })
    }
}
