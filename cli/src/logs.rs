//! `drover logs`: the console output of a machine.

use domain::ids::InstanceId;
use domain::state::{Instance, Item, Key};
use engine::ports::{Compute, Store};
use platform::ec2::Ec2;
use serde_json::json;

use crate::operate::ownership;
use crate::output::{Failure, Output};

/// Prints what EC2 has of the output, or else what the janitor kept of it.
///
/// # Errors
/// EC2 or the table does not answer.
pub async fn logs(table: &impl Store, ec2: &Ec2, id: &InstanceId) -> Result<Output, Failure> {
    // None: EC2 no longer shows the instance. Empty: nothing was captured yet.
    let captured = ec2.console(id).await?;
    let instance = match table.get(&Key::Instance(id.clone())).await? {
        Some(Item::Instance(instance)) => Some(instance),
        _ => None,
    };
    let kept = instance.as_ref().and_then(|instance| instance.console.clone());
    let console = captured.clone().filter(|text| !text.is_empty()).or(kept);
    let text = match (&console, captured) {
        (Some(text), _) => {
            let end = if text.ends_with('\n') { "" } else { "\n" };
            format!("{text}{end}")
        }
        (None, Some(_)) => format!("EC2 has no console output of {id} yet -> try again in a minute\n"),
        (None, None) => none(id, instance.as_ref()),
    };
    Ok(Output { ok: console.is_some(), json: json!({ "instance": id, "console": console }), text })
}

fn none(id: &InstanceId, instance: Option<&Instance>) -> String {
    let state = instance.map_or_else(|| format!("Drover has no record of {id}"), ownership);
    format!(
        "there is no console output of {id}: EC2 keeps it for an hour after a machine's end, and Drover keeps that of a \
         failed machine for a month. {state} -> drover ps lists the machines of now\n"
    )
}
