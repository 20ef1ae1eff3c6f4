//! EC2's error codes.

/// Declares the codes, each with its name in the API and its HTTP status.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal;)*) => {
        /// An error code of EC2's API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code of the model.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// Its name in the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// The HTTP status of an answer with this code.
            pub fn status(self) -> u16 {
                match self { $(Code::$variant => $status,)* }
            }
        }
    };
}

codes! {
    /// The zone has no capacity for the type. The SDK retries the status 500 unless retries are off.
    InsufficientInstanceCapacity = "InsufficientInstanceCapacity", 500;
    /// No dedicated host has capacity.
    InsufficientHostCapacity = "InsufficientHostCapacity", 500;
    /// The reserved capacity is used up.
    InsufficientReservedInstanceCapacity = "InsufficientReservedInstanceCapacity", 500;
    /// The subnet has no address left.
    InsufficientFreeAddressesInSubnet = "InsufficientFreeAddressesInSubnet", 400;
    /// Spot cannot fulfil the request.
    UnfulfillableCapacity = "UnfulfillableCapacity", 500;
    /// The type is not offered in that zone.
    Unsupported = "Unsupported", 400;
    /// The maximal price is below the spot price.
    SpotMaxPriceTooLow = "SpotMaxPriceTooLow", 400;
    /// The capacity reservation is full.
    ReservationCapacityExceeded = "ReservationCapacityExceeded", 400;
    /// The account's quota of virtual CPUs is used up.
    VcpuLimitExceeded = "VcpuLimitExceeded", 400;
    /// The account's quota of instances is used up.
    InstanceLimitExceeded = "InstanceLimitExceeded", 400;
    /// The account's spot quota is used up.
    MaxSpotInstanceCountExceeded = "MaxSpotInstanceCountExceeded", 400;
    /// The account is being verified.
    PendingVerification = "PendingVerification", 400;
    /// A request or resource bucket is empty.
    RequestLimitExceeded = "RequestLimitExceeded", 503;
    /// Another code for throttling.
    Throttling = "Throttling", 400;
    /// The image does not exist.
    InvalidAmiIdNotFound = "InvalidAMIID.NotFound", 400;
    /// No launch template has this id.
    InvalidLaunchTemplateIdNotFound = "InvalidLaunchTemplateId.NotFound", 400;
    /// No launch template has this name.
    InvalidLaunchTemplateNameNotFound = "InvalidLaunchTemplateName.NotFoundException", 400;
    /// A launch template has this name already.
    InvalidLaunchTemplateNameAlreadyExists = "InvalidLaunchTemplateName.AlreadyExistsException", 400;
    /// The launch template has no such version.
    InvalidLaunchTemplateVersionNotFound = "InvalidLaunchTemplateId.VersionNotFound", 400;
    /// No subnet has this id.
    InvalidSubnetIdNotFound = "InvalidSubnetID.NotFound", 400;
    /// IAM does not allow the call.
    UnauthorizedOperation = "UnauthorizedOperation", 403;
    /// The value of a parameter is invalid.
    InvalidParameterValue = "InvalidParameterValue", 400;
    /// Two parameters exclude each other.
    InvalidParameterCombination = "InvalidParameterCombination", 400;
    /// A parameter is missing.
    MissingParameter = "MissingParameter", 400;
    /// The account has not subscribed to the image.
    OptInRequired = "OptInRequired", 401;
    /// The account is blocked.
    Blocked = "Blocked", 403;
    /// A tag policy of the organization does not allow the tags.
    TagPolicyViolation = "TagPolicyViolation", 400;
    /// The account lacks the service-linked role for spot instances.
    SpotRoleMissing = "AuthFailure.ServiceLinkedRoleCreationNotPermitted", 403;
    /// A code of the model that no list of Drover has.
    NeverSeen = "SomethingNewIn2031", 400;
    /// The instance is in a state in which it cannot be stopped or started.
    IncorrectInstanceState = "IncorrectInstanceState", 400;
    /// The instance does not support the operation: a spot instance of a one-time request cannot be stopped.
    UnsupportedOperation = "UnsupportedOperation", 400;
    /// The caller's temporary credentials have expired.
    RequestExpired = "RequestExpired", 400;
    /// The caller's credentials are not valid.
    AuthFailure = "AuthFailure", 401;
    /// The client token was used with other parameters.
    IdempotentParameterMismatch = "IdempotentParameterMismatch", 400;
    /// The client token was used for instances that have ended.
    IdempotentInstanceTerminated = "IdempotentInstanceTerminated", 400;
    /// An instance does not exist, or is not visible yet.
    InvalidInstanceIdNotFound = "InvalidInstanceID.NotFound", 400;
    /// The instance id is malformed.
    InvalidInstanceIdMalformed = "InvalidInstanceID.Malformed", 400;
    /// A resource to tag does not exist.
    InvalidIdNotFound = "InvalidID", 400;
    /// The paging token is invalid.
    InvalidNextToken = "InvalidNextToken", 400;
    /// EC2 or the model does not have this action.
    InvalidAction = "InvalidAction", 400;
    /// The dry run would have succeeded.
    DryRunOperation = "DryRunOperation", 412;
    /// EC2 failed internally.
    InternalError = "InternalError", 500;
    /// EC2 is unavailable.
    Unavailable = "Unavailable", 503;
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// EC2 answered with an error.
    #[error("{code}: {message}")]
    Refused { code: Code, message: String },
    /// The caller gets no answer, so the driver must drop the connection. The call may have taken effect.
    #[error("the reply was lost")]
    NoReply,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Failure::Refused { code, message: message.into() }
    }

    /// EC2's code, unless the reply was lost.
    pub fn code(&self) -> Option<Code> {
        match self {
            Failure::Refused { code, .. } => Some(*code),
            Failure::NoReply => None,
        }
    }
}
