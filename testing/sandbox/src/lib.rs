//! Drover on one machine, without an account: the real executables against an emulated AWS, a model of GitHub and Lambda's
//! Runtime API, over HTTP on loopback.
//!
//! What is real: ingest, scaler, janitor, agent and `drover`, unmodified, each a process with nothing but its environment;
//! the AWS SDKs; DynamoDB's conditions and transactions (`dynoxide`); the Runtime API (`lambda-simulator`). What is a
//! model: EC2, GitHub and SQS, from the crate `world`, which the simulator uses too. What is left out: request signatures
//! of AWS (who calls is read from the access key, and what he may do is checked), and DynamoDB's TTL.
//!
//! Reading order: [`sandbox`] puts everything together, [`state`] is the world and lets its time pass, [`aws`], [`ec2`] and
//! [`github`] put it on the wire, [`events`] is what EC2 tells unasked, [`machine`] is what happens when an instance boots, [`lambda`] how functions are run,
//! [`deliveries`] how GitHub tells. [`demo`] is `make demo`.

pub mod aws;
pub mod calls;
pub mod deliveries;
pub mod demo;
pub mod ec2;
pub mod events;
pub mod github;
pub mod lambda;
pub mod machine;
pub mod names;
pub mod permissions;
pub mod sandbox;
pub mod short_timings;
pub mod state;
