//! The stack that a pool file is applied to.

use domain::ids::StackName;
use platform::ec2::Ec2;
use platform::github::GitHubApp;
use platform::inspect::Inspect;

/// The stack that a file is applied to.
#[derive(Debug)]
pub struct Installation<'a, S> {
    pub table: &'a S,
    pub ec2: &'a Ec2,
    pub inspect: &'a Inspect,
    pub github: Result<&'a GitHubApp, String>,
    pub stack: &'a StackName,
}
