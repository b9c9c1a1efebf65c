//! A box's link to the gateway, and its undo.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Error, Result};
use crate::kernel::nft::{Batch, NftError};
use crate::kernel::route::link::{self, LinkChange};
use crate::plan;
use crate::plan::network::Member;
use crate::plan::record::{Attachment, PortMap, Reached};
use crate::plan::ruleset::{self, Element, Family, PublishedPort};
use crate::plan::topology::{TABLE, Topology, box_link};
use crate::plan::wiring::LinkEnd;
use crate::spec::host_port::HostPortSpec;

use super::connections;
use super::gateway::Gateway;
use super::state::Locked;
use super::wiring;

/// Puts the veths between the gateway and the box's network namespace, with the box's ends still down, and the box's
/// neighbour entries and routes into the gateway.
///
/// # Errors
/// Naming the step.
pub fn add_links(
    gateway: &mut Gateway,
    id: &str,
    attachment: &Attachment,
    end: LinkEnd,
    network: &OwnedFd,
) -> Result<()> {
    let links = plan::wiring::to_box(id, attachment, end);
    let requests: Vec<_> =
        links.iter().flat_map(|(pair, wires)| wiring::link(pair, wires, network.as_fd())).collect();
    // All at once, before the box configures its ends: two at work on links at a time wait for each other.
    wiring::pipeline(&mut gateway.route, &requests, "the gateway")
}

/// Lets what comes from the box's link, with the box's addresses, into the gateway. The link need not exist yet.
///
/// # Errors
/// Those of nf_tables.
pub fn let_in(_locked: &Locked<'_>, gateway: &mut Gateway, id: &str, attachment: &Attachment) -> Result<()> {
    // A dead box's element with the same key says the same: slots and ids are not used again while one is left.
    let mut batch = Batch::new();
    for (family, element) in elements(attachment, id, &[]) {
        batch.put_element(family, TABLE, &element);
    }
    gateway.nft.commit(batch).map_err(Error::from)
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
    let mut batch = Batch::new();
    for element in in_gateway(attachment, ports) {
        batch.put_element(Family::Inet, TABLE, &element);
    }
    gateway.nft.commit(batch)?;
    connections::renew(&gateway.nft, ports)
}

/// Lets the box reach these ports of the host's. Its record names them already, as with the others.
///
/// # Errors
/// Those of nf_tables.
pub fn open_host_ports(
    _locked: &Locked<'_>,
    gateway: &mut Gateway,
    attachment: &Attachment,
    ports: &[HostPortSpec],
) -> Result<()> {
    let mut batch = Batch::new();
    for element in opened(attachment, ports) {
        batch.put_element(Family::Inet, TABLE, &element);
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
    networks: &[Member],
    ports: &[PortMap],
    host_ports: &[HostPortSpec],
) -> Result<(), NftError> {
    let topology = gateway.record.topology;
    let mut batch = Batch::new();
    let attachment = Attachment::at_most(topology, slot, networks.to_vec());
    // A box without a network may have had a slot that the pool has not.
    if topology.has(slot) {
        // Whether it had an IPv6 address or not: deleting what is absent is no error.
        for (family, element) in elements(&attachment, id, ports) {
            batch.delete_element(family, TABLE, &element);
        }
        for element in opened(&attachment, host_ports) {
            batch.delete_element(Family::Inet, TABLE, &element);
        }
    }
    // The kernel takes it out as well, some time after the last connection.
    for element in counts(&attachment, id) {
        batch.delete_element(Family::Inet, TABLE, &element);
    }
    gateway.nft.commit(batch)
}

/// Shuts a box that lives out of one of its networks.
///
/// # Errors
/// Those of nf_tables; elements that are gone are no error.
pub fn let_out(
    _locked: &Locked<'_>,
    gateway: &mut Gateway,
    id: &str,
    attachment: &Attachment,
    member: &Member,
) -> Result<(), NftError> {
    let networks = attachment.networks.iter().filter(|other| other.link != member.link);
    let left = Attachment { networks: networks.cloned().collect(), ..attachment.clone() };
    let stays: Vec<_> = elements(&left, id, &[]).collect();
    let mut batch = Batch::new();
    for (family, element) in elements(attachment, id, &[]).filter(|element| !stays.contains(element)) {
        batch.delete_element(family, TABLE, &element);
    }
    let count = ruleset::conns(&member.bridge_name(), Topology::mark(attachment.slot));
    batch.delete_element(Family::Inet, TABLE, &count);
    gateway.nft.commit(batch)
}

/// Has a link of the gateway's carry nothing any more.
///
/// # Errors
/// Those of RTM_SETLINK; one that is gone is no error.
pub fn shut_link(gateway: &mut Gateway, name: &str) -> io::Result<()> {
    let Some(own) = gateway.route.link_by_name(name)? else { return Ok(()) };
    let down = LinkChange { up: Some(false), ..LinkChange::default() };
    match gateway.route.set_link(own.index, &down) {
        // It went meanwhile.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// Has the gateway forget where in a network a box was: unlike its own link, the bridge stays.
///
/// # Errors
/// Those of RTM_DELNEIGH; one that is forgotten is no error.
pub fn leave(_locked: &Locked<'_>, gateway: &mut Gateway, member: &Member) -> io::Result<()> {
    let six = member.address6().filter(|_| gateway.record.topology.pool6().is_some());
    let removed = six.map_or(Ok(()), |six| gateway.route.remove_neighbour(member.bridge, six));
    gateway.route.remove_neighbour(member.bridge, member.address).and(removed)
}

/// To be called when the box's ends are up too: from here on packets reach the box.
///
/// # Errors
/// When a link is gone.
pub fn settle(gateway: &mut Gateway, attachment: &Attachment) -> Result<()> {
    let index = |link| Topology::link_index(attachment.slot, link);
    let requests: Vec<_> = attachment.links().map(|link| link::settle(index(link))).collect();
    wiring::pipeline(&mut gateway.route, &requests, "the gateway")
}

/// All that the gateway's sets and maps have of a box, each with the family of its table.
fn elements(attachment: &Attachment, id: &str, ports: &[PortMap]) -> impl Iterator<Item = (Family, Element)> {
    let of = |family| move |element| (family, element);
    let at_port = port_elements(attachment, id).into_iter().map(of(Family::Bridge));
    gateway_elements(attachment, id, ports).into_iter().map(of(Family::Inet)).chain(at_port)
}

/// The elements of the gateway's sets and maps for a box.
#[must_use]
pub fn gateway_elements(attachment: &Attachment, id: &str, ports: &[PortMap]) -> Vec<Element> {
    let (address, own_link) = (attachment.address(), box_link(id, 0));
    let way_out = attachment.way_out().map(Member::bridge_name);
    let resolver = Topology::resolver_address(attachment.slot);
    let mut elements = vec![
        ruleset::boxes4(way_out.as_ref().unwrap_or(&own_link), address),
        ruleset::asks(address, resolver),
    ];
    if way_out.is_some() {
        let (own, pool) = (attachment.inside(), attachment.outside());
        let six = own.ipv6.zip(pool.ipv6).map(|(own, pool)| (IpAddr::V6(own), IpAddr::V6(pool)));
        let both = [(IpAddr::V4(own.ipv4), IpAddr::V4(pool.ipv4))].into_iter().chain(six);
        elements.extend(both.filter_map(|(own, pool)| ruleset::known_outside_as(own, pool)).flatten());
        elements.push(ruleset::itself(address.into()));
    } else {
        elements.extend(attachment.address6.map(|address| ruleset::boxes6(&own_link, address)));
    }
    if attachment.links().count() > 1 {
        // Those that it is published at.
        elements.extend(attachment.addresses().into_iter().map(ruleset::several));
    }
    let others = attachment.networks.iter().filter(|member| member.link != 0);
    elements.extend(others.flat_map(|member| {
        [ruleset::boxes4(&member.bridge_name(), member.address), ruleset::itself(member.address.into())]
    }));
    // Where boxes have no way out over IPv6 the gateway takes none.
    let networks = attachment.networks.iter().filter(|_| attachment.topology.pool6().is_some());
    let six = |member: &Member| {
        let address = member.address6()?;
        Some([ruleset::boxes6(&member.bridge_name(), address), ruleset::itself(address.into())])
    };
    elements.extend(networks.filter_map(six).flatten());
    elements.extend(in_gateway(attachment, ports));
    elements
}

/// The elements of the gateway's sets for the host's ports that a box may reach.
#[must_use]
pub fn opened(attachment: &Attachment, ports: &[HostPortSpec]) -> Vec<Element> {
    let (address, resolver) = (attachment.address(), Topology::resolver_address(attachment.slot));
    ports.iter().map(|port| ruleset::opened(address, resolver, *port)).collect()
}

/// The elements of the bridges' table for a box; none where it is in no network.
#[must_use]
pub fn port_elements(attachment: &Attachment, id: &str) -> Vec<Element> {
    let mark = Topology::mark(attachment.slot);
    let of = |member: &Member| {
        let link = box_link(id, member.link);
        let mut elements = ruleset::port(&link, member.mac, member.address, mark);
        let reached = (!member.isolated).then_some(member.mac);
        // The bridge's own number tells it from others.
        let six = |address| ruleset::port6(&link, member.bridge, address, reached);
        elements.extend(member.address6().into_iter().flat_map(six));
        elements
    };
    attachment.networks.iter().flat_map(of).collect()
}

/// What the gateway counts of a box's connections.
fn counts(attachment: &Attachment, id: &str) -> Vec<Element> {
    let own = attachment.way_out().is_none().then(|| ruleset::conns(&box_link(id, 0), 0));
    let mark = Topology::mark(attachment.slot);
    let networks = attachment.networks.iter().map(|member| ruleset::conns(&member.bridge_name(), mark));
    own.into_iter().chain(networks).collect()
}

/// The elements of the gateway's sets and maps for the ports of a box.
pub(super) fn in_gateway(attachment: &Attachment, ports: &[PortMap]) -> Vec<Element> {
    let ports = translated(ports, attachment.inside());
    let mut elements = ruleset::translations(&ports);
    elements.extend(ruleset::admissions(&ports));
    elements
}

/// The elements of the host's maps for a box: its ports, and the address that it sends with.
#[must_use]
pub fn host_elements(attachment: &Attachment, ports: &[PortMap]) -> Vec<Element> {
    let reached = attachment.outside();
    let mut elements = ruleset::translations(&translated(ports, reached));
    if let Some(source) = attachment.snat {
        elements.extend(reached.like(source).and_then(|address| ruleset::leaves_as(address, source)));
    }
    elements
}

/// The ports that rules know: those on loopback are relayed only, and those over IPv6 to a box without it. `reached`: what leads
/// to the box from where the rules are.
pub(super) fn translated(ports: &[PortMap], reached: Reached) -> Vec<PublishedPort> {
    let translated = ports.iter().filter(|port| !port.is_loopback_only()).filter_map(|port| {
        let target = reached.like(port.host_address)?;
        Some(PublishedPort {
            host_address: port.one_address(),
            protocol: port.protocol.number(),
            host_port: port.host_port,
            target: SocketAddr::new(target, port.box_port),
        })
    });
    translated.collect()
}
