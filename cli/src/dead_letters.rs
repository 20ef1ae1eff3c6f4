//! `drover dead-letters`: lists, shows, resends and deletes messages that the scaler could not process.
//!
//! Anyone who can write to a repository influences the content of these messages, so everything printed goes through
//! [`crate::output::printable`].

use std::collections::{BTreeMap, BTreeSet};

use domain::wire::{InstanceChange, Message};
use engine::ports::QueueError;
use jiff::Timestamp;
use platform::aws::ErrorKind;
use platform::queue::{DeadLetters, Letter};
use serde_json::{Value, json};

use crate::describe::action;
use crate::output::{Failure, Output, age, count, one_line, or_dash, table};

/// Messages read at a time. SQS shows messages only by receiving them, and each has to be returned to the queue.
const MAX_LETTERS: usize = 1000;

/// What to do with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// Send them to the scaler again.
    Redrive,
    Delete,
}

impl Handling {
    fn done(self) -> &'static str {
        match self {
            Handling::Redrive => "sent again",
            Handling::Delete => "deleted",
        }
    }

    /// The name of the list of ids in the JSON output.
    fn key(self) -> &'static str {
        match self {
            Handling::Redrive => "redriven",
            Handling::Delete => "deleted",
        }
    }
}

/// The messages to send again or to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    Ids(BTreeSet<String>),
    /// Every message that was in the queue when the command began.
    All,
}

impl Selection {
    fn contains(&self, letter: &Letter, now: Timestamp) -> bool {
        match self {
            Selection::Ids(ids) => ids.contains(&letter.id),
            Selection::All => letter.sent_at.is_none_or(|sent| sent <= now),
        }
    }
}

/// Lists the messages.
///
/// # Errors
/// SQS does not answer.
pub async fn list(letters: &DeadLetters, now: Timestamp) -> Result<Output, Failure> {
    let all = receive_until(letters, now, |_| false).await?;
    let rows = all.iter().map(|letter| {
        let sent = letter.sent_at.map(|at| age(now.duration_since(at)));
        vec![letter.id.clone(), or_dash(sent), describe(letter)]
    });
    let mut text = match all.is_empty() {
        true => "no dead letters\n".to_owned(),
        false => table(&["ID", "AGE", "WHAT"], rows),
    };
    if all.len() >= MAX_LETTERS {
        text += &format!("these are the first {MAX_LETTERS}; there may be more\n");
    }
    let json = all.iter().map(summary).collect();
    Ok(Output { ok: true, text, json })
}

/// Shows one message with its body.
///
/// # Errors
/// SQS does not answer.
pub async fn show(letters: &DeadLetters, id: &str, now: Timestamp) -> Result<Output, Failure> {
    let all = receive_until(letters, now, |letter| letter.id == id).await?;
    let Some(letter) = all.iter().find(|letter| letter.id == id) else { return Ok(missing([id])) };
    let body: Option<Value> = serde_json::from_str(&letter.body).ok();
    let body_text = body.as_ref().map_or_else(|| letter.body.clone(), |body| format!("{body:#}"));
    let sent = letter.sent_at.map_or("at an unknown time".to_owned(), |at| at.to_string());
    let text = format!("message  {id}\nsent     {sent}\nwhat     {}\n\n{body_text}\n", one_line(&describe(letter)));
    let mut json = summary(letter);
    json["body"] = body.unwrap_or_else(|| json!(letter.body));
    Ok(Output { ok: true, text, json })
}

/// Sends messages back to the scaler's queue, or deletes them. A message that becomes a dead letter again meanwhile is left
/// alone, because it was sent after the command began.
///
/// # Errors
/// SQS does not answer. The error names the number of messages that were handled before.
pub async fn handle(
    letters: &DeadLetters,
    selection: &Selection,
    handling: Handling,
    now: Timestamp,
) -> Result<Output, Failure> {
    let (handled, failed) = handle_selected(letters, selection, handling, now).await;
    if let Some(error) = failed {
        let (number, kind) = (count(handled.len(), "message"), ErrorKind::of(&error));
        return Err(Failure::Aws { message: format!("{number} {}, then: {error}", handling.done()), kind });
    }
    let lines: String = handled.iter().map(|id| format!("{id}: {}\n", handling.done())).collect();
    let mut output = match selection {
        Selection::Ids(ids) => missing(ids.iter().filter(|id| !handled.contains(id)).map(String::as_str)),
        Selection::All => missing([]),
    };
    output.text = lines + &output.text;
    if handled.is_empty() && output.ok {
        output.text = "no dead letters\n".to_owned();
    }
    output.json[handling.key()] = json!(handled);
    Ok(output)
}

/// The ids of the messages handled, and the error that ended it early. All other messages received are returned.
async fn handle_selected(
    letters: &DeadLetters,
    selection: &Selection,
    handling: Handling,
    now: Timestamp,
) -> (Vec<String>, Option<QueueError>) {
    let mut handled = Vec::new();
    let mut others: BTreeMap<String, Letter> = BTreeMap::new();
    let mut failed = None;
    'receiving: while others.len() < MAX_LETTERS {
        let received = match letters.receive().await {
            Ok(received) if received.is_empty() => break,
            Ok(received) => received,
            Err(error) => {
                failed = Some(error);
                break;
            }
        };
        for letter in received {
            if !selection.contains(&letter, now) {
                others.insert(letter.id.clone(), letter);
                continue;
            }
            let result = match handling {
                Handling::Redrive => letters.redrive(&letter).await,
                Handling::Delete => letters.delete(&letter).await,
            };
            if let Err(error) = result {
                failed = Some(error);
                break 'receiving;
            }
            handled.push(letter.id);
        }
        if matches!(selection, Selection::Ids(ids) if ids.iter().all(|id| handled.contains(id))) {
            break;
        }
    }
    give_back(letters, others.values()).await;
    (handled, failed)
}

fn missing<'a>(ids: impl IntoIterator<Item = &'a str>) -> Output {
    let ids: Vec<&str> = ids.into_iter().collect();
    let text = ids.iter().map(|id| {
        format!("there is no dead letter {id:?}, or another command is reading it -> drover dead-letters list\n")
    });
    Output { ok: ids.is_empty(), text: text.collect(), json: json!({ "missing": ids }) }
}

/// Receives messages until none is left or one is found, and returns all of them to the queue. Oldest first.
async fn receive_until(
    letters: &DeadLetters,
    now: Timestamp,
    found: impl Fn(&Letter) -> bool,
) -> Result<Vec<Letter>, Failure> {
    let mut all = BTreeMap::new();
    let mut failed = None;
    while all.len() < MAX_LETTERS {
        match letters.receive().await {
            Ok(received) if received.is_empty() => break,
            Ok(received) => {
                let is_done = received.iter().any(&found);
                all.extend(received.into_iter().map(|letter| {
                    let sent_at = letter.sent_at.unwrap_or(now);
                    ((sent_at, letter.id.clone()), letter)
                }));
                if is_done {
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
        // If this fails, the message becomes visible again a little later by itself.
        let _ = letters.give_back(letter).await;
    }
}

fn summary(letter: &Letter) -> Value {
    json!({ "id": letter.id, "sent_at": letter.sent_at, "what": describe(letter) })
}

/// What the message is about; for a message that cannot be parsed, why not.
fn describe(letter: &Letter) -> String {
    match Message::parse(&letter.body) {
        Ok(Message::WorkflowJob(notice)) => {
            format!("job {} {} in {}", notice.job.id, action(notice.action), notice.repository)
        }
        Ok(Message::Nudge { pool, .. }) => format!("nudge for pool {pool}"),
        Ok(Message::Instance { id, change }) => {
            let change = match change {
                InstanceChange::Interrupted(_) => "will be interrupted",
                InstanceChange::Ended => "ended",
                InstanceChange::Stopped => "stopped",
                InstanceChange::Other => "changed its state",
            };
            format!("instance {id} {change}")
        }
        Err(error) => error.to_string(),
    }
}
