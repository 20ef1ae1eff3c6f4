//! Every decision, as pure functions of what is stored, configured and observed.

pub mod budget;
pub mod decide;
pub mod due;
pub mod launch;
pub mod notify;
pub mod rerun;
pub mod route;
pub mod sweep;
mod view;

pub use view::PoolView;
