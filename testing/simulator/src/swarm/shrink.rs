//! The shortest story of a violation: fewer kinds of faults, fewer jobs, and the lines that matter.

use crate::swarm::faults::Fault;
use crate::swarm::outcome::{Line, Options, Outcome, Topic, Violation};
use crate::swarm::run::run;

/// The smallest world that was found to violate the invariant.
#[derive(Debug)]
pub struct Shrunk {
    pub options: Options,
    /// With its story.
    pub outcome: Outcome,
}

/// Leaves out jobs and kinds of faults that the violation does not need. Any violation of the same invariant counts.
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
    /// The command that replays it.
    pub fn command(&self) -> String {
        let mut command = format!(
            "cargo run --release -p simulator -- --seed {} --jobs {} --trace",
            self.options.seed, self.options.jobs
        );
        if !self.options.shapes {
            command.push_str(" --without-shapes");
        }
        if let Some(mistake) = self.options.mistake {
            command.push_str(" --mistake ");
            command.push_str(&mistake.name());
        }
        let (off, on): (Vec<Fault>, Vec<Fault>) =
            Fault::ALL.iter().partition(|fault| self.options.without.contains(fault));
        let (option, named) = if off.len() <= on.len() { (" --without ", off) } else { (" --only ", on) };
        for fault in named {
            command.push_str(option);
            command.push_str(fault.name());
        }
        command
    }

    /// The last lines that are about something that the violation names, or that are not routine.
    pub fn story(&self, most: usize) -> Vec<String> {
        let violation = self.outcome.violation.as_ref().map(|violation| violation.what.clone()).unwrap_or_default();
        let names: Vec<&str> = violation
            .split(|c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')' | ':'))
            .filter(|word| word.len() > 5 && word.bytes().any(|byte| byte.is_ascii_digit()))
            .collect();
        let matters = |line: &&Line| line.topic != Topic::Routine || names.iter().any(|name| line.what.contains(name));
        let lines: Vec<&Line> = self.outcome.story.iter().filter(matters).collect();
        let skipped = lines.len().saturating_sub(most);
        lines.into_iter().skip(skipped).map(Line::to_string).collect()
    }
}
