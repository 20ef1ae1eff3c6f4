//! The operations of EC2's API.

/// The operations of EC2's API that the model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Launch.
    RunInstances,
    /// End.
    TerminateInstances,
    /// Look.
    DescribeInstances,
    /// Look at launch templates.
    DescribeLaunchTemplates,
    /// Look at their versions.
    DescribeLaunchTemplateVersions,
    /// Make a launch template.
    CreateLaunchTemplate,
    /// Look at subnets.
    DescribeSubnets,
    /// Look at images.
    DescribeImages,
    /// Tag an instance or a volume.
    CreateTags,
    /// Take tags away.
    DeleteTags,
    /// What a machine wrote to its console.
    GetConsoleOutput,
}

impl Operation {
    /// EC2's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::RunInstances => "RunInstances",
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
        }
    }
}
