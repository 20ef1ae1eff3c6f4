//! The bodies of answers, in the form of GitHub's OpenAPI description.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use world::github::{
    App, CheckRun, DEFAULT_GROUP, Delivery, GitHub, Group, HookConfig, Job, Malformed, Owner, OwnerId, OwnerKind,
    Repository, Run, Runner, Visibility,
};

fn account_json(owner: &Owner) -> Value {
    let login = &owner.login;
    let api = format!("https://api.github.com/users/{login}");
    json!({
        "login": login, "id": owner.id.0, "node_id": format!("node-{}", owner.id),
        "avatar_url": format!("https://avatars.githubusercontent.com/u/{}", owner.id), "gravatar_id": "",
        "url": api, "html_url": format!("https://github.com/{login}"),
        "followers_url": format!("{api}/followers"), "following_url": format!("{api}/following{{/other_user}}"),
        "gists_url": format!("{api}/gists{{/gist_id}}"), "starred_url": format!("{api}/starred{{/owner}}{{/repo}}"),
        "subscriptions_url": format!("{api}/subscriptions"), "organizations_url": format!("{api}/orgs"),
        "repos_url": format!("{api}/repos"), "events_url": format!("{api}/events{{/privacy}}"),
        "received_events_url": format!("{api}/received_events"), "site_admin": false,
        "type": kind(owner),
    })
}

fn kind(owner: &Owner) -> &'static str {
    match owner.kind {
        OwnerKind::Organization => "Organization",
        OwnerKind::User => "User",
    }
}

pub(super) fn installation_json(github: &GitHub, owner: &Owner) -> Value {
    let id = owner.installation.map_or(0, |installation| installation.0);
    json!({
        "id": id, "account": account_json(owner),
        "repository_selection": if owner.has_selected { "selected" } else { "all" },
        "access_tokens_url": format!("https://api.github.com/app/installations/{id}/access_tokens"),
        "repositories_url": "https://api.github.com/installation/repositories",
        "html_url": format!("https://github.com/organizations/{}/settings/installations/{id}", owner.login),
        "app_id": github.app().id, "app_slug": github.app().slug,
        "target_id": owner.id.0, "target_type": kind(owner),
        "permissions": owner.granted, "events": github.app().events, "created_at": owner.since, "updated_at": owner.since,
        "single_file_name": null, "suspended_by": owner.suspended_at.map(|_| account_json(owner)),
        "suspended_at": owner.suspended_at,
    })
}

pub(super) fn app_json(app: &App) -> Value {
    let maker = Owner {
        id: OwnerId(1),
        login: "drover-makers".to_owned(),
        kind: OwnerKind::Organization,
        installation: None,
        suspended_at: None,
        has_selected: false,
        since: app.created_at,
        groups: Vec::new(),
        granted: BTreeMap::new(),
    };
    json!({
        "id": app.id, "slug": app.slug, "node_id": format!("node-{}", app.id), "owner": account_json(&maker),
        "name": app.name, "description": null, "external_url": "https://example.invalid/",
        "html_url": format!("https://github.com/apps/{}", app.slug), "created_at": app.created_at,
        "updated_at": app.created_at, "permissions": app.permissions, "events": app.events,
    })
}

pub(super) fn hook_json(hook: &HookConfig) -> Value {
    json!({
        "url": hook.url, "content_type": hook.content_type, "insecure_ssl": "0",
        "secret": hook.secret.as_ref().map_or("", |_| "********"),
    })
}

pub(super) fn delivery_json(github: &GitHub, delivery: &Delivery) -> Value {
    let attempted = delivery.attempted.as_ref();
    let (status, status_code) = attempted.map_or(("pending", 0), |attempted| attempted.answer.shown());
    let guid = (!github.faults.malformed_deliveries.contains(&delivery.id)).then_some(&delivery.guid);
    json!({
        "id": delivery.id.0, "guid": guid, "delivered_at": attempted.map(|attempted| attempted.at),
        "redelivery": delivery.redelivery, "duration": attempted.map(|attempted| attempted.took.as_secs_f64()),
        "status": status, "status_code": status_code, "event": "workflow_job", "action": delivery.event.action,
        "installation_id": delivery.event.owner.installation.map(|installation| installation.0),
        "repository_id": delivery.event.repository.id.0,
    })
}

pub(super) fn group_json(group: &Group, org: &str) -> Value {
    let base = format!("https://api.github.com/orgs/{org}/actions/runner-groups/{}", group.id);
    let mut body = json!({
        "id": group.id.0, "name": group.name, "default": group.id == DEFAULT_GROUP,
        "visibility": if group.repositories.is_some() { "selected" } else { "all" },
        "runners_url": format!("{base}/runners"), "hosted_runners_url": format!("{base}/hosted-runners"),
        "inherited": false, "allows_public_repositories": group.allows_public, "restricted_to_workflows": false,
        "selected_workflows": [], "workflow_restrictions_read_only": false,
    });
    if group.repositories.is_some() {
        body["selected_repositories_url"] = json!(format!("{base}/repositories"));
    }
    body
}

pub(super) fn repository_json(github: &GitHub, repository: &Repository) -> Value {
    let (owner, name) = (&repository.owner_login, &repository.name);
    let base = format!("https://api.github.com/repos/{owner}/{name}");
    let mut body = json!({
        "id": repository.id.0, "node_id": format!("node-{}", repository.id), "name": name,
        "full_name": format!("{owner}/{name}"), "private": repository.visibility == Visibility::Private,
        "owner": github.owner(repository.owner).map(account_json), "description": null, "fork": false, "url": base,
        "html_url": format!("https://github.com/{owner}/{name}"), "created_at": repository.created_at,
    });
    for what in [
        "archive",
        "assignees",
        "blobs",
        "branches",
        "collaborators",
        "comments",
        "commits",
        "compare",
        "contents",
        "contributors",
        "deployments",
        "downloads",
        "events",
        "forks",
        "git_commits",
        "git_refs",
        "git_tags",
        "hooks",
        "issue_comment",
        "issue_events",
        "issues",
        "keys",
        "labels",
        "languages",
        "merges",
        "milestones",
        "notifications",
        "pulls",
        "releases",
        "stargazers",
        "statuses",
        "subscribers",
        "subscription",
        "tags",
        "teams",
        "trees",
    ] {
        body[format!("{what}_url")] = json!(format!("{base}/{what}"));
    }
    body
}

pub(super) fn run_json(github: &GitHub, run: &Run) -> Value {
    let repository = github.repository(run.repository).map(|repository| repository_json(github, repository));
    let name = repository.as_ref().and_then(|it| it["full_name"].as_str()).unwrap_or_default().to_owned();
    let (status, conclusion) = github.run_status(run);
    let base = format!("https://api.github.com/repos/{name}/actions");
    let own = format!("{base}/runs/{}", run.id);
    json!({
        "id": run.id.0, "name": "CI", "node_id": format!("node-{}", run.id), "head_branch": "main",
        "head_sha": run.head_sha, "path": ".github/workflows/ci.yml", "display_title": "CI", "run_number": run.number,
        "run_attempt": run.attempt, "event": "push", "status": status,
        "conclusion": conclusion.map(|conclusion| conclusion.as_str()), "workflow_id": 1, "url": own,
        "html_url": format!("https://github.com/{name}/actions/runs/{}", run.id), "pull_requests": [],
        "created_at": run.created_at, "updated_at": run.created_at, "run_started_at": run.created_at,
        "jobs_url": format!("{own}/jobs"), "logs_url": format!("{own}/logs"),
        "check_suite_url": format!("https://api.github.com/repos/{name}/check-suites/{}", run.id),
        "artifacts_url": format!("{own}/artifacts"), "cancel_url": format!("{own}/cancel"),
        "rerun_url": format!("{own}/rerun"), "workflow_url": format!("{base}/workflows/1"), "head_commit": null,
        "repository": repository, "head_repository": repository,
    })
}

pub(super) fn check_run_json(run: &CheckRun, app: &App, owner: &str, repo: &str) -> Value {
    let url = format!("https://api.github.com/repos/{owner}/{repo}/check-runs/{}", run.id);
    let values = &run.now;
    json!({
        "id": run.id.0, "node_id": format!("node-{}", run.id), "head_sha": run.head_sha, "name": values.name,
        "external_id": values.external_id, "url": url, "details_url": values.details_url,
        "html_url": format!("https://github.com/{owner}/{repo}/runs/{}", run.id),
        "status": values.status.as_deref().unwrap_or("queued"), "conclusion": values.conclusion,
        "started_at": run.created_at, "completed_at": values.conclusion.as_ref().map(|_| run.created_at),
        "output": {
            "title": values.output.as_ref().map(|output| &output.title),
            "summary": values.output.as_ref().map(|output| &output.summary),
            "text": null, "annotations_count": 0, "annotations_url": format!("{url}/annotations"),
        },
        "check_suite": { "id": 1 }, "app": app_json(app), "pull_requests": [],
    })
}

pub(super) fn runner_json(runner: &Runner) -> Value {
    let labels: Vec<Value> = runner
        .labels
        .iter()
        .enumerate()
        .map(|(id, name)| json!({ "id": id, "name": name, "type": "custom" }))
        .collect();
    json!({
        "id": runner.id.0, "runner_group_id": runner.group.0, "name": runner.name, "os": "unknown",
        "status": if runner.online { "online" } else { "offline" }, "busy": runner.job.is_some(),
        "ephemeral": runner.ephemeral, "labels": labels,
    })
}

/// A runner as a list shows it.
pub(super) fn listed_runner_json(github: &GitHub, runner: &Runner) -> Value {
    let mut body = runner_json(runner);
    let nulls: &[&str] = match github.faults.malformed_runners.get(&runner.id) {
        Some(Malformed::State) => &["name", "status", "busy"],
        Some(Malformed::All) => &["id", "name", "status", "busy"],
        None => &[],
    };
    nulls.iter().for_each(|name| body[*name] = Value::Null);
    body
}

pub(super) fn job_json(github: &GitHub, job: &Job, owner: &str, repo: &str) -> Value {
    let mut body = well_formed_job_json(github, job, owner, repo);
    if github.faults.malformed_jobs.contains(&job.id) {
        ["started_at", "run_id", "status"].into_iter().for_each(|name| body[name] = Value::Null);
    }
    body
}

fn well_formed_job_json(github: &GitHub, job: &Job, owner: &str, repo: &str) -> Value {
    let base = format!("https://api.github.com/repos/{owner}/{repo}/actions");
    let runner = job.state.runner();
    let head_sha = github.run(job.run).map(|run| run.head_sha.clone()).unwrap_or_default();
    json!({
        "id": job.id.0, "run_id": job.run.0, "run_url": format!("{base}/runs/{}", job.run), "run_attempt": job.attempt,
        "node_id": format!("node-{}", job.id), "head_sha": head_sha, "url": format!("{base}/jobs/{}", job.id),
        "html_url": format!("https://github.com/{owner}/{repo}/actions/runs/{}/job/{}", job.run, job.id),
        "status": job.state.status(), "conclusion": job.state.conclusion().map(|how| how.as_str()),
        "created_at": job.created_at, "started_at": job.started_at.unwrap_or(job.created_at),
        "completed_at": job.completed_at, "name": job.name, "steps": [],
        "check_run_url": format!("https://api.github.com/repos/{owner}/{repo}/check-runs/{}", job.id),
        "labels": job.labels, "runner_id": runner.map(|it| it.id.0), "runner_name": runner.map(|it| &it.name),
        "runner_group_id": runner.map(|it| it.group.0), "runner_group_name": runner.map(|it| &it.group_name),
        "workflow_name": "CI", "head_branch": "main",
    })
}
