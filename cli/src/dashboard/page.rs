//! The pages of the dashboard. `maud` escapes all text: anyone who can open a pull request chooses the names of jobs.

use std::collections::BTreeMap;

use axum::response::Html;
use domain::ids::{JobId, PoolName};
use domain::log::Event;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::waits::Waits;
use crate::describe;
use crate::jobs::{self, JobRow};
use crate::output::{Output, age, or_dash, printable};
use crate::pools::{PoolRow, State};
use crate::ps::{Kind, Row};
use crate::web::document;

const STYLE: &str = include_str!("page.css");

/// The content of the overview.
pub(super) struct Overview {
    pub(super) pools: Vec<PoolRow>,
    pub(super) jobs: Vec<JobRow>,
    pub(super) rows: Vec<Row>,
    pub(super) waits: BTreeMap<PoolName, Waits>,
    /// Newest first.
    pub(super) events: Vec<Event>,
}

pub(super) fn page(title: &str, body: &Markup) -> Html<String> {
    let head = html! { script src="/dashboard.js" defer {} };
    let body = html! {
        header {
            h1 { a href="/" { "Drover" } }
            form action="/job" { input name="job" placeholder="Job id or URL" aria-label="Job"; button { "Explain" } }
        }
        p.bad.stale { "This page is out of date: drover does not respond." }
        main { (body) }
    };
    document(title, STYLE, &head, &body)
}

/// A page with an error message.
pub(super) fn error_page(message: &str) -> Html<String> {
    page("Drover", &html! { p.bad { (printable(message)) } })
}

pub(super) fn overview(overview: &Overview, now: Timestamp) -> Html<String> {
    let Overview { pools, jobs, rows, waits, events } = overview;
    let waiting: Vec<&JobRow> = jobs.iter().filter(|job| job.state != jobs::State::Running).collect();
    let machines: Vec<&Row> = rows.iter().filter(|row| row.kind != Kind::WaitingJob).collect();
    let body = html! {
        h2 { "Pools" }
        (pool_table(pools, waits))
        h2 { "Waiting jobs (" (waiting.len()) ")" }
        (waiting_table(&waiting))
        h2 { "Machines (" (machines.len()) ")" }
        (machine_table(&machines, jobs))
        h2 { "Events" }
        (event_table(events))
        p.dim { "As of " (format!("{now:.0}")) ". Wait: from queued to started, for jobs started in the last 24 hours." }
    };
    page("Drover", &body)
}

/// What `drover explain` prints about a job.
pub(super) fn explanation(job: JobId, explained: &Output) -> Html<String> {
    let url = explained.json["job"]["html_url"].as_str().filter(|url| url.starts_with("https://"));
    let body = html! {
        p { a href="/" { "Overview" } @if let Some(url) = url { " · " a href=(url) { "On GitHub" } } }
        pre { (printable(&explained.text)) }
    };
    page(&format!("Job {job}"), &body)
}

fn job_link(job: JobId) -> Markup {
    html! { a href={ "/job?job=" (job) } { (job) } }
}

fn empty(message: &str) -> Markup {
    html! { p.dim { (message) } }
}

fn pool_table(pools: &[PoolRow], waits: &BTreeMap<PoolName, Waits>) -> Markup {
    html! {
        table {
            thead { tr {
                th { "Pool" } th { "State" } th.n { "Demand" } th.n { "Supply" } th.n { "Warm" } th.n { "Live / max" }
                th.n { "Jobs started" } th.n { "Wait p50" } th.n { "Wait p90" } th.n { "Wait p99" }
            } }
            tbody { @for pool in pools { (pool_row(pool, waits)) } }
        }
        @for pool in pools {
            @for obstacle in &pool.obstacles { p.bad { (pool.pool) ": " (printable(obstacle)) } }
        }
    }
}

fn pool_row(row: &PoolRow, waits: &BTreeMap<PoolName, Waits>) -> Markup {
    let waits = waits.get(&row.pool).cloned().unwrap_or_default();
    let wait = |percent| or_dash(waits.percentile(percent).map(short));
    html! { tr {
        td.t data-title="Pool" { b { (row.pool) } }
        td.t data-title="State" {
            span.good[row.state == State::Ok] .bad[row.state == State::CircuitOpen] { (row.state.as_str()) }
        }
        td.n data-title="Demand" { (row.demand) }
        td.n data-title="Supply" { (row.supply) }
        td.n data-title="Warm" { (row.warm) " / " (row.warm_wanted) }
        td.n data-title="Live / max" { (row.live) " / " (row.max) }
        td.n data-title="Jobs started" {
            (waits.sorted.len())
            @if let Some(since) = waits.only_since { span.dim { " since " (format!("{since:.0}")) } }
        }
        td.n data-title="Wait p50" { (wait(50)) }
        td.n data-title="Wait p90" { (wait(90)) }
        td.n data-title="Wait p99" { (wait(99)) }
    } }
}

/// Below a minute with one decimal.
fn short(wait: SignedDuration) -> String {
    if wait.as_secs() < 60 { format!("{:.1}s", wait.as_secs_f64()) } else { age(wait) }
}

fn seconds(seconds: i64) -> String {
    age(SignedDuration::from_secs(seconds))
}

fn waiting_table(waiting: &[&JobRow]) -> Markup {
    if waiting.is_empty() {
        return empty("No waiting jobs.");
    }
    html! { table {
        thead { tr { th { "Job" } th { "Name" } th { "Repository" } th { "Pool" } th { "State" } th.n { "Waiting for" } } }
        tbody { @for row in waiting { tr {
            td.t data-title="Job" { (job_link(row.job)) }
            td data-title="Name" { (printable(&row.name)) }
            td data-title="Repository" { (row.repository) }
            td.t data-title="Pool" { (row.pool) }
            td.t data-title="State" { (row.state.as_str()) }
            td.n data-title="Waiting for" { (seconds(row.waited_seconds)) }
        } } }
    } }
}

fn machine_table(machines: &[&Row], jobs: &[JobRow]) -> Markup {
    if machines.is_empty() {
        return empty("No machines.");
    }
    let name_of = |id: JobId| jobs.iter().find(|row| row.job == id).map(|row| printable(&row.name));
    html! { table {
        thead { tr {
            th { "Machine" } th { "Pool" } th { "State" } th { "Job" } th { "Name" } th { "Repository" } th.n { "Age" }
        } }
        tbody { @for row in machines { tr {
            td.t data-title="Machine" { code { (or_dash(row.instance.as_ref())) } }
            td.t data-title="Pool" { (row.pool) }
            td data-title="State" { span.busy[row.kind == Kind::BusyMachine] { (row.state) } }
            td.t data-title="Job" { @if let Some(job) = row.job { (job_link(job)) } @else { "-" } }
            td data-title="Name" { (or_dash(row.job.and_then(name_of))) }
            td data-title="Repository" { (or_dash(row.repository.as_ref())) }
            td.n data-title="Age" { (seconds(row.age_seconds)) }
        } } }
    } }
}

fn event_table(events: &[Event]) -> Markup {
    if events.is_empty() {
        return empty("No events yet.");
    }
    html! { table {
        thead { tr { th { "Time" } th { "Log" } th { "Event" } th { "Cause" } } }
        tbody { @for event in events { tr {
            td.t data-title="Time" { (format!("{:.0}", event.at)) }
            td.t data-title="Log" { (String::from(event.stream.clone())) }
            td data-title="Event" { span { (linked(&printable(&describe::event(event, None)), &jobs_of(event))) } }
            td.dim data-title="Cause" { (printable(&describe::cause(&event.cause))) }
        } } }
    } }
}

fn jobs_of(event: &Event) -> Vec<JobId> {
    let id = |key| str::strip_prefix(key, "JOB#")?.split(' ').next()?.parse().ok().map(JobId);
    event.after.iter().filter_map(|after| id(&after.key)).collect()
}

/// The text, with the ids of these jobs as links.
fn linked(text: &str, jobs: &[JobId]) -> Markup {
    html! {
        @for word in text.split_inclusive(' ') {
            @let number = word.trim_end_matches([' ', ',', ':']);
            @let job = number.parse().ok().map(JobId).filter(|job| jobs.contains(job));
            @if let Some(job) = job { (job_link(job)) (word[number.len()..]) } @else { (word) }
        }
    }
}
