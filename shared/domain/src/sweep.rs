//! What the world got wrong, from three witnesses: EC2, GitHub and the table.

/// An instance's state, as EC2 says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "EC2's words")]
pub enum MachineState {
    Pending,
    Running,
    Stopping,
    Stopped,
    ShuttingDown,
    Terminated,
}

impl MachineState {
    /// Whether it still costs money or can run a job: pending to stopped.
    pub fn is_live(self) -> bool {
        match self {
            MachineState::Pending
            | MachineState::Running
            | MachineState::Stopping
            | MachineState::Stopped => true,
            MachineState::ShuttingDown | MachineState::Terminated => false,
        }
    }
}
