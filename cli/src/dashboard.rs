//! `drover dashboard`: a read-only web page with what `pools`, `jobs`, `ps`, `events` and `explain` show. The server renders the
//! whole page, and a script reloads it.

mod cache;
mod page;
mod waits;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use domain::log::{Event, Stream};
use jiff::Timestamp;
use platform::table::Table;
use serde::Deserialize;
use tokio::net::TcpListener;

use self::cache::PageCache;
use self::page::{Overview, error_page};
use self::waits::WaitCache;
use crate::explain::{self, Detail, JobReference};
use crate::output::Failure;
use crate::web::guarded;
use crate::{jobs, pools, ps, read};

/// Events on the page.
const MAX_EVENTS: usize = 60;

const SCRIPT: &str = include_str!("dashboard/page.js");

/// Content security policy: loads nothing from elsewhere, and runs only the dashboard's own script.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A bound port that does not answer requests yet.
#[derive(Debug)]
pub struct Dashboard {
    listener: TcpListener,
    address: SocketAddr,
}

impl Dashboard {
    /// Binds the port on the loopback interface.
    ///
    /// # Errors
    /// The port is in use.
    pub async fn bind(port: u16) -> Result<Self, Failure> {
        let failed =
            |error| Failure::Usage(format!("cannot listen on port {port}: {error} -> --port 0 picks a free port"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Answers requests until the process ends.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(self, table: Table) -> Result<(), Failure> {
        let source = Arc::new(Source { table, waits: WaitCache::default(), pages: PageCache::default() });
        let script = || async { ([("content-type", "text/javascript; charset=utf-8")], SCRIPT) };
        let routes = Router::new()
            .route("/", get(overview))
            .route("/job", get(job))
            .route("/dashboard.js", get(script))
            .with_state(source);
        let served = axum::serve(self.listener, guarded(routes, self.address, POLICY)).await;
        served.map_err(|error| Failure::Usage(format!("the dashboard stopped: {error}")))
    }
}

/// Where the pages get their content.
struct Source {
    table: Table,
    waits: WaitCache,
    pages: PageCache,
}

impl Source {
    async fn overview(&self, now: Timestamp) -> Result<Overview, Failure> {
        Ok(Overview {
            pools: pools::rows(&self.table, now).await?,
            jobs: jobs::rows(&self.table, None, now).await?,
            rows: ps::rows(&self.table, None, now).await?,
            waits: self.waits.get(&self.table, now).await?,
            events: self.events().await?,
        })
    }

    /// The newest events of all logs, newest first.
    async fn events(&self) -> Result<Vec<Event>, Failure> {
        let streams = read::pools(&self.table, None).await?.into_iter().map(|pool| Stream::Pool(pool.name));
        let mut events = Vec::new();
        for stream in streams.chain([Stream::Stack]) {
            events.extend(self.table.events(&stream, MAX_EVENTS).await?);
        }
        events.sort_by(|a, b| b.sequence.cmp(&a.sequence));
        events.truncate(MAX_EVENTS);
        Ok(events)
    }
}

async fn overview(State(source): State<Arc<Source>>) -> Response {
    let read = async |now| source.overview(now).await.map(|content| page::overview(&content, now));
    source.pages.get("", read).await.map_or_else(|failure| unavailable(&failure), IntoResponse::into_response)
}

#[derive(Deserialize)]
struct JobQuery {
    job: String,
}

async fn job(State(source): State<Arc<Source>>, Query(query): Query<JobQuery>) -> Response {
    let reference: JobReference = match query.job.trim().parse() {
        Ok(reference) => reference,
        Err(rule) => return (StatusCode::BAD_REQUEST, error_page(rule)).into_response(),
    };
    let read = async |now| {
        let explained = explain::one(&source.table, &reference, Detail::All, now).await?;
        Ok(page::explanation(reference.id(), &explained))
    };
    let page = source.pages.get(&reference.id().to_string(), read).await;
    page.map_or_else(|failure| unavailable(&failure), IntoResponse::into_response)
}

fn unavailable(failure: &Failure) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, error_page(&failure.to_string())).into_response()
}
