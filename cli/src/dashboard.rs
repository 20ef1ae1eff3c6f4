//! `drover dashboard`: what `pools`, `jobs`, `ps`, `events` and `explain` tell, on a page that keeps itself up to date. It reads
//! and changes nothing. The server makes the whole page, and `maud` escapes every word in it: names of jobs are written by
//! whoever can open a pull request.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use domain::ids::PoolName;
use domain::log::{Event, Stream};
use engine::ports::Clock;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use platform::clock::SystemClock;
use platform::table::Table;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::explain::{JobReference, explain};
use crate::jobs::jobs;
use crate::output::{Failure, age, printable};
use crate::pools::pools;
use crate::ps::ps;
use crate::read;
use crate::story::{cause, told};
use crate::web::{document, guarded};

/// How far back waits are looked at.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Of each pool's log, for its waits. That may be megabytes to read, hence the next one.
const EVENTS_FOR_WAITS: usize = 5000;

/// Waits are computed anew after so long.
const WAITS_GOOD_FOR: SignedDuration = SignedDuration::from_secs(60);

/// The newest of each log, and of all together on the page.
const EVENTS_TOLD: usize = 60;

const STYLE: &str = include_str!("dashboard.css");
const SCRIPT: &str = include_str!("dashboard.js");

/// Nothing comes from elsewhere, and no script but ours runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A page that is served, not yet answering.
#[derive(Debug)]
pub struct Dashboard {
    listener: TcpListener,
    address: SocketAddr,
}

impl Dashboard {
    /// Takes the port, on this machine only.
    ///
    /// # Errors
    /// When somebody else has it.
    pub async fn at(port: u16) -> Result<Self, Failure> {
        let taken =
            |error| Failure::Usage(format!("cannot listen on port {port}: {error} -> --port 0 takes a free one"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        Ok(Self { listener, address })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Answers until the process ends.
    ///
    /// # Errors
    /// When the listener breaks.
    pub async fn serve(self, table: Table) -> Result<(), Failure> {
        let shown = Arc::new(Shown { table, waits: Mutex::default() });
        let script = || async { ([("content-type", "text/javascript; charset=utf-8")], SCRIPT) };
        let routes = Router::new()
            .route("/", get(overview))
            .route("/job", get(job))
            .route("/dashboard.js", get(script))
            .with_state(shown);
        let served = axum::serve(self.listener, guarded(routes, self.address, POLICY)).await;
        served.map_err(|error| Failure::Usage(format!("the page cannot be served any more: {error}")))
    }
}

struct Shown {
    table: Table,
    waits: Mutex<Option<(Timestamp, BTreeMap<PoolName, Waits>)>>,
}

/// How long jobs waited that a runner took within the last day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Waits {
    /// Shortest first.
    sorted: Vec<SignedDuration>,
    /// Since when, if the log read does not reach back a day.
    only_since: Option<Timestamp>,
}

impl Waits {
    /// Of a log, newest first. A job that is written of again is the same job, and its last word counts.
    fn of(events: &[Event], is_all: bool, now: Timestamp) -> Self {
        #[derive(Deserialize)]
        struct Taken {
            queued_at: Timestamp,
            started_at: Timestamp,
            /// Nobody took a job that was cancelled.
            #[serde(rename = "runner")]
            _runner: Value,
        }
        let mut by_job: BTreeMap<&str, SignedDuration> = BTreeMap::new();
        for after in events.iter().flat_map(|event| &event.after).filter(|after| after.key.starts_with("JOB#")) {
            let taken = Taken::deserialize(&after.is);
            if let Some(taken) = taken.ok().filter(|taken| now.duration_since(taken.started_at) <= DAY) {
                let wait = taken.started_at.duration_since(taken.queued_at).max(SignedDuration::ZERO);
                by_job.entry(&after.key).or_insert(wait);
            }
        }
        let mut sorted: Vec<SignedDuration> = by_job.into_values().collect();
        sorted.sort_unstable();
        let oldest = events.last().map(|event| event.at).filter(|at| !is_all && now.duration_since(*at) < DAY);
        Self { sorted, only_since: oldest }
    }

    /// The wait that so many of a hundred did not exceed (nearest rank).
    fn percentile(&self, percent: usize) -> Option<SignedDuration> {
        let place = (self.sorted.len() * percent).div_ceil(100);
        self.sorted.get(place.checked_sub(1)?).copied()
    }
}

impl Shown {
    async fn waits(&self, now: Timestamp) -> Result<BTreeMap<PoolName, Waits>, Failure> {
        let mut known = self.waits.lock().await;
        if let Some((at, waits)) = &*known
            && now.duration_since(*at) < WAITS_GOOD_FOR
        {
            return Ok(waits.clone());
        }
        let mut waits = BTreeMap::new();
        for pool in read::pools(&self.table, None).await? {
            let events = self.table.events(&Stream::Pool(pool.name.clone()), EVENTS_FOR_WAITS).await?;
            waits.insert(pool.name, Waits::of(&events, events.len() < EVENTS_FOR_WAITS, now));
        }
        *known = Some((now, waits.clone()));
        Ok(waits)
    }

    /// The newest first, of all logs.
    async fn events(&self) -> Result<Vec<Event>, Failure> {
        let pools = read::pools(&self.table, None).await?.into_iter().map(|pool| Stream::Pool(pool.name));
        let mut events = Vec::new();
        for stream in pools.chain([Stream::Stack]) {
            events.extend(self.table.events(&stream, EVENTS_TOLD).await?);
        }
        events.sort_by(|a, b| b.sequence.cmp(&a.sequence));
        events.truncate(EVENTS_TOLD);
        Ok(events)
    }

    async fn overview(&self, now: Timestamp) -> Result<Markup, Failure> {
        let (pools, jobs) = (pools(&self.table, now).await?.json, jobs(&self.table, None, now).await?.json);
        let (machines, waits, events) =
            (ps(&self.table, None, now).await?.json, self.waits(now).await?, self.events().await?);
        let waiting: Vec<&Value> = rows(&jobs).filter(|job| job["state"] != "running").collect();
        let machines: Vec<&Value> = rows(&machines).filter(|row| is_machine(row)).collect();
        Ok(html! {
            h2 { "Pools" }
            (pool_table(&pools, &waits))
            h2 { "Waiting jobs (" (waiting.len()) ")" }
            (waiting_table(&waiting))
            h2 { "Machines (" (machines.len()) ")" }
            (machine_table(&machines, &jobs))
            h2 { "Events" }
            (event_table(&events))
            p.dim { "As of " (format!("{now:.0}")) ". Waits: from GitHub's queuing a job to a runner's taking it, of the last day." }
        })
    }
}

fn rows(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// `ps` lists waiting jobs, too.
fn is_machine(row: &Value) -> bool {
    !row["instance"].is_null() || !matches!(row["state"].as_str(), Some("queued" | "held"))
}

/// A field of a row, for people.
fn cell(row: &Value, name: &str) -> String {
    match &row[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

fn seconds(row: &Value, name: &str) -> String {
    row[name].as_i64().map_or("-".to_owned(), |seconds| age(SignedDuration::from_secs(seconds)))
}

fn job_link(id: &str) -> Markup {
    html! { @if id == "-" { "-" } @else { a href={ "/job?job=" (id) } { (id) } } }
}

fn nothing(what: &str) -> Markup {
    html! { p.dim { (what) } }
}

fn pool_table(pools: &Value, waits: &BTreeMap<PoolName, Waits>) -> Markup {
    html! {
        table {
            thead { tr {
                th { "Pool" } th { "State" } th.n { "Demand" } th.n { "Supply" } th.n { "Warm" } th.n { "Live / max" }
                th.n { "Jobs taken" } th.n { "Wait p50" } th.n { "Wait p90" } th.n { "Wait p99" }
            } }
            tbody { @for pool in rows(pools) { (pool_row(pool, waits)) } }
        }
        @for pool in rows(pools) {
            @for obstacle in rows(&pool["obstacles"]) {
                p.bad { (cell(pool, "pool")) ": " (printable(obstacle.as_str().unwrap_or_default())) }
            }
        }
    }
}

fn pool_row(pool: &Value, waits: &BTreeMap<PoolName, Waits>) -> Markup {
    let name = cell(pool, "pool");
    let state = cell(pool, "state");
    let waits = name.parse().ok().and_then(|name: PoolName| waits.get(&name).cloned()).unwrap_or_default();
    let wait = |percent| waits.percentile(percent).map_or("-".to_owned(), brief);
    html! { tr {
        td.t data-title="Pool" { b { (name) } }
        td.t data-title="State" { span.good[state == "ok"] .bad[state == "circuit open"] { (state) } }
        td.n data-title="Demand" { (cell(pool, "demand")) }
        td.n data-title="Supply" { (cell(pool, "supply")) }
        td.n data-title="Warm" { (cell(pool, "warm")) " / " (cell(pool, "warm_wanted")) }
        td.n data-title="Live / max" { (cell(pool, "live")) " / " (cell(pool, "max")) }
        td.n data-title="Jobs taken" {
            (waits.sorted.len())
            @if let Some(since) = waits.only_since { span.dim { " since " (format!("{since:.0}")) } }
        }
        td.n data-title="Wait p50" { (wait(50)) }
        td.n data-title="Wait p90" { (wait(90)) }
        td.n data-title="Wait p99" { (wait(99)) }
    } }
}

/// Waits of seconds are worth a decimal.
fn brief(wait: SignedDuration) -> String {
    if wait.as_secs() < 60 { format!("{:.1}s", wait.as_secs_f64()) } else { age(wait) }
}

fn waiting_table(waiting: &[&Value]) -> Markup {
    if waiting.is_empty() {
        return nothing("No job waits.");
    }
    html! { table {
        thead { tr { th { "Job" } th { "Name" } th { "Repository" } th { "Pool" } th { "State" } th.n { "Waits for" } } }
        tbody { @for job in waiting { tr {
            td.t data-title="Job" { (job_link(&cell(job, "job"))) }
            td data-title="Name" { (cell(job, "name")) }
            td data-title="Repository" { (cell(job, "repository")) }
            td.t data-title="Pool" { (cell(job, "pool")) }
            td.t data-title="State" { (cell(job, "state")) }
            td.n data-title="Waits for" { (seconds(job, "waited_seconds")) }
        } } }
    } }
}

fn machine_table(machines: &[&Value], jobs: &Value) -> Markup {
    if machines.is_empty() {
        return nothing("No machines.");
    }
    let name_of = |id: &Value| rows(jobs).find(|job| job["job"] == *id).map(|job| cell(job, "name"));
    html! { table {
        thead { tr {
            th { "Machine" } th { "Pool" } th { "State" } th { "Job" } th { "Name" } th { "Repository" } th.n { "Age" }
        } }
        tbody { @for machine in machines { tr {
            td.t data-title="Machine" { code { (cell(machine, "instance")) } }
            td.t data-title="Pool" { (cell(machine, "pool")) }
            td data-title="State" { span.busy[machine["state"] == "busy"] { (cell(machine, "state")) } }
            td.t data-title="Job" { (job_link(&cell(machine, "job"))) }
            td data-title="Name" { (name_of(&machine["job"]).unwrap_or("-".to_owned())) }
            td data-title="Repository" { (cell(machine, "repository")) }
            td.n data-title="Age" { (seconds(machine, "age_seconds")) }
        } } }
    } }
}

fn event_table(events: &[Event]) -> Markup {
    if events.is_empty() {
        return nothing("Nothing happened yet.");
    }
    html! { table {
        thead { tr { th { "When" } th { "Log" } th { "What" } th { "Why" } } }
        tbody { @for event in events { tr {
            td.t data-title="When" { (format!("{:.0}", event.at)) }
            td.t data-title="Log" { (String::from(event.stream.clone())) }
            td data-title="What" { span { (linked(&printable(&told(event, None)), &jobs_of(event))) } }
            td.dim data-title="Why" { (printable(&cause(&event.cause))) }
        } } }
    } }
}

fn jobs_of(event: &Event) -> Vec<&str> {
    let id = |key| str::strip_prefix(key, "JOB#")?.split(' ').next();
    event.after.iter().filter_map(|after| id(&after.key)).collect()
}

/// Its words, with those that are these jobs' numbers leading to their stories.
fn linked(text: &str, jobs: &[&str]) -> Markup {
    html! {
        @for word in text.split_inclusive(' ') {
            @let number = word.trim_end_matches([' ', ',', ':']);
            @if jobs.contains(&number) { (job_link(number)) (word[number.len()..]) } @else { (word) }
        }
    }
}

async fn overview(State(shown): State<Arc<Shown>>) -> Response {
    match shown.overview(SystemClock.now()).await {
        Ok(body) => page("Drover", &body).into_response(),
        Err(failure) => failed(&failure),
    }
}

#[derive(Deserialize)]
struct Asked {
    job: String,
}

async fn job(State(shown): State<Arc<Shown>>, Query(asked): Query<Asked>) -> Response {
    let reference: JobReference = match asked.job.trim().parse() {
        Ok(reference) => reference,
        Err(rule) => return (StatusCode::BAD_REQUEST, page("Drover", &html! { p.bad { (rule) } })).into_response(),
    };
    match explain(&shown.table, &reference, SystemClock.now()).await {
        Ok(story) => {
            let address = story.json["job"]["html_url"].as_str().filter(|address| address.starts_with("https://"));
            let body = html! {
                p { a href="/" { "All" } @if let Some(address) = address { " · " a href=(address) { "On GitHub" } } }
                pre { (printable(&story.text)) }
            };
            page(&format!("Job {}", reference.id()), &body).into_response()
        }
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> Response {
    let body = html! { p.bad { (printable(&failure.to_string())) } };
    (StatusCode::SERVICE_UNAVAILABLE, page("Drover", &body)).into_response()
}

fn page(title: &str, body: &Markup) -> Html<String> {
    let head = html! { script src="/dashboard.js" defer {} };
    let body = html! {
        header {
            h1 { a href="/" { "Drover" } }
            form action="/job" { input name="job" placeholder="Job: number or address" aria-label="Job"; button { "Explain" } }
        }
        p.bad.stale { "This page is not up to date: drover does not answer." }
        main { (body) }
    };
    document(title, STYLE, &head, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_wait_that_so_many_did_not_exceed() {
        let of = |count: i64| Waits { sorted: (1..=count).map(SignedDuration::from_secs).collect(), only_since: None };
        let at = |count, percent| of(count).percentile(percent).map(|wait| wait.as_secs());
        assert_eq!(
            (at(0, 50), at(1, 99), at(4, 50), at(100, 90), at(100, 99)),
            (None, Some(1), Some(2), Some(90), Some(99))
        );
    }
}
