//! Items, events, boot items and messages that this and earlier versions wrote can be read, and are written again unchanged.
//!
//! `samples/v1` to `samples/v6` hold one line for each shape, taken from simulated runs. `v1` is what the first version wrote. `v2`
//! has every attribute that came later, none of which `v1` has, and every kind of event. `v3` has what pools with shapes or caps
//! added. `v4` has what pools with schedules and boot reports added, and the names in the event of a queued job. `v5` has what
//! pools with stopped machines added, and `v6` what pools with `usage` added. Never edit a sample, and put what a new attribute adds
//! into a new folder: a format that can no longer read a sample is a new format.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use domain::log::{Event, What};
use domain::state::{BootItem, Item, Key};
use domain::wire::Message;
use serde_json::Value;

/// The kinds of events that exist today.
const EVENTS: usize = 20;

struct Version {
    folder: &'static str,
    samples: usize,
    /// The kinds of items and of events that have a sample.
    items: usize,
    events: usize,
}

const VERSIONS: [Version; 6] = [
    Version { folder: "v1", samples: 141, items: 12, events: 17 },
    Version { folder: "v2", samples: 141, items: 16, events: EVENTS },
    Version { folder: "v3", samples: 16, items: 8, events: 1 },
    Version { folder: "v4", samples: 5, items: 4, events: 1 },
    Version { folder: "v5", samples: 12, items: 4, events: 3 },
    Version { folder: "v6", samples: 3, items: 2, events: 0 },
];

fn samples(Version { folder: version, samples: least, .. }: &Version) -> Vec<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(version);
    let files = std::fs::read_dir(&folder).expect("the folder of samples").map(|entry| entry.expect("an entry").path());
    let samples: Vec<(PathBuf, Value)> = files
        .flat_map(|file| {
            let text = std::fs::read_to_string(&file).expect("a sample file");
            let lines: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
            lines.into_iter().map(move |line| (file.clone(), line))
        })
        .collect();
    assert!(samples.len() >= *least, "samples are missing: {} found in {version}", samples.len());
    samples
}

fn all_samples() -> impl Iterator<Item = (PathBuf, Value)> {
    VERSIONS.iter().flat_map(samples)
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
fn every_stored_item_reads_and_writes_unchanged() {
    for version in &VERSIONS {
        let mut kinds = std::collections::HashSet::new();
        for (file, sample) in samples(version) {
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
        assert_eq!(kinds.len(), version.items, "a kind of item has no sample in {}", version.folder);
    }
}

#[test]
fn every_event_reads_and_writes_unchanged() {
    for version in &VERSIONS {
        let mut kinds = BTreeSet::new();
        for (file, sample) in samples(version).into_iter().filter(|(file, _)| name(file).starts_with("event-")) {
            let (pk, sk, attributes) = key_and_attributes(&sample);
            let event: Event =
                serde_json::from_value(attributes.clone()).unwrap_or_else(|error| panic!("{sample}: {error}"));
            assert!(!matches!(event.what, What::Unknown(_)), "{sample}");
            assert_eq!((event.stream.pk(), event.sequence.clone()), (pk, sk));
            assert_eq!(serde_json::to_value(&event).expect("an event"), attributes, "{}", file.display());
            kinds.insert(name(&file).to_owned());
        }
        assert_eq!(kinds.len(), version.events, "a kind of event has no sample in {}", version.folder);
    }
}

#[test]
fn boot_items_and_messages_read_and_write_unchanged() {
    for (file, sample) in all_samples() {
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

/// What the present version writes and the first one did not: the file of the samples, and the path of the attribute.
const NEW_IN_V2: [(&str, &str); 41] = [
    ("boot", "/allow_public"),
    ("checkrun", "/given_up"),
    ("config", "/removed"),
    ("event-closed", "/failures/0/console"),
    ("event-forgotten", "/job"),
    ("event-interrupted", "/instance"),
    ("event-swept", "/failures"),
    ("event-swept", "/unreadable"),
    ("event-transferred", "/from"),
    ("function", "/format"),
    ("instance", "/claims/0/ended"),
    ("instance", "/claims/0/repository"),
    ("instance", "/interrupted_at"),
    ("janitor", "/failed"),
    ("janitor", "/failures"),
    ("janitor", "/lists/octo-org/state"),
    ("janitor", "/paid_until"),
    ("janitor", "/repositories/octo-org~1widgets/searched_to"),
    ("janitor", "/rounds"),
    ("janitor", "/unfinished_since"),
    ("janitor", "/unread_deliveries/from"),
    ("job", "/queued_webhook_at"),
    ("job", "/workflow"),
    ("listing", "/unused/0/id"),
    ("message", "/job/runner/group"),
    ("message", "/installation"),
    ("meta", "/answers/0/tuple"),
    ("meta", "/failures/0/reason"),
    ("rerun", "/cancelled/lease/next_at"),
    ("rerun", "/name"),
    ("rerun", "/requested_at"),
    ("rerun", "/runner/id"),
    ("runner", "/instance"),
    ("slot", "/claims/0/ended"),
    ("slot", "/claims/0/repository"),
    ("slot", "/runner_group"),
    ("unrouted", "/notice"),
    ("waiting", "/attempt/follows_interruption"),
    ("waiting", "/attempt/name"),
    ("waiting", "/run_over_at"),
    ("waiting", "/unknown_since"),
];

/// What pools with shapes or caps write and no other.
const NEW_IN_V3: [(&str, &str); 17] = [
    ("batch", "/class"),
    ("batch", "/tuple/root/gib"),
    ("catalogue", "/types/m7i.large/price_per_hour"),
    ("config", "/pools/0/price_per_hour"),
    ("config", "/pools/0/shapes/policy/price_per_hour"),
    ("event-decided", "/choice/passed"),
    ("instance", "/class"),
    ("instance", "/price_per_hour"),
    ("instance", "/subnet"),
    ("market", "/prices/m7i.large/eu-central-1a"),
    ("meta", "/classes"),
    ("meta", "/pauses/0/instance_type"),
    ("slot", "/class"),
    ("slot", "/price_per_hour"),
    ("slot", "/warm_as/instance_type"),
    ("waiting", "/asked_until"),
    ("waiting", "/class"),
];

/// What the version with schedules and boot reports writes and no earlier one.
const NEW_IN_V4: [(&str, &str); 6] = [
    ("config", "/pools/0/schedule/0/time_zone"),
    ("event-recorded", "/said/0/name"),
    ("event-recorded", "/said/0/workflow"),
    ("instance", "/boot/reported_at"),
    ("janitor", "/reporting/ami-0123456789abcdef0/missed/instance"),
    ("slot", "/boot/seen_at"),
];

/// What pools with stopped machines write and no other.
const NEW_IN_V5: [(&str, &str); 9] = [
    ("config", "/pools/0/stopped"),
    ("config", "/pools/0/schedule/0/stopped"),
    ("event-decided", "/set_aside"),
    ("event-seen", "/ready/0"),
    ("instance", "/boot/prepared_at"),
    ("janitor", "/suspects/running i-06fe4729f24b9cd67"),
    ("slot", "/boot/prepared_at"),
    ("slot", "/started_at"),
    ("slot", "/stopped_at"),
];

/// What pools with `usage` write and no other.
const NEW_IN_V6: [(&str, &str); 3] =
    [("boot", "/usage/price_per_hour"), ("config", "/pools/0/usage"), ("instance", "/usage/cpu_beyond/0")];

/// The states and the reason that pools with stopped machines write and no other.
#[test]
fn no_version_before_the_fifth_has_a_stopped_machine() {
    let has = |version: &Version, state: &str| {
        samples(version).iter().any(|(file, it)| name(file) == "slot" && it["state"] == state)
    };
    let ends = |version: &Version| {
        samples(version).iter().any(|(file, it)| name(file) == "event-stopped" && it["why"] == "not_ready")
    };
    for state in ["prepared", "stopped", "started"] {
        assert!(has(&VERSIONS[4], state), "no sample of a slot in v5 is {state}");
        assert!(!VERSIONS[..4].iter().any(|version| has(version, state)), "{state}");
    }
    assert!(ends(&VERSIONS[4]) && !VERSIONS[..4].iter().any(ends));
}

#[test]
fn only_newer_versions_have_the_attributes_that_are_new_in_them() {
    let new = [&NEW_IN_V2[..], &NEW_IN_V3, &NEW_IN_V4, &NEW_IN_V5, &NEW_IN_V6];
    for (number, new) in (1..).zip(new) {
        for (kind, path) in new {
            let has =
                |version| samples(version).iter().any(|(file, it)| name(file) == *kind && it.pointer(path).is_some());
            let Version { folder, .. } = &VERSIONS[number];
            assert!(has(&VERSIONS[number]), "no sample of {kind} in {folder} has {path}");
            assert!(!VERSIONS[..number].iter().any(has), "a sample of {kind} before {folder} has {path}");
        }
    }
}
