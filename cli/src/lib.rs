//! `drover`, the operator's command.

pub mod apply;
pub mod dead_letters;
pub mod doctor;
pub mod explain;
pub mod fence;
pub mod output;
pub mod pool_file;
pub mod ps;
mod story;
