//! The operator's configuration, and the prices of machines.

mod label;
mod market;
mod pool;
mod price;
mod timings;

pub use label::Label;
pub use market::{Market, MarketChoice, Tuple};
pub use pool::{LaunchTemplate, Pool};
pub use price::{MicroUsd, PRICES, Prices, Rates};
pub use timings::{Span, Timings};
