//! A box that lives, as its keeper changes it when another netbox command asks for that.

use std::cell::RefCell;

use crate::apply::gateway::Gateway;
use crate::apply::host::Host;
use crate::apply::lease::Lease;
use crate::apply::names::MemberNames;
use crate::apply::state::State;
use crate::plan::record::{Attachment, BoxRecord};
use crate::serve::relay::Waiting;

use super::first_process::FirstProcess;

/// What it takes to change its ports ([`super::ports`]) and its networks ([`super::networks`]).
#[derive(Debug)]
pub struct Living<'a> {
    /// The state directory.
    pub state: &'a mut State,
    /// The host.
    pub host: &'a mut Host,
    /// The gateway.
    pub gateway: &'a mut Gateway,
    /// What the box holds in the state directory.
    pub lease: &'a Lease,
    /// The box's first process.
    pub first: &'a FirstProcess,
    /// How the box is attached.
    pub attachment: &'a mut Attachment,
    /// What is written down of the box.
    pub record: &'a mut BoxRecord,
    /// What holds its ports.
    pub waiting: &'a Waiting,
    /// Whether it is to have no IPv6 (`--no-ipv6`).
    pub no_ipv6: bool,
    /// What its resolver knows of networks.
    pub members: &'a RefCell<Vec<MemberNames>>,
}
