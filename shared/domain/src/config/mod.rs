//! The operator's configuration, and the prices of machines.

mod catalogue;
mod label;
mod market;
mod pool;
mod price;
mod shape;
mod timings;

pub use catalogue::{Catalogue, Machines, ObservedMachines, ObservedPrice, ObservedType, SpotPrices, TypeFacts};
pub use label::Label;
pub use market::{Market, MarketChoice, RootVolume, Tuple};
pub use pool::{LaunchOption, LaunchTemplate, Pool, Shapes};
pub use price::{MicroUsd, PRICES, Prices, Rates};
pub(crate) use shape::MIB;
pub use shape::{Architecture, Bounds, FamilyPattern, InvalidShape, LONGEST_LABEL, NotAllowed, Shape, ShapePolicy};
pub use timings::{Span, Timings};
