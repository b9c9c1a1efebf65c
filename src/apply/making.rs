//! Making a gateway, by two hands: what is slow of it are the namespace and its rules, which need nothing of the host, and the
//! link and the host's rules, which need nothing of those rules.
//!
//! The second hand is a thread, which alone enters the gateway's namespace for good (a thread has a network namespace of its
//! own), and is gone before the keeper forks again. The order in which every moment is closed stays: nothing is up before
//! both have done their part.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use crate::error::{Context, Error, Result};
use crate::kernel::namespace;
use crate::kernel::net_cookie::netns_cookie;
use crate::kernel::nft::{Batch, Nft};
use crate::kernel::route::{Route, link};
use crate::plan::facts::Facts;
use crate::plan::gateway::GatewayPlan;
use crate::plan::ipv6::GlobalId;
use crate::plan::place::Wanted;
use crate::plan::record::GatewayRecord;
use crate::plan::ruleset::{self, Family};
use crate::plan::topology::{NUMBERS, TABLE};
use crate::plan::{self, settings};

use super::census::Census;
use super::gateway::{self, Gateway};
use super::host::Host;
use super::state::Locked;
use super::wiring;

/// The counter in the slot table that numbers gateways: a dead one's link keeps its name for some milliseconds.
const NEXT_GATEWAY: usize = 1;

/// Makes a gateway. The caller holds the run lock, and has seen that there is none.
///
/// # Errors
/// Naming the step that failed; what was made is taken down again.
pub(super) fn make(
    locked: &Locked<'_>,
    host: &mut Host,
    census: &Census,
    wanted: &Wanted,
) -> Result<Gateway> {
    let (inside, planned) = beside(new_namespace, || -> Result<_> {
        let plan = decide(locked, wanted)?;
        gateway::refuse_foreign_tables(host.nft(locked, census)?)?;
        let route = Route::open().context(|| "cannot open netlink")?;
        Ok((plan, route))
    })?;
    let (plan, mut host_route) = planned?;
    let (network, route, nft) = inside?;
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
        routed: Vec::new(),
    };
    gateway::write_record(locked, &record)?;
    let mut gateway = Gateway { record, network: Arc::new(network), route, nft };
    match build(&mut gateway, &mut host_route, host, locked, census) {
        Ok(()) => Ok(gateway),
        Err(error) => {
            let problems = gateway::take_down(locked, host, census, &gateway.record);
            Err(match problems.first() {
                Some(problem) => error.hint(format!("not all could be undone: {problem}")),
                None => error,
            })
        }
    }
}

/// Does `other` on a thread of its own, and `own` meanwhile. Both are done when it returns.
///
/// # Errors
/// When a thread cannot be started; then nothing was done.
fn beside<A: Send, B>(other: impl FnOnce() -> A + Send, own: impl FnOnce() -> B) -> Result<(A, B)> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .spawn_scoped(scope, other)
            .context(|| "cannot start a thread to make the gateway")?;
        let own = own();
        // Waited for as a thread, not only for its result: this process is about to fork, which it does with one thread.
        let other = thread.join().map_err(|_| Error::new("cannot make the gateway"))?;
        Ok((other, own))
    })
}

fn decide(locked: &Locked<'_>, wanted: &Wanted) -> Result<GatewayPlan> {
    let facts = crate::host::observe()?;
    let number = free_number(locked, &facts);
    let mut random = GlobalId::default();
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(io::Error::from)
        .context(|| "cannot get random bytes for an IPv6 prefix")?;
    plan::gateway::gateway(&facts, number, random, wanted)
}

fn free_number(locked: &Locked<'_>, facts: &Facts) -> u32 {
    loop {
        let number = u32::try_from(locked.slots().count_up(NEXT_GATEWAY) % u64::from(NUMBERS)).unwrap_or(0);
        let name = format!("nb{number}");
        if !facts.links.iter().any(|link| link.name == name) {
            return number;
        }
    }
}

/// A network namespace, and sockets in it. This thread stays in it.
fn new_namespace() -> Result<(OwnedFd, Route, Nft)> {
    namespace::new_network().map_err(|errno| {
        Error::new("cannot make the gateway's network namespace")
            .os(&errno.into())
            .hint("the limit is user.max_net_namespaces; `lsns -t net` shows who has them")
    })?;
    let network = namespace::own_network().context(|| "cannot open the gateway's network namespace")?;
    let route = Route::open().context(|| "cannot open netlink in the gateway")?;
    Ok((network, route, Nft::open()?))
}

fn build(
    gateway: &mut Gateway,
    host_route: &mut Route,
    host: &mut Host,
    locked: &Locked<'_>,
    census: &Census,
) -> Result<()> {
    let Gateway { record, network, route, nft } = gateway;
    let (topology, record, network) = (record.topology, &*record, &*network);
    // Before there is an interface, so that each begins with these.
    namespace::inside(network.as_fd(), host.network().as_fd(), || {
        wiring::set(&settings::of_gateway(topology.ipv6), "in the gateway")
    })
    .context(|| "cannot enter the gateway")??;
    let (inside, on_host) = beside(
        || {
            rules_inside(nft, record)?;
            // With the rules the kernel has loaded connection tracking.
            namespace::enter_network(network.as_fd()).context(|| "cannot enter the gateway")?;
            wiring::set(&settings::of_tracking(), "in the gateway")
        },
        || -> Result<_> {
            let (inner, outer) = gateway::add_link(route, network, host_route, &topology)?;
            let own = settings::of_host_link(&topology.host_link(), topology.ipv6);
            wiring::set(&own, "on the host")?;
            gateway::host_rules(host.nft(locked, census)?, record, &[])?;
            Ok((inner, outer))
        },
    )?;
    let (inner, outer) = on_host?;
    inside?;
    // From here on something is up, and all rules are there.
    host_routing(host_route, record, outer)?;
    gateway::gateway_routing(route, &topology, inner)?;
    wiring::pipeline(host_route, &[link::settle(outer)], "the host")?;
    wiring::set(&settings::switched(&record.switched, &record.switched6), "on the host")
}

fn rules_inside(nft: &mut Nft, record: &GatewayRecord) -> Result<()> {
    let mut batch = Batch::new();
    for table in ruleset::gateway(&record.topology, record.connections) {
        batch.create_table(&table);
    }
    for address in &record.host_addresses {
        batch.put_element(Family::Inet, TABLE, &ruleset::host_address(*address));
    }
    nft.commit(batch).map_err(Error::from)
}

fn host_routing(route: &mut Route, record: &GatewayRecord, link: u32) -> Result<()> {
    let wires = plan::wiring::host(&record.topology, &record.switched, &record.switched6);
    wiring::pipeline(route, &wiring::requests(&wires, link), "the host")
}
