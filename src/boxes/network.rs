//! `netbox network`: the networks that boxes share.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use crate::apply::census::census;
use crate::apply::gateway;
use crate::apply::host::Host;
use crate::apply::networks::{Networks, unknown};
use crate::apply::state::{self, State};
use crate::apply::sweep::sweep;
use crate::apply::{bridge, registry, seats};
use crate::error::{Context, Error, Result};
use crate::host;
use crate::kernel::process::wait_for_end;
use crate::plan::ipv6::GlobalId;
use crate::plan::network::{self, Birth, Network, Others, bridge_name};
use crate::plan::pool;
use crate::plan::record::{BoxRecord, GatewayRecord};
use crate::plan::topology::{box_link, eth};
use crate::plan::wiring::written;
use crate::spec::name::{BoxId, BoxName};
use crate::spec::network::{NetworkName, NetworkRequest, NewNetwork};
use crate::spec::routed::OutsideRoute;

use super::connect;
use super::find;
use super::shown::columns;

/// How long to wait for a keeper that sees its box's link off: 65 ms as a rule.
const LEAVES: Duration = Duration::from_secs(5);

/// The name of the network of all boxes that share none.
const NAT: &str = "nat";

/// Does what was asked, and returns what there is to print.
///
/// # Errors
/// Naming the network; what was not named by then is as it was.
pub fn network(request: &NetworkRequest) -> Result<String> {
    match request {
        NetworkRequest::Create(new) => create(new),
        NetworkRequest::List { json, quiet } => list(*json, *quiet),
        NetworkRequest::Inspect(names) => inspect(names),
        NetworkRequest::Remove(names) => remove_all(names),
        NetworkRequest::Prune => prune(),
        NetworkRequest::Connect { of, join } => connect::connect(of, join).map(|()| String::new()),
        NetworkRequest::Disconnect { of, network } => {
            connect::disconnect(of, network).map(|()| String::new())
        }
    }
}

/// Prints the name, as `docker network create` prints the id.
fn create(new: &NewNetwork) -> Result<String> {
    let networks = Networks::open()?;
    networks.lock()?;
    let others = networks.all()?;
    let mut facts = host::observe()?;
    let (pool, pool6) = match gateway_record()? {
        Some(record) => {
            // Its routes are netbox's own.
            let own: Vec<_> = record.topology.pools().map(|(pool, _)| pool).collect();
            facts.routes.retain(|route| !own.contains(route));
            (Some(record.topology.pool), record.topology.pool6())
        }
        // The one that the next gateway will have; its IPv6 pool is random.
        None => (pool::choose(&facts).ok(), None),
    };
    let birth = Birth {
        id: BoxId::from_random(random_bytes("an id")?),
        random: random_bytes("an IPv6 prefix")?,
        created: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
    };
    let others = Others { networks: &others, pool, pool6 };
    let network = network::plan(new, birth, &facts, &others)?;
    networks.write(&network)?;
    Ok(format!("{}\n", network.name))
}

fn random_bytes(what: &str) -> Result<GlobalId> {
    let mut random = GlobalId::default();
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)
        .context(|| format!("cannot get random bytes for {what}"))?;
    Ok(random)
}

/// What is written down about the gateway that lives here, if one does.
fn gateway_record() -> Result<Option<GatewayRecord>> {
    let Some(mut state) = State::open_existing()? else { return Ok(None) };
    let locked = state.lock()?;
    let lives = census(locked.slots()).users > 0;
    let record = gateway::record(&locked).filter(|_| lives);
    locked.remove_if_idle();
    Ok(record)
}

/// One network as programs are told of it. The form is stable.
#[derive(Debug, Serialize)]
struct Described {
    name: String,
    id: Option<BoxId>,
    driver: &'static str,
    created: Option<String>,
    subnet: Option<Ipv4Net>,
    gateway: Option<Ipv4Addr>,
    ip_range: Option<Ipv4Net>,
    subnet6: Option<Ipv6Net>,
    gateway6: Option<Ipv6Addr>,
    ip_range6: Option<Ipv6Net>,
    internal: bool,
    isolate: bool,
    mtu: Option<u32>,
    labels: BTreeMap<String, String>,
    routes: Vec<OutsideRoute>,
    no_masquerade: Vec<Ipv4Net>,
    bridge: Option<DescribedBridge>,
    boxes: Vec<DescribedBox>,
}

/// A network's bridge in the gateway.
#[derive(Debug, Serialize)]
struct DescribedBridge {
    name: String,
    index: u32,
}

/// A box in a network.
#[derive(Debug, Serialize)]
struct DescribedBox {
    id: String,
    name: String,
    ipv4: Ipv4Addr,
    ipv6: Option<Ipv6Addr>,
    mac: Option<String>,
    /// The gateway's end of its link: the bridge's port.
    link: String,
    /// The box's end.
    interface: String,
    /// What the others find it by, besides its name and its id.
    aliases: Vec<BoxName>,
}

fn describe(network: Network, record: Option<&GatewayRecord>, boxes: &[BoxRecord]) -> Described {
    let bridge = record.and_then(|record| record.bridges.iter().find(|bridge| bridge.network == network.id));
    let in_it = boxes.iter().filter_map(|one| {
        let member = one.attachment.as_ref()?.networks.iter().find(|member| member.network == network.id)?;
        Some(DescribedBox {
            id: one.id.clone(),
            name: one.name.clone(),
            ipv4: member.address,
            ipv6: member.address6(),
            mac: Some(written(member.mac)),
            link: box_link(&one.id, member.link),
            interface: member.interface.clone(),
            aliases: member.aliases.clone(),
        })
    });
    Described {
        boxes: in_it.collect(),
        bridge: bridge.map(|bridge| DescribedBridge { name: bridge_name(&network.id), index: bridge.index }),
        name: network.name.to_string(),
        id: Some(network.id),
        driver: "bridge",
        created: Some(network.created),
        subnet: Some(network.subnet),
        gateway: Some(network.gateway),
        ip_range: network.ip_range,
        subnet6: network.ipv6.map(|six| six.subnet),
        gateway6: network.ipv6.map(|six| six.gateway),
        ip_range6: network.ipv6.and_then(|six| six.ip_range),
        internal: network.internal,
        isolate: network.isolate,
        mtu: network.mtu,
        labels: network.labels,
        routes: network.routes,
        no_masquerade: network.no_masquerade,
    }
}

/// The network of the boxes that share none: every one has a link of its own.
fn describe_nat(record: Option<&GatewayRecord>, boxes: &[BoxRecord]) -> Described {
    let in_it = boxes.iter().filter_map(|one| {
        let attachment = one.attachment.as_ref().filter(|attachment| attachment.way_out().is_none())?;
        let (id, name) = (one.id.clone(), one.name.clone());
        Some(DescribedBox {
            id,
            name,
            ipv4: attachment.address(),
            ipv6: attachment.own_address6(),
            mac: None,
            link: box_link(&one.id, 0),
            interface: eth(0),
            aliases: Vec::new(),
        })
    });
    let topology = record.map(|record| record.topology);
    Described {
        name: NAT.to_owned(),
        id: None,
        driver: NAT,
        created: None,
        subnet: topology.map(|topology| topology.pool),
        gateway: topology.map(|topology| topology.gateway_address()),
        ip_range: None,
        subnet6: topology.and_then(|topology| topology.pool6()),
        gateway6: topology.and_then(|topology| topology.gateway_address6()),
        ip_range6: None,
        internal: false,
        isolate: true,
        mtu: topology.map(|topology| topology.mtu),
        labels: BTreeMap::new(),
        routes: Vec::new(),
        no_masquerade: Vec::new(),
        bridge: None,
        boxes: in_it.collect(),
    }
}

fn list(json: bool, quiet: bool) -> Result<String> {
    let networks = Networks::open_existing()?;
    if quiet {
        let names = networks.map(|networks| networks.names()).transpose()?.unwrap_or_default();
        let lines = names.iter().map(|name| format!("{name}\n"));
        return Ok(format!("{NAT}\n{}", lines.collect::<String>()));
    }
    let all = networks.map(|networks| networks.all()).transpose()?.unwrap_or_default();
    let (record, boxes) = (gateway_record()?, find::all()?);
    let nat = describe_nat(record.as_ref(), &boxes);
    let all: Vec<_> =
        [nat].into_iter().chain(all.into_iter().map(|one| describe(one, record.as_ref(), &boxes))).collect();
    if json {
        return to_json(&all);
    }
    let mut lines = vec![["NAME", "DRIVER", "SUBNET", "BOXES", "OPTIONS"].map(str::to_owned).into()];
    lines.extend(all.iter().map(|one| {
        let options = [
            (one.internal, "internal"),
            (one.isolate && one.id.is_some(), "isolate"),
            (!one.routes.is_empty(), "route"),
            (!one.no_masquerade.is_empty(), "no-masquerade"),
        ];
        let options: Vec<_> = options.into_iter().filter(|(on, _)| *on).map(|(_, word)| word).collect();
        let (four, six) = (one.subnet.map(IpNet::V4), one.subnet6.map(IpNet::V6));
        let subnets: Vec<_> = four.iter().chain(&six).map(ToString::to_string).collect();
        let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        vec![
            one.name.clone(),
            one.driver.to_owned(),
            or_none(subnets.join(",")),
            one.boxes.len().to_string(),
            or_none(options.join(",")),
        ]
    }));
    Ok(columns(&lines))
}

fn inspect(names: &[String]) -> Result<String> {
    let networks = Networks::open_existing()?;
    let (record, boxes) = (gateway_record()?, find::all()?);
    let mut all = Vec::new();
    for name in names {
        if name == NAT {
            all.push(describe_nat(record.as_ref(), &boxes));
            continue;
        }
        let name = NetworkName::parse(name)?;
        let kept = networks.as_ref().ok_or_else(|| unknown(&name))?.keep(&name)?;
        all.push(describe(kept.network.clone(), record.as_ref(), &boxes));
    }
    to_json(&all)
}

fn to_json(all: &[Described]) -> Result<String> {
    let text =
        serde_json::to_string_pretty(all).map_err(|error| Error::new("cannot write JSON").because(error))?;
    Ok(text + "\n")
}

/// Each is removed or not by itself; the first problem is told at the end.
fn remove_all(names: &[NetworkName]) -> Result<String> {
    let Some(networks) = Networks::open_existing()? else {
        return names.first().map_or(Ok(String::new()), |name| Err(unknown(name)));
    };
    networks.lock()?;
    bury_the_dead()?;
    let mut problem = None;
    for name in names {
        if let Err(error) = remove(&networks, name) {
            problem.get_or_insert(error);
        }
    }
    problem.map_or(Ok(String::new()), Err)
}

/// Prints the names of those that it removed.
fn prune() -> Result<String> {
    let Some(networks) = Networks::open_existing()? else { return Ok(String::new()) };
    networks.lock()?;
    bury_the_dead()?;
    let mut text = String::new();
    for network in networks.all()? {
        wait_until_left(network.id)?;
        let mut all = state::roots()?.into_iter();
        if all.all(|root| seats::taken(&root, &network.id).is_empty()) {
            remove(&networks, &network.name)?;
            text += &format!("{}\n", network.name);
        }
    }
    Ok(text)
}

/// A dead box is in no network.
fn bury_the_dead() -> Result<()> {
    let Some(mut state) = State::open_existing()? else { return Ok(()) };
    let mut host = Host::open()?;
    let locked = state.lock()?;
    let (swept, _) = sweep(&locked, &mut host, census(locked.slots()), false);
    locked.remove_if_idle();
    match swept.problems.first() {
        Some(problem) => Err(Error::new("cannot take down all that dead runs left").because(problem)),
        None => Ok(()),
    }
}

/// A box that has ended is in its network while its keeper sees its link off: who removes a network when netbox has returned is not
/// to be told of it (promise L1).
fn wait_until_left(id: BoxId) -> Result<()> {
    let (never, _open) = std::io::pipe().context(|| "cannot make a pipe")?;
    for root in state::roots()? {
        for (_, taken) in seats::taken(&root, &id) {
            let id = taken.id.as_str();
            let keeper = registry::left_behind(&root, id).filter(|_| registry::has_ended(&root, id));
            if let Some(keeper) = keeper.and_then(|record| u32::try_from(record.keeper_pid).ok()) {
                // What cannot be waited for shows below.
                let _ = wait_for_end(keeper, never.as_fd(), LEAVES);
            }
        }
    }
    Ok(())
}

fn remove(networks: &Networks, name: &NetworkName) -> Result<()> {
    if let Some(network) = networks.find(name)? {
        wait_until_left(network.id)?;
    }
    // From here on nobody joins it.
    let kept = networks.hold_alone(name)?;
    let id = kept.network.id;
    // In every network namespace that netbox was started in: all share what is kept.
    for root in state::roots()? {
        let taken = seats::taken(&root, &id);
        if let Some((address, first)) = taken.first() {
            let others = match taken.len() - 1 {
                0 => String::new(),
                1 => " and 1 other".to_owned(),
                more => format!(" and {more} others"),
            };
            return Err(Error::new(format!("cannot remove network {name}"))
                .because(format!("box {} has {address} in it{others}", first.id))
                .hint(format!("`netbox network inspect {name}` lists its boxes; end them first")));
        }
    }
    remove_bridge(id)?;
    networks.remove(kept)
}

/// Removes the bridge from the gateway of this host, if there is one. Where netbox was started in other network namespaces it goes
/// with the gateway.
fn remove_bridge(id: BoxId) -> Result<()> {
    let Some(mut state) = State::open_existing()? else { return Ok(()) };
    let mut host = Host::open()?;
    let locked = state.lock()?;
    if let Some(record) = gateway::record(&locked)
        && let Some(mut gateway) = gateway::join(&record, &host, &census(locked.slots()))?
    {
        bridge::remove(&locked, &mut host, &mut gateway, id)?;
    }
    locked.remove_if_idle();
    Ok(())
}
