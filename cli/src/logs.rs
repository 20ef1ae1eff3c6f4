//! `drover logs`: what a machine wrote to its console.

use domain::ids::InstanceId;
use domain::state::{Item, Key};
use engine::ports::{Compute, Store};
use platform::ec2::Ec2;
use serde_json::json;

use crate::operate::ownership;
use crate::output::{Failure, Output};

/// Prints it, or says what became of the machine if EC2 has forgotten it.
///
/// # Errors
/// When EC2 or the table cannot be asked.
pub async fn logs(table: &impl Store, ec2: &Ec2, id: &InstanceId) -> Result<Output, Failure> {
    let seen = ec2.console(id).await?;
    let known = match table.get(&Key::Instance(id.clone())).await? {
        Some(Item::Instance(instance)) => Some(instance),
        _ => None,
    };
    let kept = || known.as_ref().and_then(|instance| instance.console.clone());
    let output = seen.clone().filter(|output| !output.is_empty()).or_else(kept);
    let (yes, text) = match (&output, seen) {
        (Some(output), _) => {
            let end = if output.ends_with('\n') { "" } else { "\n" };
            (true, format!("{output}{end}"))
        }
        (None, Some(_)) => (false, format!("EC2 has nothing of the console of {id} yet -> again in a minute\n")),
        (None, None) => {
            let known = known.as_ref().map_or_else(|| format!("Drover knows no machine {id}"), ownership);
            let text = format!(
                "EC2 has no console of {id}, or no more: it keeps one for an hour after the end, and Drover that of a \
                 machine which failed for a month. {known}\n"
            );
            (false, text)
        }
    };
    Ok(Output { yes, json: json!({ "instance": id, "console": output }), text })
}
