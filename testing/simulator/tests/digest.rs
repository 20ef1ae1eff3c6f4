//! A run depends on its options only, and violates no invariant.

use simulator::swarm::{Options, run};

fn digest(seed: u64) -> u64 {
    let options = Options {
        seed,
        jobs: 40,
        without: Vec::new(),
        trace: false,
        outcomes_only: false,
        shapes: true,
        mistake: None,
    };
    let outcome = run(&options);
    assert_eq!(outcome.violation, None, "seed {seed}");
    outcome.digest
}

#[test]
fn the_same_seed_gives_the_same_run_on_any_thread() {
    for seed in 1..=5 {
        let elsewhere = std::thread::spawn(move || digest(seed)).join().expect("the thread does not panic");
        assert_eq!(digest(seed), elsewhere, "seed {seed}");
        assert_ne!(digest(seed), digest(seed + 100), "another seed gives another run");
    }
}
