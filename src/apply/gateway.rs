//! The gateway on this machine: joining it, making it, taking it down.
//!
//! It is made in an order in which every moment is closed: its own rules before its link, the host's rules
//! before the link is up, forwarding last. It is taken down in the opposite order.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::error::{Context, Error, Result};
use crate::kernel::namespace;
use crate::kernel::net_cookie::netns_cookie;
use crate::kernel::nft::{Batch, Nft};
use crate::kernel::route::link::{LinkChange, Veth};
use crate::kernel::route::{Request, Route, address, link, neighbour, path, rule};
use crate::plan::gateway::GatewayPlan;
use crate::plan::record::GatewayRecord;
use crate::plan::ruleset::{self, Family};
use crate::plan::topology::{HOST_MAC, OUT, OUT_MAC, TABLE, Topology, WRONG_MAC};
use crate::plan::{gateway, routing};

use super::census::Census;
use super::state::{self, Locked};
use super::wiring;

/// The counter in the slot table that numbers gateways: a dead one's link keeps its name for some milliseconds.
const NEXT_GATEWAY: usize = 1;

/// Numbers are used again after this many: an interface's name is short.
const NUMBERS: u64 = 10_000;

const RECORD: &str = "gateway";

/// The loopback interface is the first of every network namespace (net/core/net_namespace.c).
const LO: u32 = 1;

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

/// This process's own network namespace: the host.
#[derive(Debug)]
pub struct Host {
    network: OwnedFd,
}

impl Host {
    /// Opens it.
    ///
    /// # Errors
    /// Where /proc is not mounted.
    pub fn open() -> Result<Self> {
        let network = namespace::own_network().context(|| "cannot open the host's network namespace")?;
        Ok(Self { network })
    }

    /// Its descriptor.
    #[must_use]
    pub const fn network(&self) -> &OwnedFd {
        &self.network
    }
}

/// Joins the gateway that lives, or makes one. The caller holds the run lock and has a lease that counts.
///
/// # Errors
/// Naming the step that failed; what was made is taken down again.
pub fn join_or_make(locked: &Locked<'_>, host: &Host, census: &Census) -> Result<Gateway> {
    if let Some(record) = record(locked) {
        if let Some(gateway) = join(&record, host, census)? {
            return Ok(gateway);
        }
        // Its holders died: the namespace is gone, the host's side is not.
        let problems = take_down(locked, &record).problems;
        if let Some(problem) = problems.first() {
            return Err(Error::new("cannot take down the gateway that dead runs left").because(problem));
        }
    }
    make(locked, host)
}

/// The gateway's record. `None`: there is no gateway.
#[must_use]
pub fn record(locked: &Locked<'_>) -> Option<GatewayRecord> {
    state::read_json(locked.root(), RECORD)
}

/// Joins the gateway of `record` through the descriptor of a living keeper. `None`: nobody holds it any more.
///
/// # Errors
/// When the namespace is there but cannot be worked in.
pub fn join(record: &GatewayRecord, host: &Host, census: &Census) -> Result<Option<Gateway>> {
    for (keeper, descriptor) in &census.holders {
        // The kernel lets root open what another process has open (proc_pid_fd(5)). ENOENT: it has just ended.
        let Ok(network) = std::fs::File::open(format!("/proc/{keeper}/fd/{descriptor}")) else { continue };
        let sockets = namespace::inside(network.as_fd(), host.network.as_fd(), || -> Result<_> {
            Ok((Route::open().context(|| "cannot open netlink in the gateway")?, Nft::open()?))
        });
        // Not a network namespace: the number was used again.
        let Ok(sockets) = sockets else { continue };
        let (route, nft) = sockets?;
        if netns_cookie(route.as_fd()).ok() == Some(record.cookie) {
            return Ok(Some(Gateway { record: record.clone(), network: network.into(), route, nft }));
        }
    }
    Ok(None)
}

fn make(locked: &Locked<'_>, host: &Host) -> Result<Gateway> {
    let facts = crate::host::observe()?;
    let number = free_number(locked, &facts);
    let plan = gateway::gateway(&facts, number)?;
    refuse_foreign_tables()?;
    let mut host_route = Route::open().context(|| "cannot open netlink")?;
    let (network, route, nft) = new_namespace(host)?;
    let cookie = netns_cookie(route.as_fd()).context(|| "cannot identify the gateway's network namespace")?;
    let GatewayPlan { topology, switched, host_addresses } = plan;
    let record = GatewayRecord { topology, cookie, switched, host_addresses };
    state::write_json(locked.root(), RECORD, &record).context(|| "cannot write the gateway's state")?;
    let mut gateway = Gateway { record: record.clone(), network, route, nft };
    match build(&mut gateway, &mut host_route) {
        Ok(()) => Ok(gateway),
        Err(error) => {
            let problems = take_down(locked, &record).problems;
            Err(match problems.first() {
                Some(problem) => error.hint(format!("not all could be undone: {problem}")),
                None => error,
            })
        }
    }
}

fn free_number(locked: &Locked<'_>, facts: &crate::plan::facts::Facts) -> u32 {
    loop {
        let number = u32::try_from(locked.slots().count_up(NEXT_GATEWAY) % NUMBERS).unwrap_or(0);
        let name = format!("nb{number}");
        if !facts.links.iter().any(|link| link.name == name) {
            return number;
        }
    }
}

/// A table with our name and without our mark belongs to somebody (promise L3).
fn refuse_foreign_tables() -> Result<()> {
    let mut nft = Nft::open()?;
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

/// A network namespace that forwards, with IPv6 switched off, and sockets in it.
fn new_namespace(host: &Host) -> Result<(OwnedFd, Route, Nft)> {
    namespace::new_network().map_err(|errno| {
        Error::new("cannot make the gateway's network namespace")
            .os(&errno.into())
            .hint("the limit is user.max_net_namespaces; `lsns -t net` shows who has them")
    })?;
    let made = (|| {
        let network = namespace::own_network().context(|| "cannot open the gateway's network namespace")?;
        let route = Route::open().context(|| "cannot open netlink in the gateway")?;
        let nft = Nft::open()?;
        wiring::set_up_gateway_sysctls()?;
        Ok((network, route, nft))
    })();
    namespace::enter_network(host.network.as_fd())
        .context(|| "cannot return to the host's network namespace")?;
    made
}

fn build(gateway: &mut Gateway, host_route: &mut Route) -> Result<()> {
    let topology = gateway.record.topology;
    gateway_rules(gateway)?;
    let (inner, outer) = add_link(gateway, host_route, &topology)?;
    wiring::set_up_host_link_sysctls(&topology.host_link())?;
    host_rules(&gateway.record)?;
    host_routing(host_route, &gateway.record, outer)?;
    gateway_routing(gateway, &topology, inner)?;
    let name = topology.host_link();
    host_route.settle(&name).context(|| format!("cannot bring up the link {name}"))?;
    for interface in &gateway.record.switched {
        wiring::switch_forwarding(interface, true)?;
    }
    Ok(())
}

fn gateway_rules(gateway: &mut Gateway) -> Result<()> {
    let mut batch = Batch::new();
    for table in ruleset::gateway(&gateway.record.topology) {
        batch.create_table(&table);
    }
    for address in &gateway.record.host_addresses {
        batch.put_element(Family::Inet, TABLE, &ruleset::hosts4(*address));
    }
    gateway.nft.commit(batch).map_err(Error::from)
}

/// Makes the veth between host and gateway. Returns the indexes of the gateway's and of the host's end.
fn add_link(gateway: &mut Gateway, host_route: &mut Route, topology: &Topology) -> Result<(u32, u32)> {
    let name = topology.host_link();
    let veth = Veth {
        name: &name,
        mac: HOST_MAC,
        mtu: topology.mtu,
        peer_name: OUT,
        peer_mac: OUT_MAC,
        peer_netns: gateway.network.as_fd(),
    };
    let outer = host_route.add_veth(&veth).context(|| format!("cannot make the link {name}"))?;
    let inner = gateway.route.link_index(OUT).context(|| format!("cannot find the gateway's link {OUT}"))?;
    Ok((inner, outer))
}

fn host_rules(record: &GatewayRecord) -> Result<()> {
    let mut batch = Batch::new();
    for table in ruleset::host(&record.topology) {
        batch.delete_table(table.family, table.name);
        batch.create_table(&table);
    }
    for interface in &record.switched {
        batch.put_element(Family::Inet, TABLE, &ruleset::switched(interface));
    }
    let mut nft = Nft::open()?;
    nft.commit(batch).map_err(Error::from)
}

fn host_routing(route: &mut Route, record: &GatewayRecord, link: u32) -> Result<()> {
    let topology = &record.topology;
    let mut requests: Vec<Request> = routing::host_rules(topology, &record.switched)
        .iter()
        .map(|r| rule::add(&wiring::rule_spec(r)))
        .collect();
    let alias = LinkChange {
        alias: Some("netbox"),
        up: Some(true),
        addr_gen_mode_none: true,
        ..LinkChange::default()
    };
    requests.push(link::set(link, &alias));
    requests.push(neighbour::set(link, topology.gateway_address(), OUT_MAC));
    for one in routing::host_routes(topology) {
        requests.push(path::add(&wiring::replacing_route_spec(&one, link)));
    }
    wiring::pipeline(route, &requests, "the host")
}

fn gateway_routing(gateway: &mut Gateway, topology: &Topology, link: u32) -> Result<()> {
    let mut requests = vec![
        link::set(LO, &LinkChange { up: Some(true), ..LinkChange::default() }),
        address::add(link, topology.gateway_address(), 32),
        link::set(link, &LinkChange { up: Some(true), ..LinkChange::default() }),
        // Wrong on purpose: see WRONG_MAC.
        neighbour::set(link, topology.next_hop(), WRONG_MAC),
    ];
    for one in routing::gateway_routes(topology) {
        let index = if one.dev.as_deref() == Some("lo") { LO } else { link };
        requests.push(path::add(&wiring::route_spec(&one, index)));
    }
    wiring::pipeline(&mut gateway.route, &requests, "the gateway")
}

/// What is left to do when the host's side of a gateway has been taken down.
#[derive(Debug, Default)]
#[must_use]
pub struct TakenDown {
    /// What could not be undone.
    pub problems: Vec<String>,
    /// The socket that deleted the tables. Closing it waits 11 to 16 ms for RCU, and so does the next transaction if
    /// it is closed earlier: it is for whoever has time.
    pub deleted: Option<Nft>,
}

/// Takes down the host's side of a gateway. Every step tolerates that it was done, or never begun. The caller holds the run lock.
///
/// Does not wait for the link to disappear: the kernel takes milliseconds for that ([`remove_link`]).
pub fn take_down(locked: &Locked<'_>, record: &GatewayRecord) -> TakenDown {
    let mut problems = Vec::new();
    for interface in &record.switched {
        let result = wiring::switch_forwarding_back(interface);
        note(&mut problems, || format!("cannot switch forwarding off on {interface}"), result);
    }
    match Route::open() {
        Ok(mut route) => remove_routing(&mut route, record, &mut problems),
        Err(error) => note(&mut problems, || "cannot open netlink".to_owned(), Err(error)),
    }
    let deleted = match remove_tables() {
        Ok(nft) => Some(nft),
        Err(error) => {
            problems.push(format!("cannot remove the nftables tables: {error}"));
            None
        }
    };
    // The last thing that names the rest: gone only when all of that is.
    if problems.is_empty() {
        note(
            &mut problems,
            || "cannot remove the gateway's state".to_owned(),
            state::remove(locked.root(), RECORD),
        );
    }
    TakenDown { problems, deleted }
}

fn note(problems: &mut Vec<String>, what: impl FnOnce() -> String, result: io::Result<()>) {
    if let Err(error) = result {
        problems.push(format!("{}: {error}", what()));
    }
}

fn remove_routing(route: &mut Route, record: &GatewayRecord, problems: &mut Vec<String>) {
    for one in routing::host_rules(&record.topology, &record.switched) {
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

fn remove_tables() -> Result<Nft> {
    let mut nft = Nft::open()?;
    let mut batch = Batch::new();
    for family in [Family::Netdev, Family::Inet] {
        if nft.table_is_ours(family, TABLE)? == Some(true) {
            batch.delete_table(family, TABLE);
        }
    }
    nft.commit(batch)?;
    Ok(nft)
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

impl Gateway {
    /// The number under which this process holds the gateway's namespace.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.network.as_raw_fd()
    }
}
