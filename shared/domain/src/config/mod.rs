//! The operator's configuration, and the prices of machines.

mod architecture;
mod catalogue;
mod label;
mod market;
mod pool;
mod price;
mod quota;
mod schedule;
mod shape;
mod timings;

pub use architecture::Architecture;
pub use catalogue::{Catalogue, Machines, ObservedMachines, ObservedPrice, ObservedType, SpotPrices, TypeFacts};
pub use label::Label;
pub use market::{Market, MarketChoice, Order, RootVolume, Tuple};
pub use pool::{LaunchOption, LaunchTemplate, Pool, Shapes};
pub use price::{MicroUsd, PRICES, Prices, Rates};
pub use quota::{QuotaFamily, share_quota};
pub(crate) use schedule::is_zero;
pub use schedule::{Day, Period, Schedule, TimeOfDay, TimeZoneName};
pub(crate) use shape::MIB;
pub use shape::{Bounds, FamilyPattern, InvalidShape, LONGEST_LABEL, NotAllowed, Shape, ShapePolicy};
pub use timings::{Span, Timings};
