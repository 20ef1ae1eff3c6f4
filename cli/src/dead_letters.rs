//! `drover dead-letters`: messages that the scaler could not use, however often it was given them.
//!
//! Whoever can write to a repository has a hand in what stands in them: everything printed goes through
//! [`crate::output::printable`].

use std::collections::{BTreeMap, BTreeSet};

use domain::wire::{InstanceChange, Message};
use jiff::Timestamp;
use platform::queue::{DeadLetters, Letter};
use serde_json::{Value, json};

use crate::output::{Failure, Output, age, table};

/// Letters that are looked at in one go: more than a person reads, and all of them have to be given back.
const AT_MOST: usize = 1000;

/// Which letters are sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those of these ids.
    Named(BTreeSet<String>),
    /// All that were there when the command began.
    All,
}

/// Lists them.
///
/// # Errors
/// When SQS cannot be asked.
pub async fn list(letters: &DeadLetters, now: Timestamp) -> Result<Output, Failure> {
    let all = look(letters, now, |_| false).await?;
    let rows = all.iter().map(|letter| {
        let since = letter.sent_at.map_or("-".to_owned(), |at| age(now.duration_since(at)));
        vec![letter.id.clone(), since, what(letter)]
    });
    let mut text = match all.is_empty() {
        true => "no dead letters\n".to_owned(),
        false => table(&["ID", "AGE", "WHAT"], rows),
    };
    if all.len() >= AT_MOST {
        text += &format!("and perhaps more: these are the first {AT_MOST}\n");
    }
    let json = all.iter().map(summary).collect();
    Ok(Output { yes: true, text, json })
}

/// Shows one whole.
///
/// # Errors
/// When SQS cannot be asked.
pub async fn show(letters: &DeadLetters, id: &str, now: Timestamp) -> Result<Output, Failure> {
    let all = look(letters, now, |letter| letter.id == id).await?;
    let Some(letter) = all.iter().find(|letter| letter.id == id) else { return Ok(missing([id])) };
    let body: Option<Value> = serde_json::from_str(&letter.body).ok();
    let whole = body.as_ref().map_or_else(|| letter.body.clone(), |body| format!("{body:#}"));
    let sent = letter.sent_at.map_or("at an unknown time".to_owned(), |at| at.to_string());
    let text = format!("message  {id}\nsent     {sent}\nwhat     {}\n\n{whole}\n", what(letter));
    let mut json = summary(letter);
    json["body"] = body.unwrap_or_else(|| json!(letter.body));
    Ok(Output { yes: true, text, json })
}

/// Sends them to the main queue again. What comes back as a dead letter meanwhile is left there: it was sent later than
/// the command began.
///
/// # Errors
/// When SQS cannot be asked. Those that were sent before are said.
pub async fn redrive(letters: &DeadLetters, which: &Which, now: Timestamp) -> Result<Output, Failure> {
    let mut missing_ids = match which {
        Which::Named(ids) => ids.clone(),
        Which::All => BTreeSet::new(),
    };
    let mut redriven = Vec::new();
    let mut others: BTreeMap<String, Letter> = BTreeMap::new();
    let mut failed = None;
    'receiving: while others.len() < AT_MOST {
        let received = match letters.receive().await {
            Ok(received) if received.is_empty() => break,
            Ok(received) => received,
            Err(error) => {
                failed = Some(error);
                break;
            }
        };
        for letter in received {
            let wanted = match which {
                Which::Named(ids) => ids.contains(&letter.id),
                Which::All => letter.sent_at.is_none_or(|sent| sent <= now),
            };
            if !wanted {
                others.insert(letter.id.clone(), letter);
                continue;
            }
            if let Err(error) = letters.redrive(&letter).await {
                failed = Some(error);
                break 'receiving;
            }
            missing_ids.remove(&letter.id);
            redriven.push(letter.id);
        }
        if matches!(which, Which::Named(_)) && missing_ids.is_empty() {
            break;
        }
    }
    give_back(letters, others.values()).await;
    let sent: String = redriven.iter().map(|id| format!("{id}: sent again\n")).collect();
    if let Some(error) = failed {
        return Err(Failure::Unreachable(format!("{sent}{error}")));
    }
    let mut output = missing(missing_ids.iter().map(String::as_str));
    output.text = sent + &output.text;
    if redriven.is_empty() && output.yes {
        output.text = "no dead letters\n".to_owned();
    }
    output.json["redriven"] = json!(redriven);
    Ok(output)
}

fn missing<'a>(ids: impl IntoIterator<Item = &'a str>) -> Output {
    let ids: Vec<&str> = ids.into_iter().collect();
    let text = ids.iter().map(|id| format!("there is no dead letter {id:?}, or somebody looks at it just now\n"));
    Output { yes: ids.is_empty(), text: text.collect(), json: json!({ "missing": ids }) }
}

/// Receives letters until there are no others, or the one that was looked for is found, and gives all of them back. Oldest
/// first.
async fn look(letters: &DeadLetters, now: Timestamp, found: impl Fn(&Letter) -> bool) -> Result<Vec<Letter>, Failure> {
    let mut all = BTreeMap::new();
    let mut failed = None;
    while all.len() < AT_MOST {
        match letters.receive().await {
            Ok(received) if received.is_empty() => break,
            Ok(received) => {
                let done = received.iter().any(&found);
                all.extend(received.into_iter().map(|letter| {
                    let sent_at = letter.sent_at.unwrap_or(now);
                    ((sent_at, letter.id.clone()), letter)
                }));
                if done {
                    break;
                }
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    give_back(letters, all.values()).await;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(all.into_values().collect()),
    }
}

async fn give_back(letters: &DeadLetters, some: impl Iterator<Item = &Letter>) {
    for letter in some {
        // It is seen again by itself, a little later.
        let _ = letters.give_back(letter).await;
    }
}

fn summary(letter: &Letter) -> Value {
    json!({ "id": letter.id, "sent_at": letter.sent_at, "what": what(letter) })
}

/// What it is about, in a line; why it is of no use, if that can be seen from here.
fn what(letter: &Letter) -> String {
    match Message::parse(&letter.body) {
        Ok(Message::WorkflowJob(notice)) => {
            format!("job {} {:?} in {}", notice.job.id, notice.action, notice.repository).to_lowercase()
        }
        Ok(Message::Nudge { pool, .. }) => format!("another look at pool {pool}"),
        Ok(Message::Instance { id, change }) => {
            let word = match change {
                InstanceChange::Interrupted => "will be taken back",
                InstanceChange::Ended => "ended",
                InstanceChange::Other => "changed its state",
            };
            format!("instance {id} {word}")
        }
        Err(error) => error.to_string(),
    }
}
