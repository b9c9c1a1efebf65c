//! A box's link to the gateway, and its undo.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Error, Result};
use crate::kernel::nft::{Batch, NftError};
use crate::kernel::route::link;
use crate::plan;
use crate::plan::record::{Attachment, PortMap};
use crate::plan::ruleset::{self, Element, Family, PublishedPort};
use crate::plan::topology::{TABLE, Topology, box_link};
use crate::plan::wiring::LinkEnd;

use super::connections;
use super::gateway::Gateway;
use super::state::Locked;
use super::wiring;

/// Puts the veth between the gateway and the box's network namespace, with the box's end still down, and the box's
/// neighbour entries and routes into the gateway.
///
/// # Errors
/// Naming the step.
pub fn add_link(
    gateway: &mut Gateway,
    id: &str,
    attachment: &Attachment,
    end: LinkEnd,
    network: &OwnedFd,
) -> Result<()> {
    let slot = attachment.slot;
    let pair = plan::wiring::box_pair(id, slot, end);
    let wires = plan::wiring::to_box(attachment, id, end.mac);
    let mut requests = vec![link::add_veth(&wiring::veth(&pair, network.as_fd()))];
    requests.extend(wiring::requests(&wires, Topology::link_index(slot)));
    // All at once, before the box configures its end: two at work on links at a time wait for each other.
    wiring::pipeline(&mut gateway.route, &requests, "the gateway")
}

/// Lets what comes from the box's link, with the box's addresses, into the gateway. The link need not exist yet.
///
/// # Errors
/// Those of nf_tables.
pub fn let_in(_locked: &Locked<'_>, gateway: &mut Gateway, id: &str, attachment: &Attachment) -> Result<()> {
    // A dead box's element with the same key says the same: slots and ids are not used again while one is left.
    put(gateway, &gateway_elements(attachment, id, &[]))
}

/// Lets what is published in to the box, and other boxes to it by the host's addresses. The box's record names the
/// ports already: it is what a sweep goes by.
///
/// # Errors
/// Those of nf_tables and of ctnetlink.
pub fn open_ports(
    _locked: &Locked<'_>,
    gateway: &mut Gateway,
    attachment: &Attachment,
    ports: &[PortMap],
) -> Result<()> {
    put(gateway, &in_gateway(attachment, ports))?;
    connections::renew(&gateway.nft, ports)
}

fn put(gateway: &mut Gateway, elements: &[Element]) -> Result<()> {
    let mut batch = Batch::new();
    for element in elements {
        batch.put_element(Family::Inet, TABLE, element);
    }
    gateway.nft.commit(batch).map_err(Error::from)
}

/// Shuts the box out again.
///
/// # Errors
/// Those of nf_tables; elements that are gone are no error.
pub fn shut_out(
    _locked: &Locked<'_>,
    gateway: &mut Gateway,
    id: &str,
    slot: u32,
    ports: &[PortMap],
) -> Result<(), NftError> {
    let topology = gateway.record.topology;
    let mut batch = Batch::new();
    // A box without a network may have had a slot that the pool has not.
    if topology.has(slot) {
        // Whether it had an IPv6 address or not: deleting what is absent is no error.
        for element in gateway_elements(&Attachment::at_most(topology, slot), id, ports) {
            batch.delete_element(Family::Inet, TABLE, &element);
        }
    }
    // The kernel takes it out as well, some time after the last connection.
    batch.delete_element(Family::Inet, TABLE, &ruleset::conns(&box_link(id)));
    gateway.nft.commit(batch)
}

/// To be called when the box's end is up too: from here on packets reach the box.
///
/// # Errors
/// When the link is gone.
pub fn settle(gateway: &mut Gateway, slot: u32) -> Result<()> {
    let request = link::settle(Topology::link_index(slot));
    wiring::pipeline(&mut gateway.route, &[request], "the gateway")
}

/// The elements of the gateway's sets and maps for a box.
#[must_use]
pub fn gateway_elements(attachment: &Attachment, id: &str, ports: &[PortMap]) -> Vec<Element> {
    let Attachment { topology, slot, address6, .. } = *attachment;
    let (link, address) = (box_link(id), topology.box_address(slot));
    let mut elements = vec![ruleset::boxes4(&link, address), ruleset::reaches_itself(address.into())];
    if let Some(address) = address6 {
        elements.extend([ruleset::boxes6(&link, address), ruleset::reaches_itself(address.into())]);
    }
    elements.extend(in_gateway(attachment, ports));
    elements
}

/// The elements of the gateway's sets and maps for the ports of a box.
pub(super) fn in_gateway(attachment: &Attachment, ports: &[PortMap]) -> Vec<Element> {
    let ports = translated(attachment, ports);
    let mut elements = ruleset::translations(&ports);
    elements.extend(ruleset::admissions(&ports));
    elements
}

/// The elements of the host's maps for a box: its ports, and the address that it sends with.
#[must_use]
pub fn host_elements(attachment: &Attachment, ports: &[PortMap]) -> Vec<Element> {
    let Attachment { topology, slot, address6, snat } = *attachment;
    let mut elements = ruleset::translations(&translated(attachment, ports));
    if let Some(source) = snat {
        let own = [Some(IpAddr::V4(topology.box_address(slot))), address6.map(IpAddr::V6)];
        elements.extend(own.into_iter().flatten().find_map(|address| ruleset::leaves_as(address, source)));
    }
    elements
}

/// The ports that rules know: those on loopback are relayed only, and those over IPv6 to a box without it.
pub(super) fn translated(attachment: &Attachment, ports: &[PortMap]) -> Vec<PublishedPort> {
    let (address, address6) = (attachment.topology.box_address(attachment.slot), attachment.address6);
    let translated = ports.iter().filter(|port| !port.is_loopback_only()).filter_map(|port| {
        let target = if port.host_address.is_ipv4() { IpAddr::V4(address) } else { IpAddr::V6(address6?) };
        Some(PublishedPort {
            host_address: port.one_address(),
            protocol: port.protocol.number(),
            host_port: port.host_port,
            target: SocketAddr::new(target, port.box_port),
        })
    });
    translated.collect()
}
