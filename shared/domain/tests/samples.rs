//! Items, events, boot items and messages that the first version wrote can be read, and are written again unchanged.
//!
//! `samples/v1` holds one line for each shape, taken from simulated runs of that version. Never edit a sample: a format
//! that can no longer read one is a new format, with samples of its own.

use std::path::{Path, PathBuf};

use domain::log::Event;
use domain::state::{BootItem, Item, Key};
use domain::wire::Message;
use serde_json::Value;

fn samples() -> Vec<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/v1");
    let files = std::fs::read_dir(&folder).expect("the folder of samples").map(|entry| entry.expect("an entry").path());
    let samples: Vec<(PathBuf, Value)> = files
        .flat_map(|file| {
            let text = std::fs::read_to_string(&file).expect("a sample file");
            let lines: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
            lines.into_iter().map(move |line| (file.clone(), line))
        })
        .collect();
    assert!(samples.len() > 140, "samples are missing: {} found", samples.len());
    samples
}

fn name(file: &Path) -> &str {
    file.file_stem().and_then(|stem| stem.to_str()).expect("a file name")
}

/// Separates the table's key from the attributes.
fn key_and_attributes(sample: &Value) -> (String, String, Value) {
    let mut attributes = sample.clone();
    let object = attributes.as_object_mut().expect("an object");
    let mut text = |key| match object.remove(key) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    (text("pk"), text("sk"), attributes)
}

#[test]
fn every_stored_item_of_the_first_version_reads_and_writes_unchanged() {
    let mut kinds = std::collections::HashSet::new();
    for (file, sample) in samples() {
        if name(&file).starts_with("event-") || matches!(name(&file), "boot" | "message") {
            continue;
        }
        let (pk, sk, attributes) = key_and_attributes(&sample);
        let key = Key::parse(&pk, &sk).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let item = Item::deserialize(&key, &attributes).unwrap_or_else(|error| panic!("{sample}: {error}"));
        assert_eq!(item.key(), key);
        assert_eq!(serde_json::to_value(&item).expect("an item"), attributes, "{}", file.display());
        kinds.insert(std::mem::discriminant(&item));
    }
    assert_eq!(kinds.len(), 12, "a kind of item has no sample");
}

#[test]
fn every_event_of_the_first_version_reads_and_writes_unchanged() {
    let mut kinds = std::collections::BTreeSet::new();
    for (file, sample) in samples().into_iter().filter(|(file, _)| name(file).starts_with("event-")) {
        let (pk, sk, attributes) = key_and_attributes(&sample);
        let event: Event =
            serde_json::from_value(attributes.clone()).unwrap_or_else(|error| panic!("{sample}: {error}"));
        assert_eq!((event.stream.pk(), event.sequence.clone()), (pk, sk));
        assert_eq!(serde_json::to_value(&event).expect("an event"), attributes, "{}", file.display());
        kinds.insert(name(&file).to_owned());
    }
    assert_eq!(kinds.len(), 17, "a kind of event has no sample");
}

#[test]
fn boot_items_and_messages_of_the_first_version_read_and_write_unchanged() {
    for (file, sample) in samples() {
        let (_, _, attributes) = key_and_attributes(&sample);
        match name(&file) {
            "boot" => {
                let item: BootItem = serde_json::from_value(attributes.clone()).expect("a boot item");
                assert_eq!(serde_json::to_value(&item).expect("a boot item"), attributes);
            }
            "message" => {
                let message = Message::parse(&sample.to_string()).unwrap_or_else(|error| panic!("{sample}: {error}"));
                let body: Value = serde_json::from_str(&message.to_body()).expect("a body");
                assert_eq!(body, sample);
            }
            _ => {}
        }
    }
}
