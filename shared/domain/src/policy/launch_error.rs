//! The classes of EC2's answers to RunInstances that report no launch.

use crate::state::bounded;

/// What an answer other than a launch means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// EC2 has no capacity for the tuple now: try another one.
    Capacity,
    /// The account's quota is used up. Another zone does not help.
    Quota,
    /// EC2 limits the rate of calls: repeat the call later.
    Throttled,
    /// EC2 does not accept the caller's credentials or clock. This says nothing about the launch: repeat the call later.
    Caller,
    /// The client token was used before. Look the machines up; if there are none, use a new token.
    TokenUsed,
    /// EC2 launched nothing and would refuse the tuple again: try another one.
    Refusal,
    /// EC2 may have launched instances.
    Ambiguous,
}

impl ErrorClass {
    /// The class of an answer with this HTTP status and EC2 error code; None if the body has no EC2 code.
    ///
    /// The codes are those of "Error codes for the Amazon EC2 API" in EC2's API reference. A complete 4xx answer means that
    /// this call launched nothing, whatever its code.
    pub fn of(status: u16, code: Option<&str>) -> Self {
        let Some(code) = code else {
            return if status == TOO_MANY_REQUESTS { ErrorClass::Throttled } else { ErrorClass::Ambiguous };
        };
        if status == TOO_MANY_REQUESTS || is_throttling(code) {
            return ErrorClass::Throttled;
        }
        // EC2 reports most lacks of capacity with 500.
        if is_lack_of_capacity(code) {
            return ErrorClass::Capacity;
        }
        if !(400..500).contains(&status) || status == REQUEST_TIMEOUT {
            return ErrorClass::Ambiguous;
        }
        match code {
            _ if is_quota(code) => ErrorClass::Quota,
            "IdempotentParameterMismatch" | "IdempotentInstanceTerminated" => ErrorClass::TokenUsed,
            _ if is_about_caller(code) => ErrorClass::Caller,
            _ => ErrorClass::Refusal,
        }
    }

    /// Whether no machine exists because of the call. Another call with its token may have launched some.
    pub fn launched_nothing(self) -> bool {
        !matches!(self, ErrorClass::Ambiguous | ErrorClass::TokenUsed)
    }

    /// Whether the answer says that EC2 would not launch the tuple now. Otherwise the same call may succeed later.
    pub fn is_refusal(self) -> bool {
        !matches!(self, ErrorClass::Ambiguous | ErrorClass::Throttled | ErrorClass::Caller)
    }
}

const TOO_MANY_REQUESTS: u16 = 429;
const REQUEST_TIMEOUT: u16 = 408;

/// EC2's code for a type that a zone has none of at present.
pub const LACK_OF_CAPACITY: &str = "InsufficientInstanceCapacity";

/// Stands for EC2's error code if it has answered none of several calls.
pub const NO_ANSWER: &str = "NoAnswer";

/// Whether the code is about a type in a zone at present, and not about what Drover asks for.
pub(super) fn is_about_zone(code: &str) -> bool {
    is_lack_of_capacity(code) || code == NO_ANSWER
}

/// Whether the code says that EC2 has no capacity for a tuple now.
pub fn is_lack_of_capacity(code: &str) -> bool {
    matches!(
        code,
        LACK_OF_CAPACITY
            | "InsufficientHostCapacity"
            | "InsufficientReservedInstanceCapacity"
            | "InsufficientFreeAddressesInSubnet"
            | "InsufficientCapacity"
            | "UnfulfillableCapacity"
            | "Unsupported"
            | "SpotMaxPriceTooLow"
            | "ReservationCapacityExceeded"
    )
}

fn is_quota(code: &str) -> bool {
    matches!(
        code,
        "VcpuLimitExceeded"
            | "InstanceLimitExceeded"
            | "MaxSpotInstanceCountExceeded"
            | "PendingVerification"
            | "ResourceCountLimitExceeded"
    )
}

/// Whether an error code of EC2 means that the rate of calls is too high.
pub fn is_throttling(code: &str) -> bool {
    let begins = ["Throttling", "RequestThrottled", "TooManyRequests"];
    matches!(code, "RequestLimitExceeded" | "EC2ThrottledException" | "SlowDown")
        || begins.iter().any(|begin| code.starts_with(begin))
}

/// `AuthFailure.*` is about what the launch needs, and a refusal of the tuple.
fn is_about_caller(code: &str) -> bool {
    let begins = ["ExpiredToken", "UnrecognizedClient"];
    matches!(
        code,
        "RequestExpired"
            | "RequestTimeTooSkewed"
            | "InvalidClientTokenId"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "AuthFailure"
    ) || begins.iter().any(|begin| code.starts_with(begin))
}

/// What an error code of RunInstances means for somebody who waits for a machine.
pub fn in_plain_words(code: &str) -> &'static str {
    if is_lack_of_capacity(code) {
        return "EC2 has no such machine at present";
    }
    if code == NO_ANSWER {
        return "EC2 does not answer";
    }
    if is_throttling(code) {
        return "EC2 limits the rate of calls";
    }
    if is_quota(code) {
        return "the account's quota is used up";
    }
    if is_about_caller(code) {
        return "EC2 does not accept Drover's credentials";
    }
    if code == "UnauthorizedOperation" || code.starts_with("AuthFailure.") {
        return "Drover is not allowed to launch it";
    }
    "the launch did not succeed"
}

/// Why RunInstances is not known to have launched anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct LaunchError {
    pub class: ErrorClass,
    /// EC2's error code, or a name for a call without a complete answer.
    pub code: String,
    /// EC2's message, bounded.
    pub message: String,
}

impl LaunchError {
    /// EC2 answered with this HTTP status and, unless the body is not EC2's, with this code.
    pub fn answered(status: u16, code: Option<&str>, message: &str) -> Self {
        let name = code.map_or_else(|| format!("HTTP {status}"), str::to_owned);
        Self { class: ErrorClass::of(status, code), code: name, message: bounded(message) }
    }

    /// No complete answer arrived. `name` is used like an error code.
    pub fn unanswered(name: &str, message: &str) -> Self {
        Self { class: ErrorClass::Ambiguous, code: name.to_owned(), message: bounded(message) }
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorClass, LaunchError};

    #[test]
    fn every_answer_has_its_class_and_a_complete_4xx_launched_nothing() {
        let classes = [
            (
                ErrorClass::Capacity,
                "InsufficientInstanceCapacity/500 InsufficientHostCapacity/500 InsufficientFreeAddressesInSubnet/400 \
                InsufficientReservedInstanceCapacity/500 UnfulfillableCapacity/500 Unsupported/400 \
                SpotMaxPriceTooLow/400 ReservationCapacityExceeded/400",
            ),
            (
                ErrorClass::Quota,
                "VcpuLimitExceeded/400 InstanceLimitExceeded/400 MaxSpotInstanceCountExceeded/400 \
                PendingVerification/400 ResourceCountLimitExceeded/400",
            ),
            (
                ErrorClass::Throttled,
                "RequestLimitExceeded/503 Throttling/400 ThrottlingException/400 EC2ThrottledException/400 \
                RequestThrottled/400 RequestThrottledException/503 TooManyRequestsException/429 SlowDown/503 \
                SomethingNewIn2031/429",
            ),
            (
                ErrorClass::Caller,
                "RequestExpired/400 RequestTimeTooSkewed/403 ExpiredToken/400 ExpiredTokenException/400 \
                InvalidClientTokenId/403 UnrecognizedClientException/400 SignatureDoesNotMatch/403 \
                IncompleteSignature/400 AuthFailure/401",
            ),
            (ErrorClass::TokenUsed, "IdempotentParameterMismatch/400 IdempotentInstanceTerminated/400"),
            (
                ErrorClass::Refusal,
                "UnauthorizedOperation/403 AuthFailure.ServiceLinkedRoleCreationNotPermitted/403 \
                TagPolicyViolation/400 InvalidAMIID.NotFound/400 InvalidLaunchTemplateId.VersionNotFound/400 \
                InvalidParameterValue/400 OptInRequired/401 Blocked/403 SomethingNewIn2031/400",
            ),
            (
                ErrorClass::Ambiguous,
                "InternalError/500 Unavailable/503 SomethingNewIn2031/502 RequestTimeout/408 UnauthorizedOperation/500 \
                VcpuLimitExceeded/500 IdempotentParameterMismatch/302",
            ),
        ];
        for (expected, answers) in classes {
            for answer in answers.split_whitespace() {
                let (code, status) = answer.split_once('/').expect("a code and a status");
                let status = status.parse().expect("a status");
                assert_eq!(ErrorClass::of(status, Some(code)), expected, "{answer}");
            }
        }
        for status in [200, 302, 400, 403, 404, 408, 500, 502] {
            assert_eq!(ErrorClass::of(status, None), ErrorClass::Ambiguous, "{status} without a code");
        }
        assert_eq!(ErrorClass::of(429, None), ErrorClass::Throttled);
    }

    #[test]
    fn a_message_is_kept_up_to_500_bytes() {
        let error = LaunchError::answered(403, Some("UnauthorizedOperation"), &"ä".repeat(400));
        assert_eq!((error.message.len(), error.class), (500, ErrorClass::Refusal));
        assert_eq!(LaunchError::answered(502, None, "").code, "HTTP 502");
    }
}
