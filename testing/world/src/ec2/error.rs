//! EC2's error codes, as EC2 spells them.

/// Declares the codes once: the variant is the first dotted part and the rest, `status` the HTTP status EC2 answers with.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal;)*) => {
        /// An error code of EC2's API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code the model knows.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The code as it stands in the answer.
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
    /// The zone has no such machine left. A 500, which the SDK would silently retry.
    InsufficientInstanceCapacity = "InsufficientInstanceCapacity", 500;
    /// No dedicated host has room.
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
    /// The account's limit of virtual CPUs.
    VcpuLimitExceeded = "VcpuLimitExceeded", 400;
    /// The account's limit of instances.
    InstanceLimitExceeded = "InstanceLimitExceeded", 400;
    /// The account's limit of spot requests.
    MaxSpotInstanceCountExceeded = "MaxSpotInstanceCountExceeded", 400;
    /// The account is being verified.
    PendingVerification = "PendingVerification", 400;
    /// A request or resource bucket is empty.
    RequestLimitExceeded = "RequestLimitExceeded", 503;
    /// The other spelling of a throttle.
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
    /// IAM refuses.
    UnauthorizedOperation = "UnauthorizedOperation", 403;
    /// A parameter's value makes no sense.
    InvalidParameterValue = "InvalidParameterValue", 400;
    /// Two parameters exclude each other.
    InvalidParameterCombination = "InvalidParameterCombination", 400;
    /// A parameter is missing.
    MissingParameter = "MissingParameter", 400;
    /// The account has not subscribed.
    OptInRequired = "OptInRequired", 401;
    /// The account is blocked.
    Blocked = "Blocked", 403;
    /// The client token was used with other parameters.
    IdempotentParameterMismatch = "IdempotentParameterMismatch", 400;
    /// An instance does not exist, or is not visible yet.
    InvalidInstanceIdNotFound = "InvalidInstanceID.NotFound", 400;
    /// That is not an instance id.
    InvalidInstanceIdMalformed = "InvalidInstanceID.Malformed", 400;
    /// A resource to tag does not exist.
    InvalidIdNotFound = "InvalidID", 400;
    /// The paging token is none of ours.
    InvalidNextToken = "InvalidNextToken", 400;
    /// The action is not one of EC2's, or not one the model has.
    InvalidAction = "InvalidAction", 400;
    /// The call would have succeeded, and was only a trial.
    DryRunOperation = "DryRunOperation", 412;
    /// EC2 broke.
    InternalError = "InternalError", 500;
    /// EC2 is not there.
    Unavailable = "Unavailable", 503;
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a call brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// EC2 answered with an error.
    #[error("{code}: {message}")]
    Refused {
        /// EC2's code.
        code: Code,
        /// Prose for people.
        message: String,
    },
    /// The caller gets no answer at all: the driver must drop the connection. Whether the call took effect is not known to
    /// the caller, and that is the point.
    #[error("the reply was lost")]
    NoReply,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
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
