//! What may happen next in a small world.

use world::LostReply;

/// What happens next. The numbers are those of functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// A function makes its next call. A launch takes two steps: the call and its answer.
    Step(u8),
    /// A scaler begins with the message at that place of the queue.
    Receive(u8, u8),
    /// A function ends.
    Crash(u8),
    /// A scaler launches and gets no answer.
    Lose(u8, LostReply),
    /// A scaler launches and gets no answer, and EC2 never shows the machines: only the client token reveals them.
    Hide(u8),
    /// A scaler launches and EC2 has no capacity.
    Refuse(u8),
    /// So much time passes that every lease expires and every invocation ends.
    Later,
    /// The next event of the world outside Drover.
    Happen,
}
