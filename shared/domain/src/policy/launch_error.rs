//! The classes of RunInstances errors.

/// Class of an EC2 error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// EC2 has no capacity for the tuple now: try another one.
    Capacity,
    /// The account's quota is used up. Another zone does not help.
    Quota,
    /// EC2 limits the rate of calls: repeat the call later.
    Throttled,
    /// The launch cannot work as configured.
    Configuration,
    /// EC2 may have launched instances. Every code that is in no other class.
    Ambiguous,
}

impl ErrorClass {
    /// The class of an error code, from "Error codes for the Amazon EC2 API" in EC2's API reference.
    pub fn of(code: &str) -> Self {
        match code {
            "InsufficientInstanceCapacity"
            | "InsufficientHostCapacity"
            | "InsufficientReservedInstanceCapacity"
            | "InsufficientFreeAddressesInSubnet"
            | "InsufficientCapacity"
            | "UnfulfillableCapacity"
            | "Unsupported"
            | "SpotMaxPriceTooLow"
            | "ReservationCapacityExceeded" => ErrorClass::Capacity,
            "VcpuLimitExceeded" | "InstanceLimitExceeded" | "MaxSpotInstanceCountExceeded" | "PendingVerification" => {
                ErrorClass::Quota
            }
            "RequestLimitExceeded" => ErrorClass::Throttled,
            "UnauthorizedOperation"
            | "OptInRequired"
            | "Blocked"
            | "AuthFailure"
            | "MissingParameter"
            | "InvalidSubnetID.NotFound"
            | "InvalidGroup.NotFound"
            | "InvalidKeyPair.NotFound"
            | "InvalidUserData.Malformed" => ErrorClass::Configuration,
            _ if code.starts_with("Throttling") => ErrorClass::Throttled,
            _ if ["InvalidAMIID.", "InvalidLaunchTemplate", "InvalidParameter", "InvalidBlockDeviceMapping"]
                .iter()
                .any(|prefix| code.starts_with(prefix)) =>
            {
                ErrorClass::Configuration
            }
            _ => ErrorClass::Ambiguous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorClass;

    #[test]
    fn every_code_has_its_class_and_an_unknown_one_may_have_launched() {
        let classes = [
            (
                ErrorClass::Capacity,
                "InsufficientInstanceCapacity InsufficientHostCapacity \
                InsufficientReservedInstanceCapacity InsufficientFreeAddressesInSubnet UnfulfillableCapacity \
                Unsupported SpotMaxPriceTooLow ReservationCapacityExceeded",
            ),
            (
                ErrorClass::Quota,
                "VcpuLimitExceeded InstanceLimitExceeded MaxSpotInstanceCountExceeded PendingVerification",
            ),
            (ErrorClass::Throttled, "RequestLimitExceeded Throttling ThrottlingException"),
            (
                ErrorClass::Configuration,
                "InvalidAMIID.NotFound InvalidAMIID.Unavailable InvalidLaunchTemplateId.NotFound \
                InvalidLaunchTemplateName.NotFoundException InvalidLaunchTemplateId.VersionNotFound \
                UnauthorizedOperation InvalidParameterValue InvalidParameterCombination OptInRequired Blocked",
            ),
            (
                ErrorClass::Ambiguous,
                "InternalError Unavailable ServiceUnavailable IdempotentParameterMismatch TimedOut \
                NotSent SomethingNewIn2031",
            ),
        ];
        for (expected, codes) in classes {
            for code in codes.split_whitespace() {
                assert_eq!(ErrorClass::of(code), expected, "{code}");
            }
        }
    }
}
