//! Web pages that this machine serves to itself: their frame, and protection against DNS rebinding.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// A page. `maud` escapes all text; `style` is inserted as it is.
pub(crate) fn document(title: &str, style: &'static str, head: &Markup, body: &Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(style)) }
                (head)
            }
            body { (body) }
        }
    };
    Html(page.into_string())
}

/// Refuses requests with a foreign `Host`: after DNS rebinding, a foreign page still sends its own name there. Refuses what
/// another site's page loads, too, and forbids the browser to give that page anything. `policy` is the content security
/// policy of every answer.
pub(crate) fn guarded(routes: Router, address: SocketAddr, policy: &str) -> Router {
    let port = address.port();
    let names = ["127.0.0.1", "localhost", "[::1]"];
    let hosts = names.iter().flat_map(|name| [format!("{name}:{port}"), (*name).to_owned()]).collect();
    routes.layer(from_fn_with_state(Arc::new(Guard { hosts, policy: policy.to_owned() }), guard))
}

struct Guard {
    /// With and without the port: a client may leave it out.
    hosts: Vec<String>,
    policy: String,
}

/// Whether another site's page makes the request. Opening this page from a link is allowed, and so is GitHub's redirect.
/// Programs other than browsers do not send these headers.
fn is_foreign(request: &Request) -> bool {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let is_own = matches!(header("sec-fetch-site"), None | Some("same-origin" | "none"));
    let opens_the_page = request.method() == Method::GET
        && header("sec-fetch-mode") == Some("navigate")
        && header("sec-fetch-dest") == Some("document");
    !is_own && !opens_the_page
}

async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    let mut answer = if !guard.hosts.iter().any(|own| own == host) {
        (StatusCode::MISDIRECTED_REQUEST, "this page is available only on the machine that serves it").into_response()
    } else if is_foreign(&request) {
        (StatusCode::FORBIDDEN, "this page is not for other sites").into_response()
    } else {
        next.run(request).await
    };
    let policy = HeaderValue::from_str(&guard.policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    let fixed = [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-frame-options", "DENY"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ];
    answer.headers_mut().insert("content-security-policy", policy);
    for (name, value) in fixed {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}
