//! What GitHub's answers mean: results, errors and rate limits.

use engine::ports::{GitHubAnswer, GitHubError, Source};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::aws::causes;

/// GitHub: "wait for at least one minute" if a rate limit names no time.
const MIN_WAIT: SignedDuration = SignedDuration::from_mins(1);

/// GitHub counts calls by the hour. A later reset is that of a wrong clock, and nobody could correct it in the table.
const LONGEST_WINDOW: SignedDuration = SignedDuration::from_hours(2);

/// The largest body that is read. A page of a hundred jobs has about 2 MB, a function 128 MB of memory.
const MAX_BODY_BYTES: usize = 16 << 20;

/// The largest body of an error.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// The longest message that is kept of an error, in characters. It becomes part of log lines and events.
const MAX_MESSAGE_LENGTH: usize = 500;

/// Parses the body of a successful answer.
pub(super) async fn parse<T: DeserializeOwned>(answer: Response) -> Result<T, GitHubError> {
    parse_body(&read_body(answer).await?)
}

/// Reads the body of a successful answer.
pub(super) async fn read_body(answer: Response) -> Result<Vec<u8>, GitHubError> {
    read_at_most(answer, MAX_BODY_BYTES).await
}

/// Reads a body and stops as soon as it is too large, whatever `content-length` says.
async fn read_at_most(mut answer: Response, bytes: usize) -> Result<Vec<u8>, GitHubError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unanswered)? {
        if body.len() + chunk.len() > bytes {
            return Err(GitHubError::unavailable(format!("the answer has more than {bytes} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Parses a body that was read before.
pub(super) fn parse_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, GitHubError> {
    serde_json::from_slice(body).map_err(|error| GitHubError::Unavailable {
        message: format!("the answer has an unknown form: {error}"),
        source: Some(Source::new(error)),
    })
}

/// No answer, or an incomplete one. The call may have had its effect. The message leaves out the URL, which the caller
/// knows.
pub(super) fn unanswered(error: reqwest::Error) -> GitHubError {
    let error = error.without_url();
    GitHubError::Unavailable { message: causes(&error), source: Some(Source::new(error)) }
}

/// The error of an answer with an unexpected status.
pub(super) async fn error(answer: Response, now: Timestamp) -> GitHubError {
    #[derive(Deserialize, Default)]
    struct Body {
        #[serde(default)]
        message: String,
    }
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = read_at_most(answer, MAX_ERROR_BYTES).await.unwrap_or_default();
    let body: Body = serde_json::from_slice(&body).unwrap_or_default();
    let message = body.message.chars().take(MAX_MESSAGE_LENGTH).collect();
    let answer = GitHubAnswer { code: Some(status.as_u16()), message };
    if let Some(until) = limited_until(status, &headers, &answer.message, now) {
        return GitHubError::Limited { until, message: answer.to_string() };
    }
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => GitHubError::Denied(answer),
        status if status.is_client_error() => GitHubError::Refused(answer),
        _ => GitHubError::unavailable(answer.to_string()),
    }
}

/// Until when a rate limit forbids further calls; None if the answer is not a rate limit.
///
/// From GitHub's "Best practices for using the REST API": `retry-after`, else `x-ratelimit-reset` if nothing remains, else
/// at least a minute.
fn limited_until(status: StatusCode, headers: &HeaderMap, message: &str, now: Timestamp) -> Option<Timestamp> {
    if !matches!(status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
        return None;
    }
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    if let Some(seconds) = number("retry-after") {
        return Some(now + SignedDuration::from_secs(seconds.clamp(1, 24 * 3600)));
    }
    if number("x-ratelimit-remaining") == Some(0) {
        let reset = number("x-ratelimit-reset").and_then(|at| Timestamp::from_second(at).ok());
        return Some(reset.filter(|at| *at > now).unwrap_or(now + MIN_WAIT).min(now + LONGEST_WINDOW));
    }
    let is_limit = status == StatusCode::TOO_MANY_REQUESTS || message.to_ascii_lowercase().contains("rate limit");
    is_limit.then_some(now + MIN_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_rate_limit_differs_from_a_refusal_and_names_its_end() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let after = |seconds| Some(now + SignedDuration::from_secs(seconds));
        let forbidden = StatusCode::FORBIDDEN;
        assert_eq!(limited_until(forbidden, &headers(&[("retry-after", "30")]), "", now), after(30));
        let used_up = headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1000900")]);
        assert_eq!(limited_until(forbidden, &used_up, "", now), after(900));
        let far = headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "99000000")]);
        assert_eq!(
            limited_until(forbidden, &far, "", now),
            after(7200),
            "a wrong clock stops an account for two hours at most"
        );
        let past = headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1")]);
        assert_eq!(limited_until(forbidden, &past, "", now), after(60), "a reset in the past still means a minute");
        assert_eq!(limited_until(StatusCode::TOO_MANY_REQUESTS, &headers(&[]), "", now), after(60));
        let secondary = "You have exceeded a secondary rate limit";
        assert_eq!(limited_until(forbidden, &headers(&[]), secondary, now), after(60));
        let left = headers(&[("x-ratelimit-remaining", "9")]);
        assert_eq!(limited_until(forbidden, &left, "Resource not accessible", now), None);
        assert_eq!(limited_until(StatusCode::NOT_FOUND, &headers(&[("retry-after", "30")]), "", now), None);
    }
}
