//! The clients of AWS and GitHub. They implement the engine's ports. No other crate calls AWS or GitHub's API.
//!
//! **Architecture Invariant:** the clients make no decisions. An error says what is known about the effect of a call.
//!
//! Features keep each executable small: none for ingest (queue and secrets), `boot` for the agent, `control` for the scaler
//! and the janitor (table, EC2 and GitHub), `inspect` for `drover`.

pub mod aws;
#[cfg(any(feature = "boot", feature = "control"))]
mod batch_get;
#[cfg(feature = "boot")]
pub mod boot;
pub mod clock;
#[cfg(feature = "control")]
pub mod control;
#[cfg(feature = "control")]
pub mod ec2;
#[cfg(feature = "control")]
mod ec2_machines;
#[cfg(feature = "control")]
pub mod embedded_metrics;
pub mod environment;
#[cfg(feature = "control")]
pub mod github;
#[cfg(feature = "control")]
mod image;
pub mod ingest_metrics;
#[cfg(feature = "inspect")]
pub mod inspect;
mod network;
pub mod queue;
#[cfg(feature = "inspect")]
pub mod quotas;
#[cfg(any(feature = "boot", feature = "control"))]
pub mod reports;
pub mod secrets;
#[cfg(feature = "inspect")]
pub mod stack;
#[cfg(feature = "control")]
pub mod table;
pub mod telemetry;
pub mod workflow_job;
