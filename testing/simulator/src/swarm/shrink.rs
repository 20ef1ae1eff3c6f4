//! A violation told as shortly as possible: fewer kinds of faults, fewer jobs, and the lines that matter.

use super::*;

/// The smallest world that still shows it.
#[derive(Debug)]
pub struct Shrunk {
    /// What to run.
    pub options: Options,
    /// What comes of it, with its story.
    pub outcome: Outcome,
}

/// Leaves out whatever the violation does not need: each kind of fault in turn, then jobs. Another violation of the same
/// invariant counts as the same.
pub fn shrink(options: &Options, violation: &Violation) -> Shrunk {
    let shows = |options: &Options| {
        let outcome = run(options);
        outcome.violation.is_some_and(|found| found.invariant == violation.invariant)
    };
    let mut least = Options { trace: false, ..options.clone() };
    let mut jobs = least.jobs;
    while jobs > 1 {
        let fewer = Options { jobs: jobs / 2, ..least.clone() };
        if !shows(&fewer) {
            break;
        }
        jobs /= 2;
        least = fewer;
    }
    for fault in Fault::ALL {
        if least.without.contains(fault) {
            continue;
        }
        let mut without = least.clone();
        without.without.push(*fault);
        if shows(&without) {
            least = without;
        }
    }
    for divisor in [8, 4, 2] {
        let fewer = Options { jobs: (least.jobs / divisor).max(1), ..least.clone() };
        if fewer.jobs < least.jobs && shows(&fewer) {
            least = fewer;
            break;
        }
    }
    let outcome = run(&Options { trace: true, ..least.clone() });
    Shrunk { options: least, outcome }
}

impl Shrunk {
    /// The command that shows it again.
    pub fn command(&self) -> String {
        let mut command = format!(
            "cargo run --release -p simulator -- --seed {} --jobs {} --trace",
            self.options.seed, self.options.jobs
        );
        let (off, on): (Vec<Fault>, Vec<Fault>) =
            Fault::ALL.iter().partition(|fault| self.options.without.contains(fault));
        let (option, named) = if off.len() <= on.len() { (" --without ", off) } else { (" --only ", on) };
        for fault in named {
            command.push_str(option);
            command.push_str(fault.name());
        }
        command
    }

    /// The last lines that are about what the violation names, or about what was done to anybody.
    pub fn story(&self, most: usize) -> Vec<String> {
        let violation = self.outcome.violation.as_ref().map(|violation| violation.what.clone()).unwrap_or_default();
        let names: Vec<&str> = violation
            .split(|c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')' | ':'))
            .filter(|word| word.len() > 5 && word.bytes().any(|byte| byte.is_ascii_digit()))
            .collect();
        let matters = |line: &&Line| {
            names.iter().any(|name| line.what.contains(name))
                || line.who == "judge"
                || line.who == "world"
                || line.what.contains('[')
                || line.what.starts_with("ends ")
                || line.what.starts_with("commit") && !line.what.contains("quietly")
                || line.what.starts_with("RunInstances")
                || line.what.starts_with("TerminateInstances")
                || line.what.starts_with("DELETE")
        };
        let lines: Vec<&Line> = self.outcome.story.iter().filter(matters).collect();
        let skipped = lines.len().saturating_sub(most);
        lines.into_iter().skip(skipped).map(Line::to_string).collect()
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} {:<12} {}", self.at, self.who, self.what)
    }
}
