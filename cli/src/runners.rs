//! `drover runners`: what GitHub has registered for this stack.

use std::collections::BTreeSet;

use domain::ids::{Scope, StackName};
use domain::policy::listing::RUNNERS_PER_PAGE;
use engine::ports::{GitHub, ObservedRunner, Store};
use serde::Serialize;
use serde_json::json;

use crate::output::{Failure, Output, or_dash, table};
use crate::read;

#[derive(Debug, Serialize)]
struct Row {
    owner: Scope,
    /// None if GitHub's entry cannot be read.
    runner: Option<String>,
    id: Option<u64>,
    state: &'static str,
}

/// Lists the stack's runners of each owner that the pools in force name. Fails if a list cannot be read, so that an empty list
/// means that nothing is registered.
///
/// # Errors
/// The table or a list of GitHub's cannot be read.
pub async fn runners(store: &impl Store, github: &impl GitHub, stack: &StackName) -> Result<Output, Failure> {
    let pools = read::config(store).await?.pools;
    let owners: BTreeSet<Scope> = pools.into_iter().map(|pool| pool.owner).collect();
    let mut rows = Vec::new();
    for owner in owners {
        for number in 1.. {
            let page = github.runners(&owner, stack, number).await?;
            rows.extend(page.runners.into_iter().map(|runner| row(&owner, runner)));
            let unreadable = page.unreadable.into_iter();
            rows.extend(unreadable.map(|id| Row {
                owner: owner.clone(),
                runner: None,
                id: id.map(|id| id.0),
                state: "unreadable",
            }));
            if number * RUNNERS_PER_PAGE >= page.total {
                break;
            }
        }
    }
    let text = match rows.is_empty() {
        true => "no runner is registered\n".to_owned(),
        false => table(&["OWNER", "ID", "STATE", "RUNNER"], rows.iter().map(cells)),
    };
    Ok(Output { ok: true, text, json: json!(rows) })
}

fn row(owner: &Scope, runner: ObservedRunner) -> Row {
    let state = match (runner.busy, runner.online) {
        (true, _) => "busy",
        (false, true) => "idle",
        (false, false) => "offline",
    };
    Row { owner: owner.clone(), runner: Some(runner.name), id: Some(runner.id.0), state }
}

fn cells(row: &Row) -> Vec<String> {
    vec![row.owner.to_string(), or_dash(row.id), row.state.to_owned(), or_dash(row.runner.as_ref())]
}
