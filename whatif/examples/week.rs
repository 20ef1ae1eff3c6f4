//! Writes a week of made-up jobs: `cargo run -p whatif --example week > examples/trace.jsonl.gz`.

#[path = "../tests/week/mod.rs"]
mod week;

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().lock().write_all(&week::file())
}
