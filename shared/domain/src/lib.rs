//! The pure core of Drover: what is known, and what follows from it.
//!
//! **Architecture Invariant:** nothing here reads a clock, an environment variable or a random number, and nothing is
//! async or does I/O. Time comes in as an argument, effects go out as data. Whoever runs this code (a Lambda, the
//! simulator, a test) decides what "now" is and obeys the effects.
//!
//! Reading order: [`ids`] names things, [`pool`] says what an operator wants, [`notice`] what GitHub said, [`job`] and
//! [`slot`] what is true, [`item`] how that is kept, [`decide`] what to do about it, [`due`] what is still owed,
//! [`telling`] and [`rerun`] what a job's author is told and spared, [`sweep`] what the world got wrong.

pub mod boot;
pub mod decide;
pub mod due;
pub mod event;
pub mod ids;
pub mod item;
pub mod job;
pub mod launch;
pub mod mutant;
pub mod notice;
pub mod pool;
pub mod price;
pub mod rerun;
pub mod slot;
pub mod sweep;
pub mod telling;
pub mod transaction;
pub mod view;
