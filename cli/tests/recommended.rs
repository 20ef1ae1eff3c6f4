//! Each command that `drover` recommends in a message is one that it accepts as printed.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Commands with commands below them.
const NESTED: [(&str, &[&str]); 5] = [
    ("pools", &["apply", "check", "diff", "init", "show"]),
    ("secrets", &["put", "rotate"]),
    ("rotate", &["webhook"]),
    ("dead-letters", &["list", "show", "redrive", "delete"]),
    ("put", &["app", "webhook"]),
];

/// Every source file of the messages. The examples of the help are in `arguments.rs` and `arguments/nested.rs`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files
        .filter(|path| {
            path.extension().is_some_and(|it| it == "rs")
                && !path.ends_with("arguments.rs")
                && !path.ends_with("arguments/nested.rs")
        })
        .collect()
}

/// The text without comments, with continued strings on one line.
fn joined(source: &str) -> String {
    let lines = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines
        .map(|line| line.trim_start().strip_suffix('\\').map_or_else(|| format!("{}\n", line.trim()), str::to_owned))
        .collect()
}

/// The arguments of each `drover ...` in a text: commands, options and placeholders, up to the first word of the sentence. In
/// the middle of a sentence an unknown word is no command: "drover reads".
fn recommended(text: &str, known: &BTreeSet<String>) -> Vec<Vec<String>> {
    const NAME: &str = "drover ";
    let mut all = Vec::new();
    for (at, _) in text.match_indices(NAME) {
        let is_alone = ["-> ", "\"", "`"].iter().any(|before| text[..at].ends_with(before));
        let rest = text[at + NAME.len()..].split(['"', '\n']).next().unwrap();
        let mut command: Vec<String> = Vec::new();
        for word in rest.split(' ') {
            let plain = word.split("\\n").next().unwrap().trim_end_matches([';', ',', '.', ':', ')', '`']);
            let is_placeholder =
                !plain.is_empty() && plain.chars().all(|c| c.is_ascii_uppercase() || matches!(c, '-' | '/'));
            let is_value =
                is_placeholder || plain.contains('{') || plain.ends_with(".toml") || plain.parse::<u32>().is_ok();
            let is_command = match command.last() {
                None => known.contains(plain) || is_alone && plain.starts_with(|c: char| c.is_ascii_lowercase()),
                Some(last) => NESTED.iter().any(|(name, below)| name == last && below.contains(&plain)),
            };
            if !(is_command || !command.is_empty() && (is_value || plain.starts_with("--"))) {
                break;
            }
            command.push(plain.to_owned());
            if plain != word {
                break;
            }
        }
        all.extend((!command.is_empty()).then_some(command));
    }
    all
}

/// The command with values in place of its placeholders.
fn filled(command: &[String]) -> Vec<String> {
    let value = |before: &str| match (command[0].as_str(), before) {
        (_, "--app-id") | ("explain" | "forget", _) | (_, "--job") => "1",
        ("hold" | "release" | "retire" | "logs", _) => "i-0123456789abcdef0",
        ("drain" | "pause" | "resume", _) => "linux",
        (_, "--repository") => "octo-org/widgets",
        ("init", "init") => "octo-org",
        (_, _) => "file",
    };
    let is_placeholder =
        |word: &String| word.contains('{') || word.chars().all(|c| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    let before = std::iter::once("").chain(command.iter().map(String::as_str));
    let words = command.iter().zip(before);
    words.map(|(word, before)| if is_placeholder(word) { value(before).to_owned() } else { word.clone() }).collect()
}

fn drover(arguments: &[String]) -> String {
    let mut drover = Command::new(env!("CARGO_BIN_EXE_drover"));
    let output = drover.env_clear().args(arguments).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn every_recommended_command_is_accepted_as_printed() {
    let help = drover(&["--help".to_owned()]);
    let lines =
        help.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ") && !line.starts_with("  -"));
    let known: BTreeSet<String> = lines.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
    let mut commands = BTreeSet::new();
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        commands.extend(recommended(&joined(&std::fs::read_to_string(file).unwrap()), &known));
    }
    assert!(commands.len() >= 20, "{commands:?}");
    let refused: Vec<String> = commands
        .iter()
        // Without a region no command gets as far as a call.
        .filter(|command| drover(&filled(command)).contains("Usage: "))
        .map(|command| command.join(" "))
        .collect();
    assert_eq!(refused, [""; 0], "clap does not accept these");
}

#[test]
fn a_recommendation_ends_with_the_command() {
    let known = ["pools", "explain"].map(str::to_owned).into();
    let found = recommended("fix it; drover pools apply FILE pins it, drover explain JOB; drover pools shows", &known);
    let found: Vec<String> = found.iter().map(|command| command.join(" ")).collect();
    assert_eq!(found, ["pools apply FILE", "explain JOB", "pools"]);
    let unknown = recommended("drover reads it -> drover pool apply FILE", &known);
    assert_eq!(unknown, [["pool"]], "clap refuses it");
}
