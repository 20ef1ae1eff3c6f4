//! Compares the answers of GitHub's model with GitHub's OpenAPI description (see `data/README.md`).

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::time::Duration;

use axum::http::HeaderMap;
use engine::ports::Clock;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use platform::clock::SystemClock;
use sandbox::pace::PATIENCE;
use sandbox::sandbox::{Driven, FOREIGN_REPOSITORY, Options, Sandbox};
use sandbox::state::State;
use serde_json::{Value, json};
use world::github::{Answer, DEFAULT_GROUP, Delivery, Group, UserAccess};

struct Checked {
    http: reqwest::Client,
    url: String,
    description: Value,
}

impl Checked {
    fn new(sandbox: &Sandbox) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let description = serde_json::from_str(include_str!("data/github-openapi.json")).unwrap();
        Self { http, url: sandbox.github_url.clone(), description }
    }

    /// Calls an operation, by its name in the description, and validates the answer.
    async fn call(&self, operation: &str, path: &str, bearer: &str, body: Option<Value>, status: u16) -> Value {
        self.call_with(operation, path, bearer, body, status, &[]).await.0
    }

    /// The same with further headers. Also returns the headers of the answer.
    async fn call_with(
        &self,
        operation: &str,
        path: &str,
        bearer: &str,
        body: Option<Value>,
        status: u16,
        headers: &[(&str, &str)],
    ) -> (Value, HeaderMap) {
        let method = operation.split(' ').next().unwrap().parse().unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(bearer);
        if let Some(body) = body {
            request = request.json(&body);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let (is, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.unwrap();
        assert_eq!(is, status, "{operation}: {text}");
        if status == 304 {
            // 304 has no body, and the description does not mention it.
            assert_eq!(text, "");
            return (Value::Null, headers);
        }
        let described = self.description["operations"][operation].get(status.to_string()).cloned();
        let mut described = described.unwrap_or_else(|| panic!("{operation} has no documented answer {status}"));
        if operation == "GET /app/installations" {
            // The description requires each account to be a user *and* an enterprise. The schema of one installation is correct.
            described = json!({ "type": "array", "items": { "$ref": "#/schemas/installation" } });
        }
        if text.is_empty() {
            return (Value::Null, headers);
        }
        let answer: Value = serde_json::from_str(&text).unwrap();
        let mut schema = described;
        schema["schemas"] = self.description["schemas"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let wrong: Vec<String> =
            validator.iter_errors(&answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{operation} {status}: {wrong:#?}\n{answer:#}");
        (answer, headers)
    }
}

/// A JWT of the app.
fn jwt(sandbox: &Sandbox) -> String {
    let secret = sandbox.world.look(|state| state.secrets["sandbox/app"].current.clone());
    let secret: Value = serde_json::from_str(&secret).unwrap();
    let now = SystemClock.now().as_second();
    let claims = json!({ "iat": now - 60, "exp": now + 300, "iss": secret["app_id"].to_string() });
    let key = EncodingKey::from_rsa_pem(secret["private_key"].as_str().unwrap().as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_matches_githubs_description() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    let (github, jwt) = (Checked::new(&sandbox), jwt(&sandbox));

    let found = github.call("GET /orgs/{org}/installation", "/orgs/octo-org/installation", &jwt, None, 200).await;
    let of_repository = "GET /repos/{owner}/{repo}/installation";
    github.call(of_repository, "/repos/octo-org/widgets/installation", &jwt, None, 200).await;
    github.call(of_repository, "/repos/octo-org/nowhere/installation", &jwt, None, 404).await;
    let path = format!("/app/installations/{}/access_tokens", found["id"]);
    let tokens = "POST /app/installations/{installation_id}/access_tokens";
    let token = github.call(tokens, &path, &jwt, None, 201).await;
    github.call(tokens, &path, "forged", None, 401).await;
    github.call(tokens, "/app/installations/1/access_tokens", &jwt, None, 404).await;
    let token = token["token"].as_str().unwrap();

    for (scope, name) in [("orgs/octo-org", "orgs/{org}"), ("repos/octo-org/widgets", "repos/{owner}/{repo}")] {
        let runners = format!("/{scope}/actions/runners");
        let operation = |method: &str, rest: &str| format!("{method} /{name}/actions/runners{rest}");
        let jit = operation("POST", "/generate-jitconfig");
        let path = format!("{runners}/generate-jitconfig");
        let wanted = json!({ "name": "one", "runner_group_id": 1, "labels": ["drover"] });
        let made = github.call(&jit, &path, token, Some(wanted.clone()), 201).await;
        github.call(&jit, &path, token, Some(wanted), 409).await;
        let unlabelled = json!({ "name": "two", "runner_group_id": 1, "labels": [] });
        github.call(&jit, &path, token, Some(unlabelled), 422).await;
        let unknown_group = json!({ "name": "two", "runner_group_id": 77, "labels": ["drover"] });
        github.call(&jit, &path, token, Some(unknown_group), 404).await;
        let list = github.call(&operation("GET", ""), &format!("{runners}?per_page=1"), token, None, 200).await;
        assert_eq!(list["total_count"], 1);
        let one = format!("{runners}/{}", made["runner"]["id"]);
        github.call(&operation("GET", "/{runner_id}"), &one, token, None, 200).await;
        github.call(&operation("DELETE", "/{runner_id}"), &one, token, None, 204).await;
    }

    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1));
    let repository = "/repos/octo-org/widgets";
    let path = format!("{repository}/actions/jobs/{job}");
    let is = github.call("GET /repos/{owner}/{repo}/actions/jobs/{job_id}", &path, token, None, 200).await;
    assert_eq!(is["status"], "queued");
    let list_runs = "GET /repos/{owner}/{repo}/actions/runs";
    let runs = github.call(list_runs, &format!("{repository}/actions/runs?status=queued"), token, None, 200).await;
    assert_eq!((&runs["total_count"], &runs["workflow_runs"][0]["id"]), (&json!(1), &is["run_id"]));
    let none = format!("{repository}/actions/runs?status=in_progress");
    assert_eq!(github.call(list_runs, &none, token, None, 200).await["total_count"], 0);
    let run_jobs = "GET /repos/{owner}/{repo}/actions/runs/{run_id}/jobs";
    let jobs = format!("{repository}/actions/runs/{}/jobs?filter=latest", is["run_id"]);
    assert_eq!(github.call(run_jobs, &jobs, token, None, 200).await["jobs"][0]["id"], job.0);
    let rerun = "POST /repos/{owner}/{repo}/actions/jobs/{job_id}/rerun";
    github.call(rerun, &format!("{path}/rerun"), token, None, 403).await;
    sandbox.world.act(|state, now| state.github.cancel(job, now));
    github.call(rerun, &format!("{path}/rerun"), token, None, 201).await;
    let again = github.call(run_jobs, &jobs, token, None, 200).await;
    assert_eq!((&again["total_count"], &again["jobs"][0]["run_attempt"]), (&json!(1), &json!(2)));

    let create = "POST /repos/{owner}/{repo}/check-runs";
    let wanted = json!({
        "name": "Drover", "head_sha": is["head_sha"], "external_id": job.to_string(), "status": "completed",
        "conclusion": "neutral", "output": { "title": "waiting for capacity", "summary": "EC2 has no such machine" },
    });
    let made = github.call(create, &format!("{repository}/check-runs"), token, Some(wanted), 201).await;
    let change = "PATCH /repos/{owner}/{repo}/check-runs/{check_run_id}";
    let one = format!("{repository}/check-runs/{}", made["id"]);
    let changed = github.call(change, &one, token, Some(json!({ "conclusion": "success" })), 200).await;
    assert_eq!((&changed["conclusion"], &changed["output"]), (&json!("success"), &made["output"]));

    let groups = "GET /orgs/{org}/actions/runner-groups";
    let seen = github.call(groups, "/orgs/octo-org/actions/runner-groups", token, None, 200).await;
    assert_eq!((&seen["total_count"], &seen["runner_groups"][0]["default"]), (&json!(1), &json!(true)));
    sandbox.open_groups();
    let foreign = format!("/orgs/octo-org/actions/runner-groups?visible_to_repository={FOREIGN_REPOSITORY}");
    assert_eq!(github.call(groups, &foreign, token, None, 200).await["total_count"], 1);
    sandbox.world.act(|state, _| {
        let owner = state.github.find_owner("octo-org").unwrap().id;
        let widgets = state.github.find_repository("octo-org", "widgets").unwrap().id;
        let restricted = Group {
            id: DEFAULT_GROUP,
            name: "Default".to_owned(),
            repositories: Some([widgets].into()),
            allows_public: false,
        };
        state.github.set_group(owner, restricted);
    });
    assert_eq!(github.call(groups, &foreign, token, None, 200).await["total_count"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_a_users_token_match_githubs_description() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    let github = Checked::new(&sandbox);
    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1));
    let (token, run) = sandbox.world.act(|state, _| {
        let owner = state.github.find_owner("octo-org").unwrap().id;
        let access = UserAccess { accounts: [owner].into(), actions: true };
        (state.github.add_user_token(access), state.github.job(job).unwrap().run)
    });
    let repositories = github.call("GET /orgs/{org}/repos", "/orgs/octo-org/repos", &token, None, 200).await;
    let names: Vec<&Value> = repositories.as_array().unwrap().iter().map(|it| &it["full_name"]).collect();
    assert!(names.contains(&&json!("octo-org/widgets")), "{names:?}");
    let list = "GET /repos/{owner}/{repo}/actions/runs";
    let runs = |created: &str| format!("/repos/octo-org/widgets/actions/runs?created={created}");
    let all = runs("2026-01-01T00:00:00Z..2100-01-01T00:00:00Z");
    assert_eq!(github.call(list, &all, &token, None, 200).await["workflow_runs"][0]["id"], run.0);
    let none = runs("2100-01-01T00:00:00Z..2100-01-02T00:00:00Z");
    assert_eq!(github.call(list, &none, &token, None, 200).await["total_count"], 0);
    let jobs = format!("/repos/octo-org/widgets/actions/runs/{run}/jobs?filter=all");
    let of_run = "GET /repos/{owner}/{repo}/actions/runs/{run_id}/jobs";
    assert_eq!(github.call(of_run, &jobs, &token, None, 200).await["jobs"][0]["id"], job.0);

    let status = async |path: &str| {
        let answer = github.http.get(format!("{}{path}", github.url)).bearer_auth(&token).send().await.unwrap();
        answer.status().as_u16()
    };
    let job = format!("/repos/octo-org/widgets/actions/jobs/{job}");
    assert_eq!((status("/orgs/nobody/repos").await, status(&job).await), (404, 403));
    sandbox.world.act(|state, _| state.github.set_user_access(&token, Some(UserAccess::default())));
    assert_eq!((status(&jobs).await, status("/orgs/octo-org/repos").await), (404, 200), "the repository is private");
    sandbox.world.act(|state, _| state.github.set_user_access(&token, None));
    assert_eq!(status(&jobs).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_about_the_app_and_its_hook_match_githubs_description() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    let (github, jwt) = (Checked::new(&sandbox), jwt(&sandbox));

    let app = github.call("GET /app", "/app", &jwt, None, 200).await;
    assert_eq!(app["installations_count"], 1);
    let list = github.call("GET /app/installations", "/app/installations", &jwt, None, 200).await;
    assert!(list[0]["suspended_at"].is_null());
    let owner = sandbox.world.act(|state, now| {
        let owner = state.github.find_owner("octo-org").unwrap().id;
        state.github.suspend(owner, Some(now));
        owner
    });
    let list = github.call("GET /app/installations", "/app/installations", &jwt, None, 200).await;
    assert!(list[0]["suspended_at"].is_string());
    let tokens = "POST /app/installations/{installation_id}/access_tokens";
    let path = format!("/app/installations/{}/access_tokens", list[0]["id"]);
    github.call(tokens, &path, &jwt, None, 403).await;
    sandbox.world.act(|state, _| state.github.suspend(owner, None));

    let config = github.call("GET /app/hook/config", "/app/hook/config", &jwt, None, 200).await;
    assert_eq!((&config["url"], &config["secret"]), (&json!(sandbox.webhooks.url), &json!("********")));
    let changed = json!({ "url": sandbox.webhooks.url, "secret": "another" });
    github.call("PATCH /app/hook/config", "/app/hook/config", &jwt, Some(changed), 200).await;
    sandbox.world.act(|state, now| state.github.add_manifest_code("c0de", now));
    let convert = "POST /app-manifests/{code}/conversions";
    let made = github.call(convert, "/app-manifests/c0de/conversions", "", None, 201).await;
    assert_eq!((&made["id"], &made["webhook_secret"]), (&app["id"], &json!("another")));
    github.call(convert, "/app-manifests/c0de/conversions", "", None, 404).await;

    // Three deliveries are signed with the new secret, which ingest does not have. Each is refused.
    for _ in 0..3 {
        sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1));
    }
    let refused = |state: &State| {
        let mut all = state.github.deliveries();
        all.all(|it| it.attempted.as_ref().is_some_and(|it| it.answer == Answer::Status(401))).then_some(())
    };
    sandbox.world.until("three refused deliveries", PATIENCE, refused).await.unwrap();
    let operation = "GET /app/hook/deliveries";
    let mut next = Some("/app/hook/deliveries?per_page=2".to_owned());
    let mut pages = Vec::new();
    while let Some(path) = next.take() {
        let (page, headers) = github.call_with(operation, &path, &jwt, None, 200, &[]).await;
        pages.push(page.as_array().unwrap().clone());
        let link = headers.get("link").map(|link| link.to_str().unwrap().to_owned());
        next = link.map(|link| {
            let address = link.strip_prefix('<').and_then(|link| link.split_once(">; rel=\"next\"")).unwrap().0;
            address.strip_prefix(&github.url).unwrap().to_owned()
        });
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    assert!(pages.concat().iter().all(|delivery| delivery["status_code"] == 401));
    let again = format!("/app/hook/deliveries/{}/attempts", pages[1][0]["id"]);
    github.call("POST /app/hook/deliveries/{delivery_id}/attempts", &again, &jwt, None, 202).await;
    let redelivered = |state: &State| {
        let same = |it: &&Delivery| it.guid == pages[1][0]["guid"].as_str().unwrap();
        (state.github.deliveries().filter(same).filter(|it| it.attempted.is_some()).count() == 2).then_some(())
    };
    sandbox.world.until("the redelivery", PATIENCE, redelivered).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_answer_is_free_and_a_renamed_repository_redirects() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    let (github, jwt) = (Checked::new(&sandbox), jwt(&sandbox));
    let found = github.call("GET /orgs/{org}/installation", "/orgs/octo-org/installation", &jwt, None, 200).await;
    let path = format!("/app/installations/{}/access_tokens", found["id"]);
    let tokens = "POST /app/installations/{installation_id}/access_tokens";
    let token = github.call(tokens, &path, &jwt, None, 201).await["token"].as_str().unwrap().to_owned();

    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1));
    let operation = "GET /repos/{owner}/{repo}/actions/jobs/{job_id}";
    let path = format!("/repos/octo-org/widgets/actions/jobs/{job}");
    let remaining = |headers: &HeaderMap| headers["x-ratelimit-remaining"].to_str().unwrap().parse::<u64>().unwrap();
    let (_, first) = github.call_with(operation, &path, &token, None, 200, &[]).await;
    let tag = first["etag"].to_str().unwrap().to_owned();
    let (nothing, second) = github.call_with(operation, &path, &token, None, 304, &[("if-none-match", &tag)]).await;
    assert_eq!((nothing, remaining(&second)), (Value::Null, remaining(&first)), "a 304 is free");
    sandbox.world.act(|state, now| state.github.cancel(job, now));
    let (is, third) = github.call_with(operation, &path, &token, None, 200, &[("if-none-match", &tag)]).await;
    assert_eq!((&is["status"], remaining(&third)), (&json!("completed"), remaining(&first) - 1));

    sandbox.world.act(|state, _| {
        let widgets = state.github.find_repository("octo-org", "widgets").unwrap().id;
        state.github.rename_repository(widgets, "gadgets");
    });
    let (_, moved) = github
        .call_with(
            "GET /repos/{owner}/{repo}/installation",
            "/repos/octo-org/widgets/installation",
            &jwt,
            None,
            301,
            &[],
        )
        .await;
    assert!(moved["location"].to_str().unwrap().contains("/repositories/"));
    let there = moved["location"].to_str().unwrap().strip_prefix(&github.url).unwrap().to_owned();
    github.call("GET /repos/{owner}/{repo}/installation", &there, &jwt, None, 200).await;
    let rerun = github.http.post(format!("{}{path}/rerun", github.url)).bearer_auth(&token).send().await.unwrap();
    assert_eq!(rerun.status(), 307);
    github.call(operation, &path.replace("widgets", "gadgets"), &token, None, 200).await;
}
