//! The root volumes that RunInstances calls ask for, which the model of EC2 does not have.

use std::collections::BTreeMap;

use world::ec2::{Code, Ec2, Failure, Instance, RunInstances, SubnetId};

use crate::ec2_form::{Form, number};

/// The root device of every image.
pub(crate) const ROOT_DEVICE: &str = "/dev/sda1";

/// The size of every image, in GiB. No root volume is smaller.
pub(crate) const IMAGE_GIB: u32 = 30;

/// The initialization rate of every launch template's root volume, in MiB per second.
pub(crate) const INITIALIZED_AT: u32 = 200;

/// A root volume in place of the one in the launch template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootVolume {
    /// Size in GiB.
    pub gib: u32,
    /// For example `gp3`.
    pub kind: Option<String>,
    /// Initialization rate in MiB per second.
    pub initialize_at: Option<u32>,
}

/// The initialization rates that EC2 accepts, in MiB per second.
const INITIALIZATION_RATES: std::ops::RangeInclusive<u32> = 100..=300;

/// What each launch asked for, by subnet and client token. None: the volume of the launch template.
#[derive(Debug, Default)]
pub struct RootVolumes {
    asked: BTreeMap<(SubnetId, String), Option<RootVolume>>,
}

impl RootVolumes {
    /// Records a call before the model executes it: a call whose answer is lost launches machines, too.
    ///
    /// # Errors
    /// The client token has launched machines with another root volume.
    pub(crate) fn record(
        &mut self,
        ec2: &Ec2,
        request: &RunInstances,
        volume: Option<RootVolume>,
    ) -> Result<(), Failure> {
        let Some(token) = &request.client_token else { return Ok(()) };
        let key = (request.subnet.clone(), token.clone());
        let is_of_call = |it: &Instance| it.subnet == request.subnet && it.client_token.as_ref() == Some(token);
        let differs = self.asked.get(&key).is_some_and(|before| *before != volume);
        if differs && ec2.instances().any(is_of_call) {
            return Err(Failure::new(
                Code::IdempotentParameterMismatch,
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            ));
        }
        self.asked.insert(key, volume);
        Ok(())
    }

    /// The root volume that the call which launched the machine asked for. None: that of the launch template.
    pub fn of(&self, instance: &Instance) -> Option<&RootVolume> {
        self.asked.get(&(instance.subnet.clone(), instance.client_token.clone()?))?.as_ref()
    }
}

/// The root volume in a RunInstances call.
pub(crate) fn requested(form: &Form) -> Result<Option<RootVolume>, Failure> {
    let field = |n: u32, name: &str| format!("BlockDeviceMapping.{n}.{name}");
    let mut mappings = (1..).map_while(|n| Some((n, form.get(&field(n, "DeviceName"))?)));
    let Some((n, device)) = mappings.next() else { return Ok(None) };
    let invalid = |message: String| Failure::Refused { code: Code::InvalidParameterValue, message };
    if device != ROOT_DEVICE || mappings.next().is_some() {
        return Err(invalid(format!("The sandbox has only one device, {ROOT_DEVICE}")));
    }
    // The policies of all roles require it for a volume that is not the launch template's.
    if form.get(&field(n, "Ebs.Encrypted")).is_none_or(|encrypted| encrypted != "true") {
        return Err(Failure::new(Code::UnauthorizedOperation, "the root volume is not encrypted"));
    }
    let gib = number(form, &field(n, "Ebs.VolumeSize"))?.unwrap_or(IMAGE_GIB);
    if gib < IMAGE_GIB {
        let message = format!("Volume of size {gib}GB is smaller than snapshot, expect size >= {IMAGE_GIB}GB");
        return Err(invalid(message));
    }
    let initialize_at = number(form, &field(n, "Ebs.VolumeInitializationRate"))?;
    if let Some(rate) = initialize_at.filter(|rate| !INITIALIZATION_RATES.contains(rate)) {
        return Err(invalid(format!("The volume initialization rate {rate} is not between 100 and 300")));
    }
    Ok(Some(RootVolume { gib, kind: form.get(&field(n, "Ebs.VolumeType")).cloned(), initialize_at }))
}
