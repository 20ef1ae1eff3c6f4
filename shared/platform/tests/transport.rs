//! The GitHub client against servers that are not GitHub's: plain http, redirects, answers without an end.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::ports::GitHubError;
use platform::github::{ApiUrl, GitHubApp, app_secret};
use sandbox::github::AppKey;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A body of an error: larger than what is read of it.
const LONG: usize = 1 << 20;

fn app(api_url: &ApiUrl) -> GitHubApp {
    let key = AppKey::generate().unwrap().private;
    GitHubApp::of_text(&app_secret(1, &key, None).unwrap(), Some(api_url.clone())).unwrap()
}

/// Reads the head of one request.
async fn head(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 1024];
        let bytes = stream.read(&mut part).await.unwrap();
        assert!(bytes > 0, "the request ends before its head does");
        read.extend_from_slice(&part[..bytes]);
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read_to_its_end() {
    for status in ["200 OK", "500 Internal Server Error"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_url: ApiUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await;
            let start = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n\r\n");
            stream.write_all(start.as_bytes()).await.unwrap();
            let part = vec![b' '; 64 << 10];
            // Ends when the client closes the connection.
            while stream.write_all(&part).await.is_ok() {
                counted.fetch_add(part.len(), Ordering::SeqCst);
            }
        });
        let error = app(&api_url).about().await.unwrap_err();
        assert!(matches!(error, GitHubError::Unavailable { .. }), "{error}");
        serving.await.unwrap();
        let sent = sent.load(Ordering::SeqCst);
        // Besides what is read, both ends of the connection buffer some megabytes.
        assert!(sent < 64 << 20, "{sent} bytes were taken");
    }
}

#[tokio::test]
async fn of_a_long_message_of_an_error_little_is_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api_url: ApiUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let serving = tokio::spawn(async move {
        for length in [10_000, LONG] {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await;
            let body = json!({ "message": "x".repeat(length) }).to_string();
            let start = format!(
                "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            // The client may close the connection before the end.
            let _ = stream.write_all(start.as_bytes()).await;
            let _ = stream.write_all(body.as_bytes()).await;
        }
    });
    let github = app(&api_url);
    for _ in 0..2 {
        let error = github.about().await.unwrap_err();
        assert!(matches!(error, GitHubError::Refused(_)), "{error}");
        assert!(error.to_string().len() < 600, "{} characters", error.to_string().len());
    }
    serving.await.unwrap();
}

#[tokio::test]
async fn a_redirect_to_another_host_gets_no_token() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = format!("http://{}/app", other.local_addr().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api_url: ApiUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = head(&mut stream).await;
        assert!(request.to_ascii_lowercase().contains("authorization: bearer "), "{request}");
        let answer = format!("HTTP/1.1 301 Moved Permanently\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    app(&api_url).about().await.unwrap_err();
    serving.await.unwrap();
    let asked = futures::FutureExt::now_or_never(other.accept());
    assert!(asked.is_none(), "the other host was called");
}

/// The key in the secret is never used: no server listens at this address, and an attempt would be another error.
#[tokio::test]
async fn an_api_url_without_https_is_refused_before_a_call() {
    let key = AppKey::generate().unwrap().private;
    let mut secret: Value = serde_json::from_str(&app_secret(1, &key, None).unwrap()).unwrap();
    for url in ["http://ghe.example.invalid/api/v3", "http://169.254.169.254/", "nonsense"] {
        secret["api_url"] = json!(url);
        let error = GitHubApp::of_text(&secret.to_string(), None).unwrap_err();
        assert!(matches!(&error, GitHubError::SecretUnusable(why) if why.contains("https")), "{error}");
    }
}
