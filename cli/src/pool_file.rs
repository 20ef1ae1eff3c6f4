//! The pool file: TOML. Unknown fields are errors, and all errors are reported at once, each with its place.

mod check;
mod entry;
mod fields;
mod finding;
mod instance_types;
mod prices;
mod rules;
mod schedules;
mod shapes;
mod stack;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use domain::ids::PoolName;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use self::entry::PoolEntry;
pub(crate) use self::fields::nearest;
use self::fields::{Fields, Reader, Written, fields, unknown_field};
pub use self::finding::Finding;
use self::finding::{Severity, Source};
pub(crate) use self::prices::{Cap, Priced, judge};
use self::stack::Stack;
use crate::output::{Failure, Output, cannot_read, count};

const DEFAULTS: &str = "defaults";
const POOL: &str = "pool";
const HOSTED: &str = "hosted";
const STACK: &str = "stack";

/// Errors that are listed of a file that is not TOML.
const MOST_SYNTAX_ERRORS: usize = 10;

/// A pool file, and what is wrong with it.
#[derive(Debug)]
pub struct PoolFile {
    /// In the order of the file. If there are errors, invalid values are left out.
    pub pools: Vec<PoolEntry>,
    /// Labels and runner groups of other runners, such as GitHub's larger runners. Only `drover lint` uses them.
    /// None if the file has no such list.
    pub hosted: Option<Vec<String>>,
    /// A file with errors is never applied.
    pub errors: Vec<Finding>,
    /// Allowed, but possibly a mistake.
    pub warnings: Vec<Finding>,
    source: Source,
    /// For each of `pools`.
    written: Vec<Written>,
    stack: Stack,
    /// Further errors of a file that is not TOML.
    unlisted: usize,
}

impl PoolFile {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read. Errors in its content are in `errors`.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| cannot_read(path, &error))?;
        Ok(Self::parse(&path.display().to_string(), &text))
    }

    pub(crate) fn name(&self) -> &str {
        &self.source.name
    }

    /// `name` is the file's name in errors.
    pub fn parse(name: &str, text: &str) -> Self {
        let source = Source { name: name.to_owned(), text: text.to_owned() };
        let mut file = PoolFile {
            pools: Vec::new(),
            hosted: None,
            errors: Vec::new(),
            warnings: Vec::new(),
            source,
            written: Vec::new(),
            stack: Stack::default(),
            unlisted: 0,
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        // After a mistake the rest may be misread, so many errors have one cause.
        file.unlisted = errors.len().saturating_sub(MOST_SYNTAX_ERRORS);
        for error in errors.iter().take(MOST_SYNTAX_ERRORS) {
            file.add(Severity::Error, &error.span().unwrap_or_default(), format!("not TOML: {}", error.message()));
        }
        file.read_table(table.get_ref());
        match errors.is_empty() {
            true => file.compare(),
            // What was understood of the other lines may not be what they mean.
            false => file.errors.truncate(errors.len().min(MOST_SYNTAX_ERRORS)),
        }
        file.order();
        file
    }

    fn add(&mut self, severity: Severity, span: &Range<usize>, message: impl Into<String>) {
        let finding = self.source.finding(span, message);
        self.list(severity).push(finding);
    }

    fn list(&mut self, severity: Severity) -> &mut Vec<Finding> {
        match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        }
    }

    fn read_table(&mut self, table: &DeTable<'_>) {
        let (mut defaults, mut pools, mut misspelt) = (Fields::new(), None, false);
        for (key, value) in table {
            match (key.get_ref().as_ref(), value.get_ref()) {
                (DEFAULTS, DeValue::Table(table)) => defaults = fields(table),
                (POOL, DeValue::Array(tables)) => pools = Some(tables),
                (POOL, DeValue::Table(_)) => {
                    misspelt = true;
                    self.add(Severity::Error, &key.span(), "a pool begins with [[pool]], in double brackets");
                }
                (HOSTED, value) => match hosted(value) {
                    Some(names) => self.hosted = Some(names),
                    None => self.add(Severity::Error, &key.span(), "hosted is not a list of labels and runner groups"),
                },
                (STACK, DeValue::Table(table)) => {
                    let (stack, mut errors) = Stack::read(table, key.span(), &self.source);
                    self.stack = stack;
                    self.errors.append(&mut errors);
                }
                (STACK, _) => self.add(Severity::Error, &key.span(), "stack must be a table that begins with [stack]"),
                (name, _) => {
                    let unknown = unknown_field(name, &[DEFAULTS, POOL, HOSTED, STACK]);
                    let message = format!("{unknown}: a pool file has [stack], [defaults], [[pool]] and hosted");
                    self.add(Severity::Error, &key.span(), message);
                }
            }
        }
        self.check_defaults(&mut defaults);
        match pools {
            Some(tables) => tables.iter().for_each(|pool| self.read_pool(pool, &defaults)),
            None if misspelt => {}
            None => self.add(Severity::Error, &(0..0), "the file has no [[pool]]"),
        }
    }

    /// Reports unknown fields, which would otherwise be reported for each pool.
    fn check_defaults(&mut self, defaults: &mut Fields<'_>) {
        let known: Vec<&str> = entry::field_names().into_iter().filter(|name| *name != "name").collect();
        let unknown: Vec<String> = defaults.keys().filter(|name| !known.contains(&name.as_str())).cloned().collect();
        for name in unknown {
            let Some(field) = defaults.remove(&name) else { continue };
            let message = match name.as_str() {
                "name" => "[defaults] cannot contain name: each pool has its own".to_owned(),
                _ => unknown_field(&name, &known),
            };
            self.add(Severity::Error, field.key(), message);
        }
    }

    fn read_pool(&mut self, pool: &Spanned<DeValue<'_>>, defaults: &Fields<'_>) {
        let DeValue::Table(table) = pool.get_ref() else {
            return self.add(Severity::Error, &pool.span(), "this is not a [[pool]]");
        };
        let own = fields(table);
        let has_shapes = own.contains_key("shapes") || defaults.contains_key("shapes");
        let mut all = defaults.clone();
        all.retain(|name, _| entry::is_inherited(name, has_shapes));
        all.extend(own);
        let source = self.source.clone();
        let mut reader = Reader::new(&source, pool.span(), all);
        let entry = entry::entry(&mut reader);
        self.errors.append(&mut reader.errors);
        for (severity, finding) in rules::check(&entry, &reader.written, &source) {
            self.list(severity).push(finding);
        }
        self.written.push(reader.written);
        self.pools.push(entry);
    }

    /// Finds names that are used twice, and pools that match the same jobs.
    fn compare(&mut self) {
        const COMPARED: [&str; 6] = ["name", "labels", "owner", "repositories", "priority", "runner_group"];
        let mut findings = self.stack.check(&self.pools, &self.written);
        for (second, b) in self.pools.iter().enumerate() {
            for (shaped, by) in self.pools.iter().zip(&self.written) {
                let written = &self.written[second];
                if by.invalid.contains("name") || written.invalid.contains("labels") {
                    continue;
                }
                let found = shapes::labels_of_shapes(shaped, b).into_iter();
                findings.extend(
                    found.map(|(index, message)| (Severity::Error, written.element("labels", index).clone(), message)),
                );
            }
            for (first, a) in self.pools[..second].iter().enumerate() {
                let (a_written, b_written) = (&self.written[first], &self.written[second]);
                let is_invalid =
                    |field: &&str| a_written.invalid.contains(*field) || b_written.invalid.contains(*field);
                if a.name == b.name && !is_invalid(&"name") {
                    let line = self.source.line(a_written.field("name").start);
                    let message = format!("the name {} is used twice, first in line {line}", b.name);
                    findings.push((Severity::Error, b_written.field("name").clone(), message));
                }
                if !COMPARED.iter().any(is_invalid) {
                    let found = rules::compare(a, b);
                    findings.extend(found.map(|(it, message)| (it, b_written.field("labels").clone(), message)));
                }
            }
        }
        for (severity, span, message) in findings {
            self.add(severity, &span, message);
        }
    }

    /// In the order of the file. A mistake in `[defaults]` was found once per pool.
    fn order(&mut self) {
        for list in [&mut self.errors, &mut self.warnings] {
            list.sort_by_key(Finding::order);
            list.dedup();
        }
    }

    /// Adds an error about a field of a pool, found outside the file.
    pub(crate) fn refuse(&mut self, pool: &PoolName, field: &str, message: impl Into<String>) {
        let span = self.place(pool, field);
        self.add(Severity::Error, &span, message);
        self.order();
    }

    /// Adds a warning about a field of a pool.
    pub(crate) fn warn(&mut self, pool: &PoolName, field: &str, message: impl Into<String>) {
        let span = self.place(pool, field);
        self.add(Severity::Warning, &span, message);
        self.order();
    }

    fn place(&self, pool: &PoolName, field: &str) -> Range<usize> {
        let index = self.pools.iter().position(|entry| entry.name == *pool);
        index.and_then(|index| self.written.get(index)).map(|written| written.field(field).clone()).unwrap_or_default()
    }

    /// The warnings, each with the line that it is about.
    pub(crate) fn warnings_text(&self) -> String {
        self.warnings.iter().map(|finding| self.source.render(finding, Severity::Warning)).collect()
    }

    /// The output of `drover pools check`.
    pub fn report(&self) -> Output {
        let errors = self.errors.iter().map(|finding| self.source.render(finding, Severity::Error));
        let mut text: String = errors.collect();
        text += &self.warnings_text();
        text += &match self.errors.len() {
            0 => format!("{}, no errors\n", count(self.pools.len(), "pool")),
            errors if self.unlisted > 0 => {
                let all = count(errors + self.unlisted, "error");
                format!("{}: {all}, of which the first {errors} are listed\n", self.source.name)
            }
            errors => format!("{}: {}\n", self.source.name, count(errors, "error")),
        };
        let valid = self.pools.iter().zip(&self.written).filter(|(_, written)| !written.invalid.contains("name"));
        let names: Vec<&str> = valid.map(|(pool, _)| pool.name.as_str()).collect();
        let strings = |findings: &[Finding]| -> Vec<String> { findings.iter().map(ToString::to_string).collect() };
        let findings: Vec<Value> = self
            .errors
            .iter()
            .map(|finding| finding.json("error"))
            .chain(self.warnings.iter().map(|finding| finding.json("warning")))
            .collect();
        let json = json!({
            "pools": names,
            "errors": strings(&self.errors),
            "warnings": strings(&self.warnings),
            "findings": findings,
        });
        Output { ok: self.errors.is_empty(), text, json }
    }
}

pub(crate) fn by_name(pools: &[PoolEntry]) -> BTreeMap<&PoolName, &PoolEntry> {
    pools.iter().map(|pool| (&pool.name, pool)).collect()
}

/// The names in a list of texts.
fn hosted(value: &DeValue<'_>) -> Option<Vec<String>> {
    let DeValue::Array(names) = value else { return None };
    names.iter().map(|name| name.get_ref().as_str().map(ToOwned::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use domain::config::{MarketChoice, Timings};

    use super::*;

    const NAME: &str = "pools.toml";

    const LINES: &str = "[[pool]]\nname = \"linux\"\nowner = \"acme\"\nlabels = [\"drover\", \"linux\"]\n\
        launch_template = \"runner\"\ninstance_types = [\"m7i.large\"]\nmax = 10\n";

    fn errors(text: &str) -> Vec<String> {
        PoolFile::parse(NAME, text).errors.iter().map(ToString::to_string).collect()
    }

    /// The errors of a file made of [`LINES`] with a line replaced.
    fn errors_with(line: &str, instead: &str) -> Vec<String> {
        assert!(LINES.contains(line), "{line} is not a line of the pool");
        errors(&LINES.replace(line, instead))
    }

    #[test]
    fn of_a_file_that_is_not_toml_the_first_errors_are_listed() {
        let output = PoolFile::parse(NAME, &"pool {\n".repeat(30)).report();
        assert_eq!(output.json["errors"].as_array().map(Vec::len), Some(10), "{}", output.text);
        assert!(output.text.ends_with("of which the first 10 are listed\n"), "{}", output.text);
    }

    #[test]
    fn a_pool_has_the_documented_defaults() {
        let file = PoolFile::parse(NAME, LINES);
        assert_eq!((file.errors.len(), file.warnings.len()), (0, 0), "{}", file.report().text);
        let pool = &file.pools[0];
        assert_eq!((pool.priority, pool.runner_group, pool.warm, pool.allow_public), (100, 1, 0, false));
        assert_eq!(pool.stopped, 0);
        assert_eq!(pool.timings, Timings::default());
        assert_eq!(pool.market, MarketChoice::OnDemand);
    }

    #[test]
    fn every_timing_can_be_set_for_all_pools_and_for_one() {
        for name in entry::TIMINGS {
            let (all, one) = match name {
                // Not longer than backoff_max.
                "backoff_min" => ("2s", "1s"),
                "lease_margin" => ("14m", "15m"),
                _ => ("40m", "41m"),
            };
            let second = LINES.replace("linux\"\nowner", "other\"\npriority = 7\nowner");
            let text = format!("[defaults]\n{name} = \"{all}\"\n{LINES}{name} = \"{one}\"\n{second}");
            let file = PoolFile::parse(NAME, &text);
            assert!(file.errors.is_empty(), "{name}: {}", file.report().text);
            assert_ne!(file.pools[0].timings, file.pools[1].timings, "{name}");
            assert_ne!(file.pools[1].timings, Timings::default(), "{name}");
        }
    }

    #[test]
    fn each_mistake_is_reported_with_its_line_and_column() {
        let mistakes = [
            (
                "instance_types = ",
                "instance_typs = ",
                "pools.toml:6:1: unknown field instance_typs, did you mean instance_types?",
            ),
            ("instance_types = ", "instance_typs = ", "pools.toml:1:1: the pool has no instance_types"),
            ("max = 10", "max = 10\nmaximum = 11", "pools.toml:8:1: unknown field maximum"),
            ("max = 10", "", "pools.toml:1:1: the pool has no max"),
            ("max = 10", "max = 0", "pools.toml:7:1: max: must be at least 1"),
            (
                "max = 10",
                "max = \"10\"",
                "pools.toml:7:7: max: must be a whole number from 0 to 4294967295, not the text \"10\"",
            ),
            ("max = 10", "max = 2\nwarm = 3", "pools.toml:8:1: warm: 3 is more than max, 2"),
            (
                "max = 10",
                "max = 10\nlaunch_deadline = \"7m\"",
                "pools.toml:8:1: launch_deadline: 7m is shorter than boot_grace, 8m",
            ),
            ("max = 10", "max = 10\nboot_grace = \"2h\"", "launch_deadline: 1h is shorter than"),
            (
                "max = 10",
                "max = 10\nboot_grace = \"soon\"",
                "pools.toml:8:14: boot_grace: time \"soon\": must be a length of time",
            ),
            (
                "max = 10",
                "max = 10\nmax_life = \"1s\"",
                "pools.toml:8:1: max_life: no machine boots and runs a job within 1s",
            ),
            ("max = 10", "max = 10\nmax_life = \"8m\"", "max_life: 8m is not longer than boot_grace"),
            ("max = 10", "max = 10\nconfirm_gap = \"0s\"", "confirm_gap: 0s is shorter than 1s: a single reading"),
            ("max = 10", "max = 10\nrelaunch_window = \"0s\"", "relaunch_window: 0s is shorter than 1s: nothing would"),
            ("max = 10", "max = 10\nbackoff_min = \"500ms\"", "backoff_min: 500ms is shorter than 1s: what fails"),
            (
                "max = 10",
                "max = 10\nlease_margin = \"16m\"",
                "lease_margin: what a crashed function had begun would wait",
            ),
            (
                "max = 10",
                "max = 10\nidle_grace = \"25h\"",
                "idle_grace: 25h is longer than GitHub keeps an idle runner",
            ),
            (
                "max = 10",
                "max = 10\nmarket = \"spott\"",
                "pools.toml:8:10: market: unknown value spott, expected one of",
            ),
            ("max = 10", "max = 10\nmarket = \"spott\"", ", did you mean spot?"),
            (
                "max = 10",
                "max = 10\nrepositories = [\"other/repo\"]",
                "pools.toml:8:17: repositories: other/repo does not belong to acme",
            ),
            ("labels = [\"drover\", \"linux\"]", "labels = []", "pools.toml:4:1: labels: at least one"),
            ("labels = [\"drover\", \"linux\"]", "labels = \"drover\"", "pools.toml:4:10: labels must be a list"),
            (
                "labels = [\"drover\", \"linux\"]",
                "labels = [\"x\", \"a,b\"]",
                "pools.toml:4:16: labels: label \"a,b\": must be 1 to 256",
            ),
            (
                "labels = [\"drover\", \"linux\"]",
                "labels = [\"drover\", \"Drover\"]",
                "pools.toml:4:21: labels: drover is listed twice",
            ),
            (
                "[\"m7i.large\"]",
                "[\"m7i.large\", \"m7i.large\"]",
                "pools.toml:6:32: instance_types: m7i.large is listed twice",
            ),
            (
                "m7i.large",
                "m7i.lrage",
                "pools.toml:6:19: instance_types: m7i has no instance type m7i.lrage, did you mean m7i.large?",
            ),
            (
                "[\"m7i.large\"]",
                "[\"m7i.large\", \"m7g.large\"]",
                "instance_types: m7g.large is arm64 and m7i.large is x64",
            ),
            ("name = \"linux\"", "name = \"a-name-of-17-char\"", "must be 1 to 16 characters"),
            ("name = \"linux\"", "name = \"Linux\"", "of a-z, 0-9 and -"),
            ("name = \"linux\"", "", "pools.toml:1:1: the pool has no name"),
            ("owner = \"acme\"", "owner = \"acme/a/b\"", "pools.toml:3:9: owner: "),
            ("[[pool]]", "[pool]", "pools.toml:1:2: a pool begins with [[pool]]"),
            ("[[pool]]", "[[pools]]", "unknown field pools, did you mean pool?"),
            ("[[pool]]", "[[pools]]", "the file has no [[pool]]"),
            ("[[pool]]", "[defaults]\nname = \"x\"\n[[pool]]", "pools.toml:2:1: [defaults] cannot contain name"),
            ("max = 10", "max = ", "pools.toml:7:"),
            ("max = 10", "max = 10\nmax = 11", "not TOML: duplicate key"),
        ];
        for (line, instead, expected) in mistakes {
            let errors = errors_with(line, instead);
            assert!(errors.iter().any(|error| error.contains(expected)), "{instead}: {errors:#?}");
        }
    }

    const SCHEDULE: &str = "[[pool.schedule]]\ndays = [\"mon\", \"fri\"]\nfrom = \"08:00\"\nto = \"18:00\"\n\
        time_zone = \"europe/berlin\"\nwarm = 5\n";

    #[test]
    fn a_pool_has_schedules_and_those_of_the_defaults_if_it_has_none() {
        let night = SCHEDULE.replace("08:00", "18:00").replace("to = \"18:00\"", "to = \"24:00\"").replace("5", "0");
        let second = LINES.replace("linux\"\nowner", "other\"\npriority = 7\nowner");
        let defaults = SCHEDULE.replace("[[pool.", "[[defaults.");
        let file = PoolFile::parse(NAME, &format!("{defaults}{second}{LINES}{SCHEDULE}{night}"));
        assert!(file.errors.is_empty(), "{}", file.report().text);
        let texts = |pool: &PoolEntry| -> Vec<String> {
            let schedules = pool.schedules.iter();
            schedules.map(|it| format!("{:?} {}-{} {} {}", it.days, it.from, it.to, it.time_zone, it.warm)).collect()
        };
        assert_eq!(texts(&file.pools[0]), ["{Mon, Fri} 08:00-18:00 Europe/Berlin 5"]);
        let own = ["{Mon, Fri} 08:00-18:00 Europe/Berlin 5", "{Mon, Fri} 18:00-24:00 Europe/Berlin 0"];
        assert_eq!(texts(&file.pools[1]), own);
    }

    #[test]
    fn each_mistake_in_a_schedule_is_reported_with_its_line_and_what_to_write() {
        // The schedule begins in line 8.
        let mistakes = [
            ("\"fri\"", "\"mon\"", "pools.toml:9:16: days: mon is listed twice; remove one"),
            ("\"fri\"", "\"firday\"", "pools.toml:9:16: days: unknown value firday, expected one of mon"),
            ("[\"mon\", \"fri\"]", "[]", "pools.toml:9:1: days: at least one is required, such as"),
            ("days = [\"mon\", \"fri\"]\n", "", "pools.toml:8:1: the schedule has no days: write days = ["),
            ("from = \"08:00\"\n", "", "the schedule has no from: write from = \"08:00\""),
            ("to = \"18:00\"\n", "", "the schedule has no to: write to = \"18:00\", of the next day if"),
            ("time_zone = \"europe/berlin\"\n", "", "the schedule has no time_zone: write time_zone ="),
            ("warm = 5\n", "", "pools.toml:8:1: the schedule has no warm and no stopped: write warm = 5, the number"),
            ("18:00", "08:00", "pools.toml:11:1: to: equal to from; change one of them, or write from = \"00:00\""),
            ("08:00", "8:00", "pools.toml:10:8: from: time \"8:00\": must be a time of day such as \"08:00\""),
            ("18:00", "24:01", "pools.toml:11:6: to: time \"24:01\": must be a time of day"),
            ("08:00", "24:00", "pools.toml:10:1: from: no schedule begins at 24:00"),
            (
                "europe/berlin",
                "Europe/Berlni",
                "pools.toml:12:13: time_zone: the IANA database has no time zone \"Europe/Berlni\", did you mean Europe/Berlin?",
            ),
            ("europe/berlin", "new_york", "no time zone \"new_york\", did you mean America/New_York?"),
            ("europe/berlin", "+01:00", "no time zone \"+01:00\", write one such as Europe/Berlin or UTC"),
            ("warm = 5", "warm = 11", "pools.toml:13:1: warm: 11 is more than max, 10; lower it, or raise max"),
            ("warm = 5", "warm = -1", "pools.toml:13:8: warm: "),
            (
                "warm = 5",
                "warm = 5\nstopped = 6",
                "pools.toml:14:1: stopped: 6 and warm, 5, are together more than max, 10; lower one of them, or raise max",
            ),
            ("warm = 5", "stopped = 11", "pools.toml:13:1: stopped: 11 is more than max, 10; lower"),
            ("warm = 5", "stopped = -1", "pools.toml:13:11: stopped: must be a whole number"),
            ("warm = 5", "warm = 5\nstoped = 1", "pools.toml:14:1: unknown field stoped, did you mean stopped?"),
            ("warm = 5", "wram = 5", "pools.toml:13:1: unknown field wram, did you mean warm?"),
            (
                "warm = 5",
                "warm = 5\nmarket = \"spot\"",
                "pools.toml:14:1: unknown field market: it is a field of the pool, write it above [[pool.schedule]]",
            ),
            (
                "[[pool.schedule]]",
                "[pool.schedule]",
                "schedule must be tables that begin with [[pool.schedule]], in double",
            ),
        ];
        for (part, instead, expected) in mistakes {
            assert!(SCHEDULE.contains(part), "{part} is not in the schedule");
            let errors = errors(&format!("{LINES}{}", SCHEDULE.replace(part, instead)));
            assert!(errors.iter().any(|error| error.contains(expected)), "{instead}: {errors:#?}");
            assert_eq!(errors.len(), if instead == "wram = 5" { 2 } else { 1 }, "{instead}: {errors:#?}");
        }
    }

    #[test]
    fn a_schedule_that_sets_one_number_keeps_the_other_of_its_pool() {
        let kept = |pool: &str, schedule: &str| {
            let schedule = SCHEDULE.replace("warm = 5", schedule);
            let file = PoolFile::parse(NAME, &format!("{LINES}{pool}\n{schedule}"));
            assert!(file.errors.is_empty(), "{}", file.report().text);
            let it = &file.pools[0].schedules[0];
            (it.warm, it.stopped)
        };
        assert_eq!(kept("warm = 1\nstopped = 2", "warm = 5"), (5, 2));
        assert_eq!(kept("warm = 1\nstopped = 2", "stopped = 4"), (1, 4));
        assert_eq!(kept("warm = 1\nstopped = 2", "warm = 0\nstopped = 0"), (0, 0));
        assert_eq!(kept("", "stopped = 10"), (0, 10));
        let defaults = format!("[defaults]\nstopped = 3\n{LINES}{SCHEDULE}");
        let file = PoolFile::parse(NAME, &defaults);
        assert_eq!((file.pools[0].stopped, file.pools[0].schedules[0].stopped), (3, 3), "{}", file.report().text);
    }

    #[test]
    fn machines_that_cannot_be_kept_stopped_are_reported_with_what_to_write() {
        let with = |more: &str| errors(&format!("{LINES}{more}\n"));
        let spot = "stopped: EC2 cannot stop spot machines of one-time requests, and this pool has no others; write market = \
                    \"spot-then-on-demand\" or \"on-demand\" in the pool, or remove stopped";
        assert_eq!(with("market = \"spot\"\nstopped = 1"), [format!("pools.toml:9:1: {spot}")]);
        assert_eq!(with("market = \"spot-then-on-demand\"\nstopped = 1"), [""; 0]);
        assert_eq!(with("market = \"spot\"\nstopped = 0"), [""; 0]);
        let schedule = SCHEDULE.replace("warm = 5", "stopped = 5");
        assert_eq!(with(&format!("market = \"spot\"\n{schedule}")), [format!("pools.toml:14:1: {spot}")]);
        // The number of the pool is reported once, and not for its schedules.
        assert_eq!(with(&format!("market = \"spot\"\nstopped = 1\n{SCHEDULE}")), [format!("pools.toml:9:1: {spot}")]);

        let both = "stopped: 6 and warm, 5, are together more than max, 10; lower one of them, or raise max";
        assert_eq!(with("warm = 5\nstopped = 6"), [format!("pools.toml:9:1: {both}")]);
        assert_eq!(with("warm = 4\nstopped = 6"), [""; 0]);
        assert_eq!(with(&format!("stopped = 6\n{SCHEDULE}")), [format!("pools.toml:14:1: {both}")]);
        assert_eq!(with("stopped = 4294967295\nwarm = 1").len(), 1, "no overflow");
        assert_eq!(with("warm = 11\nstopped = 1"), ["pools.toml:8:1: warm: 11 is more than max, 10"]);
        let errors = with("stopped = -1");
        assert!(
            errors.len() == 1 && errors[0].starts_with("pools.toml:8:11: stopped: must be a whole number"),
            "{errors:?}"
        );
    }

    #[test]
    fn schedules_of_a_pool_must_not_overlap_and_have_one_time_zone() {
        let second = |changes: &[(&str, &str)]| {
            let start = SCHEDULE.to_owned();
            let second = changes.iter().fold(start, |text, (part, instead)| text.replace(part, instead));
            errors(&format!("{LINES}{SCHEDULE}{second}"))
        };
        let overlap = |day, from, to| {
            let message = "overlaps the one in line 8 on";
            format!(
                "pools.toml:14:1: schedule: {message} {day} from {from} to {to}; change days, from or to of one of them"
            )
        };
        assert_eq!(second(&[]), [overlap("mon", "08:00", "18:00")]);
        let over_midnight = [("\"mon\", \"fri\"", "\"sun\""), ("08:00", "20:00"), ("18:00", "09:30")];
        assert_eq!(second(&over_midnight), [overlap("mon", "08:00", "09:30")]);
        assert_eq!(second(&[("\"mon\", \"fri\"", "\"sun\""), ("08:00", "20:00"), ("18:00", "08:00")]), [""; 0]);
        assert_eq!(second(&[("18:00", "08:30"), ("08:00", "18:00")]), [""; 0]);
        let elsewhere = second(&[("europe/berlin", "UTC"), ("mon", "tue"), ("fri", "wed")]);
        let message = "time_zone: UTC differs from Europe/Berlin of the schedule in line 8; write the times of all";
        assert_eq!(elsewhere.len(), 1);
        assert!(elsewhere[0].starts_with(&format!("pools.toml:18:1: {message}")), "{elsewhere:?}");
    }

    #[test]
    fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
        let text = "[defaults]\nownr = \"acme\"\nboot_grace = 8\n\n[[pool]]\nname = \"Linux\"\nlabels = [\"a,b\", \"c\"]\n\
                    launch_template = \"runner\"\ninstance_types = [\"m7i.lrage\", \"m7g.large\"]\nmax = 0\nwarm = 1\n\n\
                    [[pool]]\nname = \"two\"\nowner = \"acme\"\nlabels = []\nlaunch_template = \"\"\n\
                    instance_types = [\"m7i.large\"]\nmax = 1\nmax_life = \"1s\"\n";
        let text = PoolFile::parse(NAME, text).report().text;
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        insta::assert_snapshot!(lines.join("\n"));
        let syntax = errors("[[pool]]\nname = \nlabels = [\"a\"\nmax 5\n");
        assert!(syntax.len() > 1, "{syntax:?}");
    }

    #[test]
    fn the_line_with_the_mistake_is_shown() {
        let text = LINES.replace("\"m7i.large\"", "\"m7i.large\", \"m7i.lrage\"");
        insta::assert_snapshot!(PoolFile::parse(NAME, &text).report().text);
    }

    #[test]
    fn two_pools_that_match_the_same_job_need_different_priorities() {
        let second = LINES.replace("name = \"linux\"", "name = \"other\"").replace("\"linux\"]", "\"arm\"]");
        let found = errors(&format!("{LINES}{second}"));
        assert_eq!(found.len(), 1, "{found:?}");
        for part in ["pools.toml:11:1", "\"linux\"", "\"other\"", "[drover]"] {
            assert!(found[0].contains(part), "{} lacks {part}", found[0]);
        }
        let file = PoolFile::parse(NAME, &format!("{LINES}{second}priority = 200\n"));
        assert_eq!((file.errors.len(), file.warnings.len()), (0, 1));
        let elsewhere = second.replace("\"acme\"", "\"umbrella\"");
        let file = PoolFile::parse(NAME, &format!("{LINES}{elsewhere}"));
        assert_eq!((file.errors.len(), file.warnings.len()), (0, 0));
    }

    #[test]
    fn a_name_may_be_used_only_once() {
        let errors = errors(&format!("{LINES}{LINES}"));
        assert_eq!(errors, ["pools.toml:9:1: the name linux is used twice, first in line 2"]);
    }
}
