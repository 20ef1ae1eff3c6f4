//! Random inputs: the files of a corpus with a few changed bytes, or with changed parts of their JSON.

use std::path::{Path, PathBuf};
use std::time::Duration;

use platform::environment::optional;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestError, TestRng, TestRunner};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Inputs per round. The time is checked after each round.
const INPUTS: u32 = 2000;

/// The largest number of changes to an input.
const MAX_CHANGES: usize = 6;

/// Texts that often break parsers.
const TEXTS: [&str; 24] = [
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "é",
    "\u{202e}",
    "\u{0}",
    "%2f",
    "..",
    "/",
    "null",
    "-0",
    "1e400",
    "[[[[",
    "{",
    ",",
    "sha256=",
    " ",
    "\r\n",
    ".",
    "#",
    "_",
    "999999999999999999999",
    "=",
];

/// Values at the limits of their types, and of other types than a field expects.
fn leaves() -> [Value; 16] {
    [
        Value::Null,
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(i32::MAX),
        json!(1_u64 << 32),
        json!(0.5),
        json!(""),
        json!("a/b"),
        json!("a/../b"),
        json!("x".repeat(300)),
        json!([]),
        json!({}),
        json!("2026-11-02T12:00:00Z"),
        json!("1969-12-31T23:59:59Z"),
    ]
}

/// One change: the position, the replacement and the kind of change.
type Change = (u16, u16, u8);

/// Tries the corpus, then changed inputs of it until the time is up. Without a time, the inputs are the same in each run.
pub(crate) fn fuzz(target: &str, holds: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(target);
    let corpus = corpus(&folder);
    for (path, input) in &corpus {
        eprintln!("{}", path.display());
        holds(input);
    }
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let seconds = optional("DROVER_FUZZ_SECONDS").map_or(0, |seconds| seconds.parse().unwrap());
    let (began, mut tried) = (Instant::now(), 0);
    loop {
        let runs = Runs { cases: INPUTS, failure_persistence: None, ..Runs::default() };
        let mut runner = match seconds {
            0 => TestRunner::new_with_rng(runs, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
            _ => TestRunner::new(runs),
        };
        let changed = (0..inputs.len(), proptest::collection::vec(any::<Change>(), 0..MAX_CHANGES));
        let failed = runner.run(&changed, |(index, changes)| {
            holds(&change(&inputs, index, &changes));
            Ok(())
        });
        if let Err(TestError::Fail(why, (index, changes))) = failed {
            let input = change(&inputs, index, &changes);
            let path = folder.join(format!("found-{:08x}", hash(&input)));
            std::fs::write(&path, input).unwrap();
            panic!("{}: {why}", path.display());
        }
        failed.unwrap();
        tried += INPUTS;
        if began.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
    }
    eprintln!("{target}: {tried} inputs");
}

pub(crate) fn corpus(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// What earlier versions wrote must stay readable. A finding need not be.
pub(crate) fn all_are_read(kind: &str, is_read: impl Fn(&[u8]) -> bool) {
    for (path, input) in corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(kind)) {
        let is_finding = path.file_name().unwrap().to_string_lossy().starts_with("found-");
        assert!(is_finding || is_read(&input), "{} cannot be read any more", path.display());
    }
}

/// A hash that names an input (FNV-1a).
fn hash(input: &[u8]) -> u32 {
    input.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn change(inputs: &[Vec<u8>], index: usize, changes: &[Change]) -> Vec<u8> {
    let mut input = inputs[index].clone();
    for (at, with, how) in changes.iter().map(|(at, with, how)| (usize::from(*at), usize::from(*with), how % 10)) {
        if how >= 5
            && let Ok(mut json) = serde_json::from_slice::<Value>(&input)
        {
            change_json(&mut json, at, with, how);
            input = json.to_string().into_bytes();
            continue;
        }
        let at = at % (input.len() + 1);
        match how % 5 {
            0 if at < input.len() => input[at] ^= 1 << (with % 8),
            1 => drop(input.splice(at..input.len().min(at + 1 + with % 16), [])),
            2 => input.truncate(at),
            3 => {
                let other = &inputs[with % inputs.len()];
                let from = with % (other.len() + 1);
                drop(input.splice(at..at, other[from..other.len().min(from + 40)].iter().copied()));
            }
            _ => drop(input.splice(at..at, TEXTS[with % TEXTS.len()].bytes())),
        }
    }
    input
}

fn change_json(json: &mut Value, at: usize, with: usize, how: u8) {
    let mut all = Vec::new();
    pointers(json, String::new(), &mut all);
    let pointer = &all[at % all.len()];
    let other = json.pointer(&all[with % all.len()]).cloned().unwrap_or_default();
    if let Some((parent, name)) = pointer.rsplit_once('/')
        && how == 5
        && let Some(Value::Object(parent)) = json.pointer_mut(parent)
    {
        parent.remove(&name.replace("~1", "/").replace("~0", "~"));
        return;
    }
    let Some(node) = json.pointer_mut(pointer) else { return };
    match (how, node) {
        (6, node) => *node = other,
        (7, Value::Array(list)) => list.push(other),
        (7, Value::Object(fields)) => drop(fields.insert(TEXTS[with % TEXTS.len()].to_owned(), other)),
        (8, Value::String(text)) => text.push_str(TEXTS[with % TEXTS.len()]),
        (_, node) => *node = leaves()[with % leaves().len()].clone(),
    }
}

fn pointers(json: &Value, here: String, into: &mut Vec<String>) {
    match json {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            pointers(value, format!("{here}/{}", name.replace('~', "~0").replace('/', "~1")), into);
        }),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(number, value)| pointers(value, format!("{here}/{number}"), into));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    into.push(here);
}

/// An input that is text.
pub(crate) fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}
