//! The name of a backend, as its bridges keep it.

use crate::bridge::instance::InstanceName;
use crate::routing::InstanceId;

/// A backend that requests may stick to.
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) name: InstanceName,
}

impl Instance {
    pub(super) fn new(name: InstanceName) -> Instance {
        Instance { id: id_of(&name), name }
    }
}

/// What requests call an instance by.
pub(super) fn id_of(name: &InstanceName) -> InstanceId {
    InstanceId::new(name.digest())
}
