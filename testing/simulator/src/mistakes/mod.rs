//! Deliberate mistakes. An invariant must reveal each of them, which proves that the checks can fail.
//!
//! Most are made at the edge of the system under test, between the engine and the models: by ports that lose, change or
//! forge something, and by settings. The engine does not know about them. The few that change a decision are in
//! `mistakes.patch`, which `make mutants` applies to a copy of the source.

mod compute;
mod decisions;
mod github;
mod kinds;
mod ports;
mod settings;
mod store;

pub use decisions::is_included;
pub(crate) use decisions::{recorded, switch_to};
pub use kinds::Mistake;
pub(crate) use ports::{Memory, MistakenPorts};
pub(crate) use settings::settings;
