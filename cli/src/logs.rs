//! `drover logs`: what a machine wrote to its console.

use domain::ids::InstanceId;
use domain::item::{Item, Key};
use engine::ports::Store;
use platform::ec2::Ec2;
use serde_json::json;

use crate::hands::standing;
use crate::output::{Failure, Output};

/// Prints it, or says what became of the machine if EC2 has forgotten it.
///
/// # Errors
/// When EC2 or the table cannot be asked.
pub async fn logs(table: &impl Store, ec2: &Ec2, id: &InstanceId) -> Result<Output, Failure> {
    let output = ec2.console(id).await?;
    let (yes, text) = match &output {
        Some(output) if !output.is_empty() => {
            let end = if output.ends_with('\n') { "" } else { "\n" };
            (true, format!("{output}{end}"))
        }
        Some(_) => (false, format!("EC2 has nothing of the console of {id} yet -> again in a minute\n")),
        None => {
            let known = match table.get(&Key::Instance(id.clone())).await? {
                Some(Item::Instance(instance)) => standing(&instance),
                _ => format!("Drover knows no machine {id}"),
            };
            (
                false,
                format!("EC2 has no console of {id}, or no more: it keeps one for an hour after the end. {known}\n"),
            )
        }
    };
    Ok(Output { yes, json: json!({ "instance": id, "console": output }), text })
}
