//! Drover on one machine, without an account: the real executables against an emulated AWS, a model of GitHub and Lambda's
//! Runtime API, over HTTP on loopback.
//!
//! Real are the executables of ingest, scaler, janitor, agent and `drover`, each a process with an environment of its own,
//! and the AWS SDKs. Emulated are DynamoDB's conditions and transactions (`dynoxide`) and the Runtime API
//! (`lambda-simulator`). EC2, GitHub and SQS are models from the crate `world`, which the simulator uses, too. AWS request
//! signatures are not verified, but the access key identifies the caller, and its permissions are enforced. DynamoDB's TTL
//! is missing.
//!
//! Reading order: [`sandbox`] starts everything, [`state`] contains the models and advances their time, [`aws`], [`ec2`]
//! and [`github`] serve them over HTTP, [`permissions`] restricts the callers, [`events`] are EC2's events, [`machine`]
//! boots instances, [`lambda`] runs functions, [`deliveries`] sends webhooks, [`proxy`] stands between them if a test wants
//! it. [`demo`] is `make demo`, and [`chaos`] is `make chaos`.
//! Its machines are [`bare`], and each service is behind a [`door`].

pub mod aws;
pub mod bare;
pub mod calls;
pub mod chaos;
pub mod deliveries;
pub mod demo;
pub mod door;
pub mod ec2;
mod ec2_form;
mod ec2_machines;
pub mod events;
pub mod github;
pub mod interruption;
pub mod lambda;
pub mod machine;
pub mod names;
pub mod pace;
pub mod permissions;
pub mod proxy;
mod quotas;
pub mod root_volumes;
pub mod sandbox;
pub mod short_timings;
pub mod state;

/// The emulators allocate much. With the system's allocator, two fifths of the time of a long run went into it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
