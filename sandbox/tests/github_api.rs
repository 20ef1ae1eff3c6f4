//! The model of GitHub answers in the form of GitHub's own OpenAPI description (see `data/README.md`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use engine::ports::Clock;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use platform::clock::SystemClock;
use sandbox::sandbox::{Driven, Options, Sandbox};
use serde_json::{Value, json};

struct Checked {
    http: reqwest::Client,
    url: String,
    description: Value,
}

impl Checked {
    /// Calls an operation, by its name in the description, and holds its answer against it.
    async fn call(&self, operation: &str, path: &str, bearer: &str, body: Option<Value>, status: u16) -> Value {
        let method = operation.split(' ').next().unwrap().parse().unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(bearer);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let (is, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert_eq!(is, status, "{operation}: {text}");
        let described = self.description["operations"][operation].get(status.to_string()).cloned();
        let described = described.unwrap_or_else(|| panic!("{operation} is not described to answer {status}"));
        if text.is_empty() {
            return Value::Null;
        }
        let answer: Value = serde_json::from_str(&text).unwrap();
        let mut schema = described;
        schema["schemas"] = self.description["schemas"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let wrong: Vec<String> =
            validator.iter_errors(&answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{operation} {status}: {wrong:#?}\n{answer:#}");
        answer
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_has_the_form_that_github_describes() {
    let sandbox = Sandbox::start(Options { driven: Driven::ByHand, ..Options::default() }).await.unwrap();
    let secret = sandbox.world.look(|state| state.secrets["drover/app"].current.clone());
    let secret: Value = serde_json::from_str(&secret).unwrap();
    let now = SystemClock.now().as_second();
    let claims = json!({ "iat": now - 60, "exp": now + 300, "iss": secret["app_id"].to_string() });
    let key = EncodingKey::from_rsa_pem(secret["private_key"].as_str().unwrap().as_bytes()).unwrap();
    let jwt = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap();
    let github = Checked {
        http: reqwest::Client::new(),
        url: sandbox.github_url.clone(),
        description: serde_json::from_str(include_str!("data/github-openapi.json")).unwrap(),
    };

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
        let nobody = json!({ "name": "two", "runner_group_id": 1, "labels": [] });
        github.call(&jit, &path, token, Some(nobody), 422).await;
        let nowhere = json!({ "name": "two", "runner_group_id": 77, "labels": ["drover"] });
        github.call(&jit, &path, token, Some(nowhere), 404).await;
        let list = github.call(&operation("GET", ""), &format!("{runners}?per_page=1"), token, None, 200).await;
        assert_eq!(list["total_count"], 1);
        let one = format!("{runners}/{}", made["runner"]["id"]);
        github.call(&operation("GET", "/{runner_id}"), &one, token, None, 200).await;
        github.call(&operation("DELETE", "/{runner_id}"), &one, token, None, 204).await;
    }

    let job = sandbox.queue_job("octo-org/widgets", &["drover"], Duration::from_secs(1));
    let path = format!("/repos/octo-org/widgets/actions/jobs/{job}");
    let is = github.call("GET /repos/{owner}/{repo}/actions/jobs/{job_id}", &path, token, None, 200).await;
    assert_eq!(is["status"], "queued");
}
