//! The gateway on this machine: joining it, making it, taking it down.
//!
//! It is made in an order in which every moment is closed: its own rules before its link, the host's rules
//! before the link is up, forwarding last. It is taken down in the opposite order.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Context, Error, Result};
use crate::kernel::namespace;
use crate::kernel::net_cookie::netns_cookie;
use crate::kernel::nft::{Batch, Nft};
use crate::kernel::process::share_descriptor;
use crate::kernel::route::{Route, link};
use crate::plan::gateway::GatewayPlan;
use crate::plan::ipv6::GlobalId;
use crate::plan::place::Wanted;
use crate::plan::record::GatewayRecord;
use crate::plan::ruleset::{self, Element, Family, Table};
use crate::plan::topology::{HOST_MAC, Ipv6, NUMBERS, OUT, TABLE, Topology};
use crate::plan::{self, gateway, routing, settings};

use super::address::Place;
use super::census::{Census, census};
use super::host::{Host, share_nft};
use super::lease::Shared;
use super::state::{self, Locked};
use super::wiring;

/// The counter in the slot table that numbers gateways: a dead one's link keeps its name for some milliseconds.
const NEXT_GATEWAY: usize = 1;

const RECORD: &str = "gateway";

/// A living gateway, held: it goes on as long as this value does.
#[derive(Debug)]
pub struct Gateway {
    /// What it is.
    pub record: GatewayRecord,
    /// Its network namespace.
    pub network: OwnedFd,
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
    make(locked, host, census, &wanted)
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
    for (keeper, note) in &census.holders {
        // Its number may be another process's by now: what comes back is looked at below.
        let Ok(network) = share_descriptor(*keeper, note.descriptors[Shared::Network as usize]) else {
            continue;
        };
        let route = namespace::inside(network.as_fd(), host.network().as_fd(), Route::open);
        // Not a network namespace.
        let Ok(route) = route else { continue };
        let route = route.context(|| "cannot open netlink in the gateway")?;
        if netns_cookie(route.as_fd()).ok() != Some(record.cookie) {
            continue;
        }
        let nft = match share_nft(*keeper, note, Shared::GatewayNft, record.cookie) {
            Some(nft) => nft,
            None => namespace::inside(network.as_fd(), host.network().as_fd(), Nft::open)
                .context(|| "cannot enter the gateway")??,
        };
        return Ok(Some(Gateway { record: record.clone(), network, route, nft }));
    }
    Ok(None)
}

fn make(locked: &Locked<'_>, host: &mut Host, census: &Census, wanted: &Wanted) -> Result<Gateway> {
    let facts = crate::host::observe()?;
    let number = free_number(locked, &facts);
    let mut random = GlobalId::default();
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(io::Error::from)
        .context(|| "cannot get random bytes for an IPv6 prefix")?;
    let plan = gateway::gateway(&facts, number, random, wanted)?;
    refuse_foreign_tables(host.nft(locked, census)?)?;
    let mut host_route = Route::open().context(|| "cannot open netlink")?;
    let (network, route, nft) = new_namespace(host, plan.topology.ipv6)?;
    let cookie = netns_cookie(route.as_fd()).context(|| "cannot identify the gateway's network namespace")?;
    let GatewayPlan { topology, switched, switched6, host_addresses, without_ipv6, connections } = plan;
    let record = GatewayRecord {
        topology,
        cookie,
        switched,
        switched6,
        host_addresses,
        without_ipv6,
        connections,
        bridges: Vec::new(),
    };
    write_record(locked, &record)?;
    let mut gateway = Gateway { record: record.clone(), network, route, nft };
    match build(&mut gateway, &mut host_route, host, locked, census) {
        Ok(()) => Ok(gateway),
        Err(error) => {
            let problems = take_down(locked, host, census, &record);
            Err(match problems.first() {
                Some(problem) => error.hint(format!("not all could be undone: {problem}")),
                None => error,
            })
        }
    }
}

fn free_number(locked: &Locked<'_>, facts: &crate::plan::facts::Facts) -> u32 {
    loop {
        let number = u32::try_from(locked.slots().count_up(NEXT_GATEWAY) % u64::from(NUMBERS)).unwrap_or(0);
        let name = format!("nb{number}");
        if !facts.links.iter().any(|link| link.name == name) {
            return number;
        }
    }
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

/// A network namespace that forwards, and sockets in it.
fn new_namespace(host: &Host, ipv6: Ipv6) -> Result<(OwnedFd, Route, Nft)> {
    namespace::new_network().map_err(|errno| {
        Error::new("cannot make the gateway's network namespace")
            .os(&errno.into())
            .hint("the limit is user.max_net_namespaces; `lsns -t net` shows who has them")
    })?;
    let made = (|| {
        let network = namespace::own_network().context(|| "cannot open the gateway's network namespace")?;
        let route = Route::open().context(|| "cannot open netlink in the gateway")?;
        let nft = Nft::open()?;
        wiring::set(&settings::of_gateway(ipv6), "in the gateway")?;
        Ok((network, route, nft))
    })();
    namespace::enter_network(host.network().as_fd())
        .context(|| "cannot return to the host's network namespace")?;
    made
}

fn build(
    gateway: &mut Gateway,
    host_route: &mut Route,
    host: &mut Host,
    locked: &Locked<'_>,
    census: &Census,
) -> Result<()> {
    let topology = gateway.record.topology;
    gateway_rules(gateway)?;
    // With the rules the kernel has loaded connection tracking.
    namespace::inside(gateway.network.as_fd(), host.network().as_fd(), || {
        wiring::set(&settings::of_tracking(), "in the gateway")
    })
    .context(|| "cannot enter the gateway")??;
    let (inner, outer) = add_link(gateway, host_route, &topology)?;
    wiring::set(&settings::of_host_link(&topology.host_link(), topology.ipv6), "on the host")?;
    host_rules(host.nft(locked, census)?, &gateway.record, &[])?;
    host_routing(host_route, &gateway.record, outer)?;
    gateway_routing(gateway, &topology, inner)?;
    wiring::pipeline(host_route, &[link::settle(outer)], "the host")?;
    wiring::set(&settings::switched(&gateway.record.switched, &gateway.record.switched6), "on the host")
}

/// The interfaces of the host that netbox makes forward.
pub(super) fn switched(record: &GatewayRecord) -> impl Iterator<Item = (settings::Family, &String)> {
    let four = record.switched.iter().map(|interface| (settings::Family::Ipv4, interface));
    four.chain(record.switched6.iter().map(|interface| (settings::Family::Ipv6, interface)))
}

fn gateway_rules(gateway: &mut Gateway) -> Result<()> {
    let mut batch = Batch::new();
    for table in ruleset::gateway(&gateway.record.topology, gateway.record.connections) {
        batch.create_table(&table);
    }
    for address in &gateway.record.host_addresses {
        batch.put_element(Family::Inet, TABLE, &ruleset::host_address(*address));
    }
    gateway.nft.commit(batch).map_err(Error::from)
}

/// Makes the veth between host and gateway. Returns the indexes of the gateway's and of the host's end.
pub(super) fn add_link(
    gateway: &mut Gateway,
    host_route: &mut Route,
    topology: &Topology,
) -> Result<(u32, u32)> {
    let pair = plan::wiring::gateway_pair(topology);
    let outer = host_route
        .add_veth(&wiring::veth(&pair, gateway.network.as_fd()))
        .context(|| format!("cannot make the link {}", pair.name))?;
    let inner = gateway.route.link_index(OUT).context(|| format!("cannot find the gateway's link {OUT}"))?;
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
    for element in published {
        batch.put_element(Family::Inet, TABLE, element);
    }
    batch
}

fn host_routing(route: &mut Route, record: &GatewayRecord, link: u32) -> Result<()> {
    let wires = plan::wiring::host(&record.topology, &record.switched, &record.switched6);
    wiring::pipeline(route, &wiring::requests(&wires, link), "the host")
}

pub(super) fn gateway_routing(gateway: &mut Gateway, topology: &Topology, link: u32) -> Result<()> {
    let requests = wiring::requests(&plan::wiring::gateway(topology), link);
    wiring::pipeline(&mut gateway.route, &requests, "the gateway")
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
