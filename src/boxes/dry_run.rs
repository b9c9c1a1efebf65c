//! `netbox run --dry-run`: the plan, printed. It changes nothing and needs no rights.

use super::elsewhere::{self, Elsewhere};
use super::shown;
use crate::apply::networks::Kept;
use crate::apply::state::{self, State};
use crate::apply::{address, attach, export, kept, lease, networks, reserve};
use crate::error::{Error, Result};
use crate::host;
use crate::host::names::{HOSTS, RESOLV_CONF, is_there};
use crate::host::source;
use crate::kernel::entry;
use crate::plan::environment::{self, Changes, Sources, environment};
use crate::plan::gateway::{self, GatewayPlan};
use crate::plan::identity::{Caller, Identity};
use crate::plan::ipv6::GlobalId;
use crate::plan::network::{Member, Network, Seat, mac_of};
use crate::plan::network6;
use crate::plan::place::Wanted;
use crate::plan::privileges::privileges;
use crate::plan::record::{Attachment, PortMap};
use crate::plan::refusal;
use crate::plan::render::{self, BoxPlan, RunPlan};
use crate::plan::ruleset::{Datum, Element};
use crate::plan::topology::{FIRST_BRIDGE_INDEX, Topology};
use crate::plan::wiring::{BoxLink, LinkEnd};
use crate::spec::capability::Capabilities;
use crate::spec::name::BoxName;
use crate::spec::netns::Export;
use crate::spec::network::Join;
use crate::spec::port::{HostPort, PortRequest};
use crate::spec::request::RunRequest;

/// An id that no box has: the alphabet of ids has no 0.
const EXAMPLE: &str = "example0";

/// A slot that a box may have, and with it its addresses.
const SLOT: u32 = 0;

/// The random part of the prefix that boxes would have.
const EXAMPLE_PREFIX: GlobalId = *b"nbexa";

/// What the run would do, as text, or as JSON where that is asked for.
///
/// # Errors
/// The refusals of a run, a taken port and a taken name among them.
pub fn dry_run(request: &RunRequest, caller: &Caller, identity: &Identity) -> Result<String> {
    refusal::unsupported(request)?;
    // Whoever is not root asks what root would do.
    let own = if caller.uid == 0 { caller.capabilities } else { Capabilities::ALL };
    let privileges = privileges(request, identity, own)?;
    refusal::of_network(request, &privileges)?;
    // Held for a moment only: bind(2) is the one honest answer to whether a port is free.
    match reserve::reserve(&request.publish) {
        Ok(held) => drop(held),
        // A port below 1024, which the run itself, by root, would have.
        Err(error) if error.errno() == Some(libc::EACCES) => {}
        Err(error) => return Err(error),
    }
    source::check(request.snat)?;
    let elsewhere = elsewhere::open(&request.net, |_| {})?;
    export::check(request.export_netns.as_ref())?;
    if let Some(name) = &request.name {
        match State::open_existing() {
            Ok(Some(mut state)) => lease::check_name(&state.lock()?, name)?,
            _ => kept::check_name(&state::host_here()?, name)?,
        }
    }
    let networks = networks::keep_for(request)?;
    let gateway = request.net.is_behind_gateway().then(|| gateway_of(request)).transpose()?;
    let ports: Vec<_> = request.publish.iter().flat_map(port_maps).collect();
    let attached = match &gateway {
        Some((gateway, slot)) => {
            Some((gateway, attached(request, &gateway.topology, *slot, &ports, &networks)?))
        }
        None => None,
    };
    let link = elsewhere.as_ref().and_then(|elsewhere| elsewhere.link.as_ref());
    let link = link.or(attached.as_ref().map(|(_, one)| &one.link));
    let environment = environment_of(request, identity, link);
    let files = files(request, elsewhere.as_ref());
    let network = elsewhere.as_ref().map(|elsewhere| elsewhere.path.as_str());
    let etc = elsewhere.as_ref().and_then(|elsewhere| elsewhere.files.as_ref());
    let etc = etc.map(|(directory, names)| (directory.as_str(), &names[..]));
    let exported = request.export_netns.as_ref().map(|export| match export {
        Export::OfBox => request.name.as_ref().map_or(EXAMPLE, BoxName::as_str),
        Export::As(name) => name.as_str(),
    });
    let plan = RunPlan {
        request,
        identity,
        privileges: &privileges,
        files,
        exported,
        network,
        etc,
        environment,
        attached,
    };
    if request.json {
        let json = render::to_json(&plan).map_err(|error| Error::new("cannot write JSON").because(error))?;
        return Ok(shown::harmless(&json));
    }
    Ok(render::to_text(&plan))
}

/// Without the host's file there is nothing in its place that the box's own could be put over.
fn files(request: &RunRequest, elsewhere: Option<&Elsewhere>) -> Vec<&'static str> {
    let of_other = elsewhere.is_some_and(|elsewhere| elsewhere.resolv_conf.is_some());
    let resolves = request.net.is_behind_gateway() || of_other;
    let all = [(resolves, RESOLV_CONF), (!request.add_host.is_empty(), HOSTS)];
    all.into_iter().filter(|(wanted, path)| *wanted && is_there(path)).map(|(_, path)| path).collect()
}

/// The gateway as the run would make it, with the pools of the one that lives where one was asked for, and the box's slot.
fn gateway_of(request: &RunRequest) -> Result<(GatewayPlan, u32)> {
    let mut facts = host::observe()?;
    if !request.has_address() && request.pool.is_none() {
        return Ok((gateway::gateway(&facts, 0, EXAMPLE_PREFIX, &Wanted::default())?, SLOT));
    }
    // Whoever may not look does not know the other boxes.
    let mut state = State::open_existing().ok().flatten();
    let (place, own) = address::foresee(state.as_mut(), request)?;
    facts.routes.retain(|route| !own.contains(route));
    let plan = gateway::gateway(&facts, 0, EXAMPLE_PREFIX, &place.wanted)?;
    Ok((plan, place.slot.map_or(SLOT, |(slot, _)| slot)))
}

fn attached<'a>(
    request: &RunRequest,
    topology: &Topology,
    slot: u32,
    ports: &'a [PortMap],
    networks: &'a [Kept],
) -> Result<BoxPlan<'a>> {
    let mut attachment = Attachment::new(*topology, slot, request);
    let networks = networks.iter().zip(request.joins()).map(|(Kept { network, .. }, (link, join))| {
        member_of(network, (link, &join), request.no_ipv6, topology).map(|member| (network, member))
    });
    let networks = networks.collect::<Result<Vec<_>>>()?;
    attachment.networks = networks.iter().map(|(_, member)| member.clone()).collect();
    attachment.look_at_ipv6()?;
    let end = LinkEnd::new(&attachment, request);
    let let_in = attach::gateway_elements(&attachment, EXAMPLE, &[]);
    let all = attach::gateway_elements(&attachment, EXAMPLE, ports);
    // A port that the kernel will choose has no element yet.
    let is_known = |element: &Element| !element.key.contains(&Datum::Port(0));
    let published = all.into_iter().filter(|element| !let_in.contains(element) && is_known(element));
    let to_host = attach::opened(&attachment, &request.host_ports);
    let on_host = attach::host_elements(&attachment, ports);
    Ok(BoxPlan {
        id: EXAMPLE,
        networks,
        at_port: attach::port_elements(&attachment, EXAMPLE),
        link: BoxLink::new(&attachment, end.mtu),
        attachment,
        end,
        ports,
        published: published.chain(to_host).collect(),
        let_in,
        published_on_host: on_host.into_iter().filter(is_known).collect(),
    })
}

/// The box's place in its network, whose first box it might be.
fn member_of(
    network: &Network,
    (link, join): (u32, &Join),
    no_ipv6: bool,
    topology: &Topology,
) -> Result<Member> {
    let Join { ip, mac, .. } = *join;
    ip.map_or(Ok(()), |address| network.check_address(address))?;
    let address = ip.or_else(|| network.candidates(SLOT).next()).unwrap_or(network.gateway);
    let has_six = network6::is_had(network, topology, join.ip6, no_ipv6)?;
    let place = u32::from(address) - u32::from(network.subnet.network());
    let six = network.ipv6.filter(|_| has_six);
    let address6 = six.and_then(|six| join.ip6.or_else(|| six.candidates(place).next()));
    let mac = mac.unwrap_or_else(|| mac_of(address));
    let seat = Seat { network: network.id, link, address, address6, mac };
    Ok(Member::new(network, &seat, join, FIRST_BRIDGE_INDEX + link, topology.mtu))
}

fn environment_of(request: &RunRequest, identity: &Identity, link: Option<&BoxLink>) -> Changes {
    let caller = entry::environment();
    let name = request.name.as_ref().map_or(EXAMPLE, BoxName::as_str);
    let sources = Sources {
        caller: &caller,
        clear: request.clear_env,
        settings: &request.env,
        account: identity.account.as_ref(),
        own: &environment::own(EXAMPLE, name, link),
    };
    Changes::between(&caller, &environment(&sources))
}

fn port_maps(request: &PortRequest) -> Vec<PortMap> {
    let host_port = match request.host {
        HostPort::Fixed(port) | HostPort::Pool(port, _) => port,
        HostPort::Ephemeral => 0,
    };
    let map = |host_address| PortMap {
        protocol: request.protocol,
        host_address,
        host_port,
        box_port: request.box_port,
    };
    request.addresses().into_iter().map(map).collect()
}
