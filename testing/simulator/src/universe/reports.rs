//! The machines' side of the reports table.

use domain::state::{StoredReport, boot_key};
use world::ec2::InstanceId;

use crate::universe::state::{Machine, Reports};
use crate::universe::{ROLE, Universe};

/// IAM refuses the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied;

/// The longest text that DynamoDB stores in an item, about.
const LARGEST: usize = 400 * 1024;

impl Universe {
    /// A machine writes a report. It may write only under its own key, and DynamoDB refuses an item of more than 400 KB.
    ///
    /// # Errors
    /// If the write is refused.
    pub fn write_report(&self, machine: &InstanceId, key: &str, report: StoredReport) -> Result<(), Denied> {
        let length = [&report.reported_at, &report.usage].into_iter().flatten().map(String::len).sum::<usize>();
        if key != self.report_key(machine) || length > LARGEST {
            return Err(Denied);
        }
        self.store.report_boot(key, report);
        Ok(())
    }

    /// The key that a machine may write its report under.
    pub fn report_key(&self, machine: &InstanceId) -> String {
        boot_key(ROLE, &machine.as_str().into())
    }

    /// Whether the runner on the machine has a job.
    pub fn is_busy(&self, machine: &InstanceId) -> bool {
        matches!(self.state().machines.get(machine), Some(Machine::Busy(..)))
    }

    /// From now on the reports of machines reach the table, or do not.
    pub fn send_reports(&self, reports: Reports) {
        self.state().reports = reports;
    }
}
