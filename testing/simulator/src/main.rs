//! `make simulate`: runs many random worlds, or prints everything that happens in one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use simulator::exhaustive::{Choice, Explored, SmallWorld, WORLDS, explore, story};
use simulator::mistakes::{self, Mistake};
use simulator::swarm::{Fault, Options, Shrunk, Total, hunt, run, shrink};

/// A world copies many small items. With the system's allocator that takes a third of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs Drover's engine in a faulty world, in virtual time, and checks its invariants.
#[derive(Debug, Parser)]
struct Arguments {
    /// Runs this seed only.
    #[arg(long, conflicts_with_all = ["first_seed", "seeds"])]
    seed: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// The number of seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The number of jobs per seed.
    #[arg(long, default_value_t = 200)]
    jobs: usize,
    /// Leaves out the pool with shapes that every second seed has.
    #[arg(long)]
    without_shapes: bool,
    /// Turns a kind of fault off. May be repeated.
    #[arg(long, value_parser = PossibleValuesParser::new(Fault::ALL.iter().map(|fault| fault.name())))]
    without: Vec<String>,
    /// Turns every other kind of fault off. May be repeated.
    #[arg(long, conflicts_with = "without", value_parser = PossibleValuesParser::new(Fault::ALL.iter().map(|fault| fault.name())))]
    only: Vec<String>,
    /// Runs this many seeds at the same time. [default: the number of processors]
    #[arg(long)]
    threads: Option<usize>,
    /// Continues after a violation, and lists all violations.
    #[arg(long)]
    keep_going: bool,
    /// Prints everything that happens in the seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Makes a deliberate mistake.
    #[arg(long)]
    mistake: Option<Mistake>,
    /// Makes each deliberate mistake in turn, and fails if a mistake breaks no invariant. See `make mutants`.
    #[arg(long, conflicts_with = "mistake")]
    mistakes: bool,
    /// Explores every order of calls in small worlds instead. Then prints what happens in them without one of the safeguards.
    /// With a mistake, only that.
    #[arg(long)]
    exhaustive: bool,
    /// Explores this small world only.
    #[arg(long, requires = "exhaustive", value_parser = PossibleValuesParser::new(WORLDS.iter().map(|world| world.name)))]
    world: Option<String>,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
    /// Writes an HTML page with the distributions and a story to this file.
    #[arg(long)]
    html: Option<PathBuf>,
}

impl Arguments {
    fn options(&self, seed: u64, without: &[Fault]) -> Options {
        let (jobs, without, shapes) = (self.jobs, without.to_vec(), !self.without_shapes);
        Options { seed, jobs, without, trace: false, outcomes_only: false, shapes, mistake: self.mistake }
    }
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
        return Ok(trace(&arguments, without));
    }
    let total = run_all(&arguments, &without);
    let shrunk =
        total.violations.first().map(|(seed, violation)| shrink(&arguments.options(*seed, &without), violation));
    if let Some(path) = &arguments.html {
        std::fs::write(path, simulator::page::page(&total, shrunk.as_ref(), &story_options(&arguments, without)))?;
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
    let is_asked = |world: &&SmallWorld| arguments.world.as_ref().is_none_or(|name| name == world.name);
    let worlds: Vec<&SmallWorld> = WORLDS.iter().filter(is_asked).collect();
    let is_safe = arguments.mistake.is_some() || explore_worlds(&worlds);
    let mut is_found = true;
    for world in worlds {
        for mistake in world.mistakes.iter().filter(|mistake| arguments.mistake.is_none_or(|asked| asked == **mistake))
        {
            is_found &= explore_without_safeguard(world, *mistake);
        }
    }
    if is_safe && is_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Explores the worlds and prints what was found. Returns whether no invariant breaks.
fn explore_worlds(worlds: &[&SmallWorld]) -> bool {
    let (mut is_safe, mut all) = (true, 0);
    println!("{:<14} {:>9} {:>11} {:>9} {:>6}", "world", "states", "transitions", "ends", "time");
    for world in worlds {
        let (explored, took) = explore_with_progress(world, None);
        let (states, transitions, ends) = (explored.states, explored.transitions, explored.ends);
        println!("{:<14} {states:>9} {transitions:>11} {ends:>9} {:>4} s", world.name, took.as_secs());
        all += states;
        if let Some((choices, violation)) = explored.counterexample {
            is_safe = false;
            print_story(world, None, &choices, &violation);
        }
    }
    println!("{:<14} {all:>9}", "together");
    is_safe
}

/// Prints how an invariant breaks with the mistake. Returns whether one does.
fn explore_without_safeguard(world: &SmallWorld, mistake: Mistake) -> bool {
    println!("\nWorld {}, mistake {}:", world.name, mistake.name());
    let (explored, _) = explore_with_progress(world, Some(mistake));
    match &explored.counterexample {
        Some((choices, violation)) => print_story(world, Some(mistake), choices, violation),
        None => println!("no invariant breaks in {} states", explored.states),
    }
    explored.counterexample.is_some()
}

/// Also returns how long it took.
fn explore_with_progress(world: &SmallWorld, mistake: Option<Mistake>) -> (Explored, Duration) {
    let style = ProgressStyle::with_template("{msg}: {pos} states, {elapsed}").expect("a template");
    let bar = ProgressBar::new_spinner().with_style(style).with_message(world.name);
    let explored = explore(world, mistake, |states| bar.set_position(states as u64));
    bar.finish_and_clear();
    (explored, bar.elapsed())
}

fn print_story(world: &SmallWorld, mistake: Option<Mistake>, choices: &[Choice], violation: &str) {
    for (number, sentence) in (1..).zip(story(world, mistake, choices, violation)) {
        println!("{number:>4}. {sentence}");
    }
}

fn hunt_all(arguments: &Arguments) -> ExitCode {
    let mut failed = 0;
    println!("{:<18} {:<10} {:>5}  violation", "mistake", "invariant", "seeds");
    for mistake in Mistake::value_variants() {
        let name = mistake.name();
        if mistake.is_for_small_worlds() {
            println!("{name:<18} only in small worlds: make exhaustive");
            continue;
        }
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

/// The run whose story is on the page if there is no violation.
fn story_options(arguments: &Arguments, without: Vec<Fault>) -> Options {
    let seed = arguments.seed.unwrap_or(arguments.first_seed);
    Options { jobs: arguments.jobs.min(10), trace: true, ..arguments.options(seed, &without) }
}

fn trace(arguments: &Arguments, without: Vec<Fault>) -> ExitCode {
    let seed = arguments.seed.unwrap_or(arguments.first_seed);
    let outcome = run(&Options { trace: true, ..arguments.options(seed, &without) });
    for line in &outcome.story {
        println!("{line}");
    }
    println!("digest {:016x}", outcome.digest);
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("violation: {}", violation.what);
            ExitCode::FAILURE
        }
    }
}

fn show(shrunk: &Shrunk) {
    eprintln!("\nthe smallest world with this violation, seed {}:", shrunk.options.seed);
    for line in shrunk.story(150) {
        eprintln!("  {line}");
    }
    eprintln!("\nto replay: {}", shrunk.command());
}

/// Each thread takes the next seed until none is left. A run depends on its seed only, not on its thread.
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
                let outcome = run(&arguments.options(seed, without));
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
