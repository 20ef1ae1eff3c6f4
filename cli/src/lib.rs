//! The commands of `drover`, the operator's command line. Each returns an [`output::Output`] or an [`output::Failure`].

pub mod apply;
pub mod cost;
pub mod dashboard;
pub mod dead_letters;
mod describe;
pub mod doctor;
pub mod events;
pub mod explain;
pub mod init;
pub mod jobs;
pub mod lint;
pub mod logs;
pub mod operate;
pub mod output;
mod permissions;
pub mod pool_example;
pub mod pool_file;
pub mod pools;
pub mod ps;
pub mod read;
pub mod replay;
pub mod runner_groups;
pub mod runners;
pub mod secrets;
pub mod status;
mod style;
mod web;
