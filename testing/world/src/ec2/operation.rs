//! The operations of EC2's API.

/// An operation of EC2's API that the model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    RunInstances,
    StopInstances,
    StartInstances,
    TerminateInstances,
    DescribeInstances,
    DescribeLaunchTemplates,
    DescribeLaunchTemplateVersions,
    CreateLaunchTemplate,
    DescribeSubnets,
    DescribeImages,
    CreateTags,
    DeleteTags,
    GetConsoleOutput,
    DescribeInstanceTypes,
    DescribeInstanceTypeOfferings,
    DescribeSpotPriceHistory,
}

impl Operation {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::RunInstances => "RunInstances",
            Operation::StopInstances => "StopInstances",
            Operation::StartInstances => "StartInstances",
            Operation::TerminateInstances => "TerminateInstances",
            Operation::DescribeInstances => "DescribeInstances",
            Operation::DescribeLaunchTemplates => "DescribeLaunchTemplates",
            Operation::DescribeLaunchTemplateVersions => "DescribeLaunchTemplateVersions",
            Operation::CreateLaunchTemplate => "CreateLaunchTemplate",
            Operation::DescribeSubnets => "DescribeSubnets",
            Operation::DescribeImages => "DescribeImages",
            Operation::CreateTags => "CreateTags",
            Operation::DeleteTags => "DeleteTags",
            Operation::GetConsoleOutput => "GetConsoleOutput",
            Operation::DescribeInstanceTypes => "DescribeInstanceTypes",
            Operation::DescribeInstanceTypeOfferings => "DescribeInstanceTypeOfferings",
            Operation::DescribeSpotPriceHistory => "DescribeSpotPriceHistory",
        }
    }
}
