//! The trace in `examples` is what the generator writes.

mod week;

use std::path::Path;

use whatif::trace::Trace;

#[test]
fn the_example_trace_is_what_its_generator_writes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/trace.jsonl.gz");
    let stored = Trace::read(std::fs::read(path).unwrap().as_slice()).unwrap();
    let again = "cargo run -p whatif --example week > examples/trace.jsonl.gz";
    assert!(stored == week::week(), "the generator has changed: {again}");
    // Another version of the library may compress in another way.
    assert_eq!(Trace::read(week::file().as_slice()).unwrap(), stored);
    assert!((3000..5000).contains(&stored.jobs.len()), "{} jobs", stored.jobs.len());
}
