//! `cargo run --release -p simulator`: many seeds, or the story of one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use simulator::mistakes::{self, Mistake};
use simulator::swarm::{Fault, Options, Shrunk, Total, hunt, run, shrink};

/// Runs Drover's engine in a faulty world, in virtual time, and checks its invariants.
#[derive(Debug, Parser)]
struct Arguments {
    /// One seed only.
    #[arg(long, conflicts_with_all = ["first_seed", "seeds"])]
    seed: Option<u64>,
    /// The first of many.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// How many.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Jobs a seed.
    #[arg(long, default_value_t = 200)]
    jobs: usize,
    /// Kinds of faults to leave out.
    #[arg(long, value_parser = PossibleValuesParser::new(Fault::ALL.iter().map(|fault| fault.name())))]
    without: Vec<String>,
    /// The only kinds of faults.
    #[arg(long, conflicts_with = "without", value_parser = PossibleValuesParser::new(Fault::ALL.iter().map(|fault| fault.name())))]
    only: Vec<String>,
    /// Seeds at a time; the number of processors if absent.
    #[arg(long)]
    threads: Option<usize>,
    /// Goes on after a violation, and lists them all.
    #[arg(long)]
    keep_going: bool,
    /// Tells everything that happens in the seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Makes a deliberate mistake.
    #[arg(long)]
    mistake: Option<Mistake>,
    /// Makes each deliberate mistake in turn and fails if no invariant reveals it. See `make mutants`.
    #[arg(long, conflicts_with = "mistake")]
    mistakes: bool,
    /// Explores every order of a small world instead.
    #[arg(long)]
    exhaustive: bool,
    /// The result as JSON.
    #[arg(long)]
    json: bool,
    /// Writes one page with the distributions and a story.
    #[arg(long)]
    html: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let named = |names: &[String], fault: &Fault| names.iter().any(|name| name == fault.name());
    let left_out = |fault: &Fault| {
        named(&arguments.without, fault) || !arguments.only.is_empty() && !named(&arguments.only, fault)
    };
    let without: Vec<Fault> = Fault::ALL.iter().copied().filter(left_out).collect();
    if arguments.exhaustive {
        return Ok(explore_all(&arguments));
    }
    if arguments.mistakes {
        return Ok(hunt_all(&arguments));
    }
    if arguments.trace {
        return Ok(tell(&arguments, without));
    }
    let total = run_all(&arguments, &without);
    let shrunk = total.violations.first().map(|(seed, violation)| {
        let options = Options {
            seed: *seed,
            jobs: arguments.jobs,
            without: without.clone(),
            trace: false,
            outcomes_only: false,
            mistake: arguments.mistake,
        };
        shrink(&options, violation)
    });
    if let Some(path) = &arguments.html {
        std::fs::write(path, simulator::page::page(&total, shrunk.as_ref(), &arguments_of_story(&arguments, without)))?;
    }
    if arguments.json {
        println!("{}", total.json());
    } else {
        print!("{}", total.text());
    }
    for (seed, violation) in &total.violations {
        eprintln!("seed {seed}: {}", violation.what);
    }
    match shrunk {
        None => Ok(ExitCode::SUCCESS),
        Some(shrunk) => {
            show(&shrunk);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn explore_all(arguments: &Arguments) -> ExitCode {
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{pos} states").expect("a template"));
    let explored = simulator::exhaustive::explore(arguments.mistake, |states| bar.set_position(states as u64));
    bar.finish_and_clear();
    println!("{} states, {} transitions, {} ends", explored.states, explored.transitions, explored.ends);
    match explored.counterexample {
        None => ExitCode::SUCCESS,
        Some((way, wrong)) => {
            println!("{wrong} after {way:?}");
            ExitCode::FAILURE
        }
    }
}

fn hunt_all(arguments: &Arguments) -> ExitCode {
    let mut failed = 0;
    println!("{:<18} {:<10} {:>5}  violation", "mistake", "invariant", "seeds");
    for mistake in Mistake::value_variants() {
        let name = mistake.name();
        if !mistakes::is_included(*mistake) {
            println!("{name:<18} not in this build: make mutants");
            continue;
        }
        let hunt = hunt(*mistake, arguments.first_seed, arguments.seeds, arguments.jobs);
        match &hunt.found {
            Some((seeds, violation)) => {
                println!("{name:<18} {:<10} {seeds:>5}  {}", violation.invariant, violation.what);
            }
            None => {
                failed += 1;
                println!("{name:<18} {:<10} {:>5}  not found", "-", arguments.seeds);
            }
        }
        if let Some(violation) = &hunt.harm_without_faults {
            failed += 1;
            println!("{name:<18} breaks an invariant even without faults: {}", violation.what);
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The seed whose story a page without a violation tells.
fn arguments_of_story(arguments: &Arguments, without: Vec<Fault>) -> Options {
    let seed = arguments.seed.unwrap_or(arguments.first_seed);
    Options {
        seed,
        jobs: arguments.jobs.min(10),
        without,
        trace: true,
        outcomes_only: false,
        mistake: arguments.mistake,
    }
}

fn tell(arguments: &Arguments, without: Vec<Fault>) -> ExitCode {
    let seed = arguments.seed.unwrap_or(arguments.first_seed);
    let outcome = run(&Options {
        seed,
        jobs: arguments.jobs,
        without,
        trace: true,
        outcomes_only: false,
        mistake: arguments.mistake,
    });
    for line in &outcome.story {
        println!("{line}");
    }
    println!("digest {:016x}", outcome.digest);
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("violated: {}", violation.what);
            ExitCode::FAILURE
        }
    }
}

fn show(shrunk: &Shrunk) {
    eprintln!("\nthe smallest world that shows it, seed {}:", shrunk.options.seed);
    for line in shrunk.story(150) {
        eprintln!("  {line}");
    }
    eprintln!("\nrun it again: {}", shrunk.command());
}

/// Threads take the next seed; each seed runs on one thread, from its own dice alone.
fn run_all(arguments: &Arguments, without: &[Fault]) -> Total {
    let (first, seeds) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.first_seed, arguments.seeds),
    };
    let threads = arguments.threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left").expect("a template");
    let bar = ProgressBar::new(seeds).with_style(style);
    let total = std::thread::scope(|scope| {
        let worker = || {
            let mut total = Total::default();
            while !stop.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + seeds {
                    break;
                }
                let outcome = run(&Options {
                    seed,
                    jobs: arguments.jobs,
                    without: without.to_vec(),
                    trace: false,
                    outcomes_only: false,
                    mistake: arguments.mistake,
                });
                if outcome.violation.is_some() && !arguments.keep_going {
                    stop.store(true, Ordering::Relaxed);
                }
                total.add(&outcome);
                bar.inc(1);
            }
            total
        };
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        let mut total = Total::default();
        for worker in workers {
            match worker.join() {
                Ok(part) => total.join(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        total
    });
    bar.finish_and_clear();
    total
}
