//! The gateway on this machine: joining it, making it, taking it down.
//!
//! It is made (`making.rs`) in an order in which every moment is closed: the rules of both sides before the link is up, forwarding
//! last. It is taken down in the opposite order.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::error::{Context, Error, Result};
use crate::kernel::namespace;
use crate::kernel::net_cookie::netns_cookie;
use crate::kernel::nft::{Batch, Nft};
use crate::kernel::process::share_descriptor;
use crate::kernel::route::Route;
use crate::kernel::slots::SlotNote;
use crate::plan::record::GatewayRecord;
use crate::plan::routed::Routed;
use crate::plan::ruleset::{self, Element, Family, Table};
use crate::plan::topology::{HOST_MAC, OUT, TABLE, Topology};
use crate::plan::{self, routing, settings};

use super::address::Place;
use super::census::{Census, census};
use super::host::{Host, share_nft};
use super::lease::Shared;
use super::state::{self, Locked, State};
use super::{making, routed, wiring};

const RECORD: &str = "gateway";

/// A living gateway, held: it goes on as long as this value does.
#[derive(Debug)]
pub struct Gateway {
    /// What it is.
    pub record: GatewayRecord,
    /// Its network namespace.
    pub network: Arc<OwnedFd>,
    /// A socket inside it.
    pub route: Route,
    /// A socket inside it.
    pub nft: Nft,
}

/// Joins the gateway that lives, of which the place tells, or makes one. The caller holds the run lock and has a lease
/// that counts.
///
/// # Errors
/// Naming the step that failed; what was made is taken down again.
pub fn join_or_make(locked: &Locked<'_>, host: &mut Host, census: &Census, place: Place) -> Result<Gateway> {
    let Place { record, wanted, .. } = place;
    if let Some(record) = &record
        && let Some(gateway) = join(record, host, census)?
    {
        return Ok(gateway);
    }
    refuse_if_held(locked)?;
    if let Some(record) = record {
        // Its holders died: the namespace is gone, the host's side is not.
        let problems = take_down(locked, host, census, &record);
        if let Some(problem) = problems.first() {
            return Err(Error::new("cannot take down the gateway that dead runs left").because(problem));
        }
    }
    making::make(locked, host, census, &wanted)
}

/// A gateway that could not be joined is only dead when its holders are, by now: never take it from the living.
///
/// # Errors
/// When a keeper holds it.
pub fn refuse_if_held(locked: &Locked<'_>) -> Result<()> {
    if census(locked.slots()).holders.is_empty() {
        return Ok(());
    }
    Err(Error::new("cannot join the gateway of the other boxes")
        .because("none of their keepers would share it")
        .hint("this may be a lack of memory or descriptors; try again"))
}

/// The gateway's record. `None`: there is no gateway.
#[must_use]
pub fn record(locked: &Locked<'_>) -> Option<GatewayRecord> {
    state::read_json(locked.root(), RECORD)
}

/// What is written down about the gateway of `own`: newer than what a keeper was told when it joined, if the host has changed
/// since. `None`: another gateway has taken its place.
#[must_use]
pub fn newest(locked: &Locked<'_>, own: &GatewayRecord) -> Option<GatewayRecord> {
    let written = record(locked).unwrap_or_else(|| own.clone());
    (written.cookie == own.cookie).then_some(written)
}

/// Writes the record anew. The caller holds the run lock.
///
/// # Errors
/// ENOSPC and its like.
pub(super) fn write_record(locked: &Locked<'_>, record: &GatewayRecord) -> Result<()> {
    state::write_json(locked.root(), RECORD, record).context(|| "cannot write the gateway's state")
}

/// Changes what is written down about a gateway that lives. The caller holds the run lock.
///
/// # Errors
/// Another gateway has taken its place; ENOSPC and its like.
pub(super) fn rewrite(
    locked: &Locked<'_>,
    gateway: &mut Gateway,
    change: impl FnOnce(&mut GatewayRecord),
) -> Result<()> {
    // Newer than this process knows it, where the host has changed.
    let mut record = newest(locked, &gateway.record)
        .ok_or_else(|| Error::new("cannot change the gateway").because("another one has taken its place"))?;
    change(&mut record);
    write_record(locked, &record)?;
    gateway.record = record;
    Ok(())
}

/// Removes what a keeper that was killed while it wrote the record left. The caller holds the run lock: nobody is writing.
///
/// # Errors
/// Those of unlink(2).
pub fn remove_half_written(locked: &Locked<'_>) -> io::Result<()> {
    state::remove(locked.root(), &state::half_written(RECORD))
}

/// Joins the gateway of `record` through the descriptor of a living keeper. `None`: nobody holds it any more.
///
/// # Errors
/// When the namespace is there but cannot be worked in.
pub fn join(record: &GatewayRecord, host: &Host, census: &Census) -> Result<Option<Gateway>> {
    let Some((keeper, note, network, route)) = find(record, host, census)? else { return Ok(None) };
    let nft = match share_nft(keeper, note, Shared::GatewayNft, record.cookie) {
        Some(nft) => nft,
        None => namespace::inside(network.as_fd(), host.network().as_fd(), Nft::open)
            .context(|| "cannot enter the gateway")??,
    };
    Ok(Some(Gateway { record: record.clone(), network: Arc::new(network), route, nft }))
}

/// A look at the gateway that lives, without the run lock: what is written down of it, its namespace, which lives as long as
/// that descriptor, and a socket in it, likewise.
///
/// # Errors
/// As [`join`].
pub fn look(state: &State, host: &Host) -> Result<Option<(GatewayRecord, OwnedFd, Route)>> {
    let Some(record) = state::read_json::<GatewayRecord>(state.root(), RECORD) else { return Ok(None) };
    let census = census(state.slots());
    let found = find(&record, host, &census)?;
    Ok(found.map(|(_, _, network, route)| (record, network, route)))
}

/// By which a gateway is told from every other, without the run lock. `None`: there is none.
#[must_use]
pub fn cookie(state: &State) -> Option<u64> {
    state::read_json::<GatewayRecord>(state.root(), RECORD).map(|record| record.cookie)
}

type Holder<'c> = (u32, &'c SlotNote, OwnedFd, Route);

/// The gateway's namespace through the descriptor of a living keeper, which one that is, and a socket in it.
fn find<'c>(record: &GatewayRecord, host: &Host, census: &'c Census) -> Result<Option<Holder<'c>>> {
    for (keeper, note) in &census.holders {
        // Its number may be another process's by now: what comes back is looked at below.
        let Ok(network) = share_descriptor(*keeper, note.descriptors[Shared::Network as usize]) else {
            continue;
        };
        let route = namespace::inside(network.as_fd(), host.network().as_fd(), Route::open);
        // Not a network namespace.
        let Ok(route) = route else { continue };
        let route = route.context(|| "cannot open netlink in the gateway")?;
        if netns_cookie(route.as_fd()).ok() == Some(record.cookie) {
            return Ok(Some((*keeper, note, network, route)));
        }
    }
    Ok(None)
}

/// A table with our name and without our mark belongs to somebody (promise L3).
pub(super) fn refuse_foreign_tables(nft: &mut Nft) -> Result<()> {
    for family in [Family::Netdev, Family::Inet] {
        let ours = nft.table_is_ours(family, TABLE)?;
        if ours == Some(false) {
            return Err(Error::new(format!("cannot make the nftables table {family} {TABLE}"))
                .because("there is one that is not netbox's")
                .hint(format!("look at it: nft list table {family} {TABLE}")));
        }
    }
    Ok(())
}

/// The interfaces of the host that netbox makes forward.
pub(super) fn switched(record: &GatewayRecord) -> impl Iterator<Item = (settings::Family, &String)> {
    let four = record.switched.iter().map(|interface| (settings::Family::Ipv4, interface));
    four.chain(record.switched6.iter().map(|interface| (settings::Family::Ipv6, interface)))
}

/// Makes the veth between host and gateway. Returns the indexes of the gateway's and of the host's end.
pub(super) fn add_link(
    gateway_route: &mut Route,
    network: &OwnedFd,
    host_route: &mut Route,
    topology: &Topology,
) -> Result<(u32, u32)> {
    let pair = plan::wiring::gateway_pair(topology);
    let outer = host_route
        .add_veth(&wiring::veth(&pair, network.as_fd()))
        .context(|| format!("cannot make the link {}", pair.name))?;
    let inner = gateway_route.link_index(OUT).context(|| format!("cannot find the gateway's link {OUT}"))?;
    Ok((inner, outer))
}

/// Puts the host's tables in place of what is there, in one transaction.
pub(super) fn host_rules(nft: &mut Nft, record: &GatewayRecord, published: &[Element]) -> Result<()> {
    let tables = ruleset::host(&record.topology, record.connections);
    match nft.commit(host_batch(&tables, record, published)) {
        Err(error) if error.lacks_timeouts() => {
            let tables: Vec<_> = tables.into_iter().map(Table::without_timeouts).collect();
            nft.commit(host_batch(&tables, record, published))
        }
        result => result,
    }
    .map_err(Error::from)
}

fn host_batch(tables: &[Table], record: &GatewayRecord, published: &[Element]) -> Batch {
    let mut batch = Batch::new();
    for table in tables {
        batch.delete_table(table.family, table.name);
        batch.create_table(table);
    }
    for interface in &record.switched {
        batch.put_element(Family::Inet, TABLE, &ruleset::switched(interface));
    }
    for interface in &record.switched6 {
        batch.put_element(Family::Inet, TABLE, &ruleset::switched6(interface));
    }
    for element in record.routed.iter().flat_map(Routed::elements) {
        batch.put_element(Family::Inet, TABLE, &element);
    }
    for element in published {
        batch.put_element(Family::Inet, TABLE, element);
    }
    batch
}

pub(super) fn gateway_routing(route: &mut Route, topology: &Topology, link: u32) -> Result<()> {
    let requests = wiring::requests(&plan::wiring::gateway(topology), link);
    wiring::pipeline(route, &requests, "the gateway")
}

/// Takes down the host's side of a gateway. Every step tolerates that it was done, or never begun. The caller holds the run lock.
///
/// Does not wait for the link to disappear: the kernel takes milliseconds for that ([`remove_link`]).
#[must_use]
pub fn take_down(
    locked: &Locked<'_>,
    host: &mut Host,
    census: &Census,
    record: &GatewayRecord,
) -> Vec<String> {
    let mut problems = Vec::new();
    // What is still on its way out of the gateway must not pass without the rules that translate it.
    let stopped = wiring::stop_forwarding(&record.topology.host_link(), record.topology.ipv6);
    note(&mut problems, || "cannot stop forwarding for the gateway".to_owned(), stopped);
    for (family, interface) in switched(record) {
        let result = wiring::switch_forwarding_back(family, interface);
        note(&mut problems, || format!("cannot switch forwarding off on {interface}"), result);
    }
    if !problems.is_empty() {
        // While the host still forwards, the rules keep it from being a router for others. The next sweep goes on.
        return problems;
    }
    match Route::open() {
        Ok(mut route) => remove_routing(&mut route, record, &mut problems),
        Err(error) => note(&mut problems, || "cannot open netlink".to_owned(), Err(error)),
    }
    if let Err(error) = host.nft(locked, census).and_then(remove_tables) {
        problems.push(format!("cannot remove the nftables tables: {error}"));
    }
    // The last thing that names the rest: gone only when all of that is.
    if problems.is_empty() {
        note(
            &mut problems,
            || "cannot remove the gateway's state".to_owned(),
            state::remove(locked.root(), RECORD),
        );
    }
    problems
}

fn note(problems: &mut Vec<String>, what: impl FnOnce() -> String, result: io::Result<()>) {
    if let Err(error) = result {
        problems.push(format!("{}: {error}", what()));
    }
}

fn remove_routing(route: &mut Route, record: &GatewayRecord, problems: &mut Vec<String>) {
    for one in &record.routed {
        for (what, result) in routed::remove_routing(route, &record.topology, one, &[]) {
            note(problems, || what, result);
        }
    }
    for one in routing::host_rules(&record.topology, &record.switched, &record.switched6) {
        let result = route.remove_rule(&wiring::rule_spec(&one));
        note(problems, || format!("cannot remove the routing rule {one}"), result);
    }
    for one in routing::host_routes(&record.topology) {
        // Named without its interface, whose index nobody knows any more.
        let named = routing::Route { dev: None, via: None, ..one.clone() };
        let result = route.remove_route(&wiring::route_spec(&named, 0));
        note(problems, || format!("cannot remove the route {one}"), result);
    }
}

fn remove_tables(nft: &mut Nft) -> Result<()> {
    let mut batch = Batch::new();
    for family in [Family::Netdev, Family::Inet] {
        if nft.table_is_ours(family, TABLE)? == Some(true) {
            batch.delete_table(family, TABLE);
        }
    }
    nft.commit(batch).map_err(Error::from)
}

/// Removes the host's end of the link if it is still there and ours. Waits 20 ms or more for RCU.
///
/// # Errors
/// Those of RTM_DELLINK.
pub fn remove_link(topology: &Topology) -> io::Result<()> {
    let mut route = Route::open()?;
    match route.link_by_name(&topology.host_link())? {
        Some(link) if link.mac == Some(HOST_MAC) => match route.delete_link(link.index) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        },
        _ => Ok(()),
    }
}
