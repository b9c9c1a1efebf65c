//! The rules of a box's published ports, changed while it runs.

use super::attach::{host_elements, in_gateway};
use super::state::Locked;
use super::{connections, heal, publish};
use crate::error::Result;
use crate::kernel::nft::Nft;
use crate::kernel::sock_diag::TcpConnections;
use crate::plan::ports::{Fate, difference};
use crate::plan::record::{Attachment, PortMap};
use crate::plan::ruleset::Element;
use crate::spec::port::Protocol;

/// From one set of ports to another, of which one has all that the other has. The box's record names both.
#[derive(Debug, Clone, Copy)]
pub struct PortChange<'a> {
    /// How the box is attached.
    pub attachment: &'a Attachment,
    /// What it has.
    pub old: &'a [PortMap],
    /// What it is to have.
    pub new: &'a [PortMap],
    /// What becomes of the connections of those that go.
    pub fate: Fate,
}

impl PortChange<'_> {
    /// Changes the rules, on the host and in the gateway, and ends the connections of ports that go. `inside`: the box's own. In the order in which ports
    /// are mapped at a box's start, or taken away at its end: at no moment does a port lead to what lets nobody in.
    ///
    /// # Errors
    /// Those of nf_tables and of ctnetlink, and whether what had been done is undone.
    pub fn carry_out(
        &self,
        locked: &Locked<'_>,
        host: &mut Nft,
        gateway: &mut Nft,
        inside: impl FnOnce() -> Result<TcpConnections>,
    ) -> Result<(), Failure> {
        let Self { attachment, old, new, .. } = *self;
        let in_gateway = difference(in_gateway(attachment, old), in_gateway(attachment, new));
        let on_host = difference(host_elements(attachment, old), host_elements(attachment, new));
        self.forward(locked, (&mut *host, &on_host), (&mut *gateway, &in_gateway), inside).map_err(|error| {
            // Neither stops the other.
            let undone = [
                heal::change_ports(locked, host, &on_host.1, &on_host.0).is_ok(),
                publish::change(locked, gateway, &in_gateway.1, &in_gateway.0).is_ok(),
            ];
            Failure { error, undone: undone == [true; 2] }
        })
    }

    fn forward(
        &self,
        locked: &Locked<'_>,
        (host, on_host): (&mut Nft, &Difference),
        (gateway, in_gateway): (&mut Nft, &Difference),
        inside: impl FnOnce() -> Result<TcpConnections>,
    ) -> Result<()> {
        let Self { attachment, old, new, fate } = *self;
        if new.len() >= old.len() {
            publish::change(locked, gateway, &in_gateway.0, &in_gateway.1)?;
            heal::change_ports(locked, host, &on_host.0, &on_host.1)?;
            let added: Vec<_> = new.iter().filter(|port| !old.contains(port)).copied().collect();
            connections::renew(gateway, &added)?;
            connections::renew(host, &added)
        } else {
            heal::change_ports(locked, host, &on_host.0, &on_host.1)?;
            publish::change(locked, gateway, &in_gateway.0, &in_gateway.1)?;
            let ends = |port: &&PortMap| fate == Fate::End || port.protocol != Protocol::Tcp;
            let removed: Vec<_> =
                old.iter().filter(|port| !new.contains(port)).filter(ends).copied().collect();
            if removed.is_empty() {
                return Ok(());
            }
            connections::cut(host, gateway, &mut inside()?, attachment, &removed)
        }
    }
}

/// What goes, and what comes.
type Difference = (Vec<Element>, Vec<Element>);

/// Why rules could not be changed.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: crate::error::Error,
    /// Whether everything is as before.
    pub undone: bool,
}
