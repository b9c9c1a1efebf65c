//! What the host has because of networks that other machines reach without translation: made with a network's bridge, and gone
//! with it or with the gateway.

use std::io;

use ipnet::IpNet;

use crate::error::{Context, Error, Result};
use crate::kernel::nft::Batch;
use crate::kernel::route::{PROTOCOL, Route};
use crate::plan::network::Network;
use crate::plan::record::GatewayRecord;
use crate::plan::routed::Routed;
use crate::plan::routing;
use crate::plan::ruleset::{Element, Family};
use crate::plan::topology::{TABLE, Topology};
use crate::spec::name::BoxId;

use super::census::census;
use super::gateway::{self, Gateway};
use super::host::Host;
use super::state::Locked;
use super::{heal, wiring};

/// Lets other machines reach a network, and its boxes them, where that was asked for. The network's bridge need not be there yet.
/// The caller holds the run lock.
///
/// # Errors
/// A route of somebody else's that is in the way, a next hop that no link leads to, those of netlink. Then nothing is left.
pub(super) fn open(
    locked: &Locked<'_>,
    host: &mut Host,
    gateway: &mut Gateway,
    network: &Network,
) -> Result<()> {
    let Some(routed) = Routed::of(network) else { return Ok(()) };
    // Somebody may have been killed at this.
    close(locked, host, gateway, network.id)?;
    let mut route = Route::open().context(|| "cannot open netlink")?;
    check_free(&mut route, &routed, network)?;
    gateway::rewrite(locked, gateway, |record| record.routed.push(routed.clone()))?;
    make(locked, host, gateway, &mut route, &routed).map_err(|error| {
        let error = match error.errno() {
            Some(libc::ENETUNREACH) if !routed.routes.is_empty() => {
                error.hint(format!("`netbox network inspect {}` shows its next hops", network.name))
            }
            _ => error,
        };
        match close(locked, host, gateway, network.id) {
            Ok(()) => error,
            Err(problem) => error.hint(format!("not all could be undone: {problem}")),
        }
    })
}

/// Refuses to come between the host and a route that it has to the same place, be it a better one or a worse.
fn check_free(route: &mut Route, routed: &Routed, network: &Network) -> Result<()> {
    if routed.routes.is_empty() {
        return Ok(());
    }
    let all = route.main_routes().context(|| "cannot list the routes")?;
    for own in &routed.routes {
        let is_same = |destination: IpNet| destination == IpNet::V4(own.destination);
        let same = all.iter().find(|one| is_same(one.destination) && one.protocol != PROTOCOL);
        if let Some(same) = same {
            let via = same.via.map_or_else(String::new, |via| format!(" by way of {via}"));
            return Err(Error::new(format!("cannot use network {} with --route {own}", network.name))
                .because(format!("the host has a route of its own to {}{via}", own.destination))
                .hint(format!(
                    "remove it (`ip route del {}`), or create the network without that --route",
                    own.destination
                )));
        }
    }
    Ok(())
}

fn make(
    locked: &Locked<'_>,
    host: &mut Host,
    gateway: &mut Gateway,
    route: &mut Route,
    routed: &Routed,
) -> Result<()> {
    let record = &gateway.record;
    let name = record.topology.host_link();
    let link = route.link_index(&name).context(|| format!("cannot find the link {name}"))?;
    let wires = routed.wires(&record.topology, &others(record, routed.network));
    wiring::pipeline(route, &wiring::requests(&wires, link), "the host")?;
    gateway.nft.commit(elements(routed, Batch::put_element))?;
    // Last: from here on something passes.
    let nft = host.nft(locked, &census(locked.slots()))?;
    heal::put(locked, nft, &routed.elements())
}

/// Undoes all of that for the network with this id, if there is anything. Where the gateway lives. The caller holds the run lock.
///
/// # Errors
/// Those of netlink.
pub(super) fn close(
    locked: &Locked<'_>,
    host: &mut Host,
    gateway: &mut Gateway,
    network: BoxId,
) -> Result<()> {
    let record = gateway::newest(locked, &gateway.record).unwrap_or_else(|| gateway.record.clone());
    let all: Vec<_> = record.routed.iter().filter(|one| one.network == network).cloned().collect();
    if all.is_empty() {
        return Ok(());
    }
    let mut route = Route::open().context(|| "cannot open netlink")?;
    for routed in &all {
        let nft = host.nft(locked, &census(locked.slots()))?;
        match nft.commit(elements(routed, Batch::delete_element)) {
            // Somebody flushed the tables.
            Err(error) if error.errno() != libc::ENOENT => return Err(error.into()),
            _ => {}
        }
        gateway.nft.commit(elements(routed, Batch::delete_element))?;
        let keep: Vec<_> = others(&record, network).iter().flat_map(Routed::routes_outward).collect();
        for (what, removed) in remove_routing(&mut route, &record.topology, routed, &keep) {
            removed.context(|| what)?;
        }
    }
    gateway::rewrite(locked, gateway, |record| record.routed.retain(|one| one.network != network))
}

/// Undoes what was begun for networks whose bridge was never finished: who was at it is dead. The caller holds the run lock.
///
/// # Errors
/// As [`close`].
pub(super) fn close_unfinished(locked: &Locked<'_>, host: &mut Host, gateway: &mut Gateway) -> Result<()> {
    let record = &gateway.record;
    let unfinished: Vec<_> =
        record.routed.iter().filter(|one| !is_finished(record, one)).map(|one| one.network).collect();
    unfinished.into_iter().try_for_each(|network| close(locked, host, gateway, network))
}

/// Puts back what somebody took away of the host's routes and rules for networks, and says what that was. `link`: the index of the
/// host's end. A network without a bridge nobody uses yet.
///
/// # Errors
/// Those of netlink.
pub(super) fn put_back(route: &mut Route, record: &GatewayRecord, link: u32) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for routed in record.routed.iter().filter(|one| is_finished(record, one)) {
        for rule in routed.rules() {
            let added = heal::is_new(route.add_rule(&wiring::rule_spec(&rule)));
            if added.context(|| format!("cannot add the routing rule {rule}"))? {
                done.push(format!("added the routing rule {rule}"));
            }
        }
        for one in routed.routes_inward(&record.topology).into_iter().chain(routed.routes_outward()) {
            match heal::is_new(route.add_route(&wiring::route_spec(&one, link))) {
                Ok(true) => done.push(format!("added the route {one}")),
                Ok(false) => {}
                // The link to the next hop is down, and will be heard of when it is up.
                Err(error)
                    if one.dev.is_none()
                        && matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::ENETDOWN)) => {}
                Err(error) => return Err(error).context(|| format!("cannot add the route {one}")),
            }
        }
    }
    Ok(done)
}

fn is_finished(record: &GatewayRecord, routed: &Routed) -> bool {
    record.bridges.iter().any(|bridge| bridge.network == routed.network)
}

/// Removes routes and rules of a network from the host, but the routes to `keep`. Says of each what could not be done, or that it
/// was; one that is gone is no error.
pub(super) fn remove_routing(
    route: &mut Route,
    topology: &Topology,
    routed: &Routed,
    keep: &[routing::Route],
) -> Vec<(String, io::Result<()>)> {
    let outward = routed.routes_outward().into_iter().filter(|one| !keep.contains(one));
    let mut done = Vec::new();
    for one in outward.chain(routed.routes_inward(topology)) {
        // Named without netbox's link, whose index nobody knows any more.
        let via = one.via.filter(|_| one.dev.is_none());
        let named = routing::Route { dev: None, via, ..one.clone() };
        let removed = route.remove_route(&wiring::route_spec(&named, 0));
        done.push((format!("cannot remove the route {one}"), removed));
    }
    for one in routed.rules() {
        let removed = route.remove_rule(&wiring::rule_spec(&one));
        done.push((format!("cannot remove the routing rule {one}"), removed));
    }
    done
}

fn others(record: &GatewayRecord, network: BoxId) -> Vec<Routed> {
    record.routed.iter().filter(|other| other.network != network).cloned().collect()
}

fn elements(
    routed: &Routed,
    change: for<'b> fn(&'b mut Batch, Family, &str, &Element) -> &'b mut Batch,
) -> Batch {
    let mut batch = Batch::new();
    for element in routed.elements() {
        change(&mut batch, Family::Inet, TABLE, &element);
    }
    batch
}
