//! Models of EC2, GitHub and SQS: what Drover is judged by.
//!
//! A model is a synchronous state machine without clock, network or threads. Every method is told the time; randomness
//! comes from a seeded generator that the model owns; whatever happens *later* (a boot that finishes, a job that nobody
//! picked up, a webhook to send) is a due time inside the model. So one model has two drivers: the simulator calls it
//! directly in virtual time, the sandbox serves it over HTTP in real time, and both see the same world.
//!
//! **Architecture invariant:** nothing here knows Drover. The models share no type with the product, so that a wrong idea
//! in one cannot hide in the other.

mod agenda;
mod bucket;
pub mod ec2;
pub mod github;
pub mod sqs;

use jiff::Timestamp;

/// What a driver needs to let time pass in a model.
pub trait Model {
    /// What the model tells its driver.
    type Happening;

    /// When [`Model::advance`] has to be called next, if nothing else happens before. A time that is past means: now.
    fn next_due(&self) -> Option<Timestamp>;

    /// Lets everything happen that is due by `now`, in order, and says what the driver has to know of it.
    fn advance(&mut self, now: Timestamp) -> Vec<Self::Happening>;
}

/// An id made by the model: a string (`model_id!(Name)`) or a number (`model_id!(Name: u64)`).
macro_rules! model_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub String);

        impl $name {
            /// The id as the API writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.to_owned())
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

/// A caller that hears nothing: the fault every repeatable effect has to survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostReply {
    /// The call took effect.
    Applied,
    /// It did not.
    NotApplied,
}
