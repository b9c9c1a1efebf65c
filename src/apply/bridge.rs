//! The bridges of networks in the gateway. Each is made when the first box joins its network, and goes with the gateway, or with
//! its network.

use std::os::fd::AsFd;

use crate::error::{Context, Error, Result};
use crate::kernel::namespace;
use crate::kernel::nft::Batch;
use crate::plan::network::{self, Member, Network, bridge_name};
use crate::plan::network6;
use crate::plan::record::{Attachment, Bridge};
use crate::plan::ruleset::{self, Family};
use crate::plan::settings;
use crate::plan::topology::{FIRST_BRIDGE_INDEX, TABLE};
use crate::spec::name::BoxId;
use crate::spec::request::RunRequest;

use super::gateway::{self, Gateway};
use super::host::Host;
use super::lease::Lease;
use super::networks::Kept;
use super::state::Locked;
use super::{routed, seats, wiring};

/// Gives a box a place in each network that it is to be in, at a bridge that is there then. The caller holds the run lock.
///
/// # Errors
/// Those of making the bridge, and of [`seats::take`].
pub fn join(
    locked: &Locked<'_>,
    host: &mut Host,
    gateway: &mut Gateway,
    lease: &Lease,
    attachment: &mut Attachment,
    networks: &[Kept],
    request: &RunRequest,
) -> Result<()> {
    let topology = gateway.record.topology;
    for (Kept { network, .. }, (link, join)) in networks.iter().zip(request.joins()) {
        let ipv6 = network6::is_had(network, &topology, join.ip6, request.no_ipv6)?;
        let bridge = join_or_make(locked, host, gateway, network)?;
        let own = (lease.id, lease.slot, lease.name.as_ref());
        let seat = seats::take(locked, network, (link, &join, ipv6), own)?;
        attachment.networks.push(Member::new(network, &seat, &join, bridge, topology.mtu));
    }
    attachment.look_at_ipv6()
}

/// The index of a network's bridge, which is made where it is not there yet. The caller holds the run lock.
///
/// It is written down when it is whole: one that is not is made anew, and nobody has a port of it.
///
/// # Errors
/// When something of the host's is in the network's range; those of netlink.
pub fn join_or_make(
    locked: &Locked<'_>,
    host: &mut Host,
    gateway: &mut Gateway,
    network: &Network,
) -> Result<u32> {
    if let Some(bridge) = gateway.record.bridges.iter().find(|bridge| bridge.network == network.id) {
        return Ok(bridge.index);
    }
    let topology = gateway.record.topology;
    // Before the host is looked at: what is left of an attempt is netbox's own.
    routed::close(locked, host, gateway, network.id)?;
    network::check_usable(network, &crate::host::observe()?, &topology)?;
    routed::open(locked, host, gateway, network)?;
    let index =
        gateway.record.bridges.iter().map(|bridge| bridge.index + 1).max().unwrap_or(FIRST_BRIDGE_INDEX);
    let name = bridge_name(&network.id);
    gateway
        .route
        .remove_link(&name)
        .context(|| format!("cannot remove what is left of the bridge {name}"))?;
    let mut batch = Batch::new();
    if gateway.record.bridges.is_empty() {
        // Before there is a bridge, so that none is ever without them.
        batch.delete_table(Family::Bridge, TABLE);
        for table in ruleset::bridge() {
            batch.create_table(&table);
        }
    }
    if network.internal {
        batch.put_element(Family::Inet, TABLE, &ruleset::internal(&name));
    }
    gateway.nft.commit(batch).map_err(|error| match error.errno() {
        libc::EAFNOSUPPORT | libc::EOPNOTSUPP => Error::new(format!("cannot use network {}", network.name))
            .because("this kernel has no nftables for bridges (CONFIG_NF_TABLES_BRIDGE)"),
        _ => Error::from(error),
    })?;
    namespace::inside(gateway.network.as_fd(), host.network().as_fd(), || {
        wiring::set(&settings::of_bridges(), "in the gateway")
    })
    .context(|| "cannot enter the gateway")??;
    let wires = crate::plan::wiring::bridge(network, index, &topology);
    let requests = wiring::requests(&wires, index);
    wiring::pipeline(&mut gateway.route, &requests, "the gateway")?;
    gateway::rewrite(locked, gateway, |record| record.bridges.push(Bridge { network: network.id, index }))?;
    Ok(index)
}

/// To be called by who joined the gateway a while ago: others have made bridges since. The caller holds the run lock.
///
/// # Errors
/// When another gateway has taken its place.
pub fn look_again(locked: &Locked<'_>, gateway: &mut Gateway) -> Result<()> {
    gateway.record = gateway::newest(locked, &gateway.record)
        .ok_or_else(|| Error::new("cannot use the gateway").because("another one has taken its place"))?;
    Ok(())
}

/// Removes the bridge of a network that no box is in, if there is one. The caller holds the run lock. Waits 20 ms or more for RCU.
///
/// # Errors
/// Those of netlink.
pub fn remove(locked: &Locked<'_>, host: &mut Host, gateway: &mut Gateway, network: BoxId) -> Result<()> {
    if gateway.record.bridges.iter().any(|bridge| bridge.network == network) {
        // From here on nobody joins it: the next one makes it anew.
        gateway::rewrite(locked, gateway, |record| {
            record.bridges.retain(|bridge| bridge.network != network);
        })?;
    }
    routed::close(locked, host, gateway, network)?;
    // With those of other networks that no box is in: the next box of one makes its own again.
    seats::remove_directories(locked.root());
    // Somebody may have been killed just here.
    let name = bridge_name(&network);
    gateway.route.remove_link(&name).context(|| format!("cannot remove the bridge {name}"))?;
    let mut batch = Batch::new();
    batch.delete_element(Family::Inet, TABLE, &ruleset::internal(&name));
    gateway.nft.commit(batch).map_err(Error::from)
}
