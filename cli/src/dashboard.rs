//! `drover dashboard`: a read-only web page with what `status`, `pools`, `jobs`, `ps`, `events` and `explain` show. The server
//! renders the whole page, and a script reloads it.

mod cache;
mod chart;
mod details;
mod filter;
mod history;
mod overview;
mod page;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use domain::ids::InstanceId;
use domain::state::Key;
use engine::ports::Clock;
use jiff::{SignedDuration, Timestamp};
use platform::clock::SystemClock;
use platform::table::Table;
use serde::Deserialize;
use tokio::net::TcpListener;

use self::cache::{Cache, Read};
use self::details::MachineReport;
use self::filter::Filter;
use self::history::Histories;
use self::overview::Overview;
use self::page::{Banner, error_page};
use crate::explain::{self, Detail, JobReference};
use crate::output::{Failure, Output};
use crate::status::Surroundings;
use crate::web::guarded;

/// However often pages are requested, the table is read about once a second.
const FRESH_FOR: SignedDuration = SignedDuration::from_secs(1);

/// The event logs are megabytes.
const HISTORY_FRESH_FOR: SignedDuration = SignedDuration::from_secs(60);

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
    pub async fn serve(self, table: Table, surroundings: Surroundings) -> Result<(), Failure> {
        let source = Arc::new(Source::new(table, surroundings));
        let script = || async { ([("content-type", "text/javascript; charset=utf-8")], SCRIPT) };
        let routes = Router::new()
            .route("/", get(overview))
            .route("/job", get(job))
            .route("/machine", get(machine))
            .route("/pool", get(pool))
            .route("/dashboard.js", get(script))
            .with_state(source);
        let served = axum::serve(self.listener, guarded(routes, self.address, POLICY)).await;
        served.map_err(|error| Failure::Usage(format!("the dashboard stopped: {error}")))
    }
}

/// Where the pages get their content.
struct Source {
    table: Table,
    surroundings: Surroundings,
    histories: Cache<Histories>,
    overviews: Cache<Overview>,
    jobs: Cache<Output>,
    machines: Cache<Option<MachineReport>>,
}

impl Source {
    fn new(table: Table, surroundings: Surroundings) -> Self {
        Self {
            table,
            surroundings,
            histories: Cache::new(HISTORY_FRESH_FOR),
            overviews: Cache::new(FRESH_FOR),
            jobs: Cache::new(FRESH_FOR),
            machines: Cache::new(FRESH_FOR),
        }
    }

    async fn overview(&self) -> Result<Read<Overview>, Failure> {
        let Self { table, surroundings, .. } = self;
        let read = async |now| {
            let histories = async |now| Histories::read(table, &surroundings.region, now).await;
            let histories = self.histories.get("", histories).await?.value;
            Overview::read(table, surroundings, histories, now).await
        };
        self.overviews.get("", read).await
    }
}

/// A page of what was read, or of why nothing was read. `render` fails with why there is no such page.
fn answer<T>(
    read: Result<Read<T>, Failure>,
    render: impl FnOnce(&T, &Banner, Timestamp) -> Result<Html<String>, &'static str>,
) -> Response {
    match read {
        Ok(Read { value, at, failure }) => {
            let status = if failure.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            let now = if failure.is_some() { at } else { SystemClock.now() };
            let page = render(&value, &Banner { failure, at: Some(at) }, now);
            match page {
                Ok(page) => (status, page).into_response(),
                Err(why) => (StatusCode::NOT_FOUND, error_page(why)).into_response(),
            }
        }
        Err(failure) => (StatusCode::SERVICE_UNAVAILABLE, error_page(&failure.to_string())).into_response(),
    }
}

async fn overview(State(source): State<Arc<Source>>, Query(filter): Query<Filter>) -> Response {
    answer(source.overview().await, |read, banner, now| Ok(page::overview(read, &filter, banner, now)))
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
    let read = async |now| explain::one(&source.table, &reference, Detail::Normal, now).await;
    let read = source.jobs.get(query.job.trim(), read).await;
    answer(read, |explained, banner, now| Ok(details::job(reference.id(), explained, banner, now)))
}

#[derive(Deserialize)]
struct MachineQuery {
    id: String,
}

async fn machine(State(source): State<Arc<Source>>, Query(query): Query<MachineQuery>) -> Response {
    let id = query.id.trim();
    let read = async |_| MachineReport::read(&source.table, &Key::Instance(InstanceId::from(id))).await;
    answer(source.machines.get(id, read).await, |report, banner, now| match report {
        Some(report) => Ok(details::machine(report, banner, now)),
        None => Err("Drover knows no such machine. It knows a machine for a month after its end."),
    })
}

#[derive(Deserialize)]
struct PoolQuery {
    name: String,
}

async fn pool(State(source): State<Arc<Source>>, Query(query): Query<PoolQuery>) -> Response {
    answer(source.overview().await, |read, banner, now| {
        match read.pools.iter().find(|row| row.pool.as_str() == query.name) {
            Some(row) => Ok(details::pool(read, row, banner, now)),
            None => Err("There is no such pool."),
        }
    })
}
