//! The only code that names AWS or GitHub's API: the engine's ports on the real world.
//!
//! **Architecture Invariant:** nothing here decides. A failure says what is known of the effect, in the words of the port.
//!
//! Features keep each executable small: none for ingest (queue and secrets), `boot` for the agent, `control` for whoever
//! needs the table, EC2 and GitHub, `inspect` for the operator's command.

pub mod aws;
#[cfg(feature = "boot")]
pub mod boot;
pub mod clock;
#[cfg(feature = "control")]
pub mod control;
#[cfg(feature = "control")]
pub mod ec2;
#[cfg(feature = "control")]
pub mod embedded_metrics;
pub mod environment;
#[cfg(feature = "control")]
pub mod github;
#[cfg(feature = "control")]
mod image;
#[cfg(feature = "inspect")]
pub mod inspect;
pub mod queue;
pub mod secrets;
#[cfg(feature = "control")]
pub mod table;
pub mod telemetry;
pub mod workflow_job;
