//! Models of EC2, GitHub and SQS, which tests compare Drover with.
//!
//! A model is a synchronous state machine without clock, network or threads. The time is an argument of every method,
//! randomness comes from the model's seeded generator, and what happens *later* (a boot, an assignment that times out, a
//! webhook) is a due time inside the model. So one model has two drivers: the simulator calls it in virtual time, and the
//! sandbox serves it over HTTP in real time.
//!
//! **Architecture Invariant:** the models do not know Drover. They share no type with the product, so that a mistake in one
//! cannot hide in the other.

mod agenda;
mod bucket;
pub mod ec2;
pub mod github;
pub mod sqs;

use jiff::Timestamp;

/// What a driver needs to let time pass in a model.
pub trait Model {
    /// What the driver has to act on.
    type Happening;

    /// When to call [`Model::advance`] next if nothing else happens before. A time in the past means now.
    fn next_due(&self) -> Option<Timestamp>;

    /// Performs everything that is due by `now`, in order, and returns what the driver has to act on.
    fn advance(&mut self, now: Timestamp) -> Vec<Self::Happening>;
}

/// An id made by the model: a string (`model_id!(Name)`) or a number (`model_id!(Name: u64)`).
macro_rules! model_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(smol_str::SmolStr);

        impl $name {
            /// The id as the API writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.into())
            }
        }
        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self(id.into())
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
    ($(#[$doc:meta])* $name:ident: u64) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}
use model_id;

/// A call whose reply is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostReply {
    /// The call took effect.
    Applied,
    /// The call did not take effect.
    NotApplied,
}
