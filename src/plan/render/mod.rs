//! `--dry-run`: what a run would do, as a list of steps in the words of `ip`, `sysctl`, `mount` and `nft`.
//!
//! The steps are those lists of the plan that the layers below carry out, in the order in which they do.

mod json;
mod text;

use serde::Serialize;

use crate::spec::request::RunRequest;

use super::environment::Changes;
use super::gateway::GatewayPlan;
use super::identity::Identity;
use super::mounts::{self, Mount};
use super::network::{Member, Network};
use super::privileges::Privileges;
use super::record::{Attachment, PortMap};
use super::routed::Routed;
use super::ruleset::{self, Element, Family, Table};
use super::settings::{self, Setting};
use super::topology::TABLE;
use super::wiring::{self, BoxLink, LinkEnd, Wire};

pub use json::to_json;
pub use text::to_text;

/// Everything that a run would do.
#[derive(Debug)]
pub struct RunPlan<'a> {
    /// What was asked for.
    pub request: &'a RunRequest,
    /// Who the command runs as.
    pub identity: &'a Identity,
    /// What it may do.
    pub privileges: &'a Privileges,
    /// Which files of the host the box has its own in place of.
    pub files: Vec<&'static str>,
    /// Under which name ip-netns(8) sees its network.
    pub exported: Option<&'a str>,
    /// Where its network is, which is somebody else's.
    pub network: Option<&'a str>,
    /// Where the files are that it has in place of those in /etc, and their names.
    pub etc: Option<(&'a str, &'a [String])>,
    /// How its environment differs from the caller's.
    pub environment: Changes,
    /// The gateway and the box's place there; only with `--net nat`.
    pub attached: Option<(&'a GatewayPlan, BoxPlan<'a>)>,
}

/// A box to be attached to the gateway.
#[derive(Debug)]
pub struct BoxPlan<'a> {
    /// An example of an id.
    pub id: &'a str,
    /// Where it hangs; the slot is an example.
    pub attachment: Attachment,
    /// Its networks that have names, and its places there; the addresses are examples unless they were asked for.
    pub networks: Vec<(&'a Network, Member)>,
    /// Its side of its way out.
    pub link: BoxLink,
    /// What its end of the link has.
    pub end: LinkEnd,
    /// Its published ports; host port 0 is one that the kernel will choose.
    pub ports: &'a [PortMap],
    /// The elements of the gateway's sets that let it in.
    pub let_in: Vec<Element>,
    /// The elements of the sets and maps of the bridges' table for its port of one.
    pub at_port: Vec<Element>,
    /// The elements of the gateway's sets and maps for its ports, and for those of the host's that it reaches.
    pub published: Vec<Element>,
    /// The elements of the host's maps for its ports, and for the address that it sends with.
    pub published_on_host: Vec<Element>,
}

/// In which namespaces a step is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Host,
    Gateway,
    Box,
}

/// What a step is about. The words are those of `--json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Namespace,
    Sysctl,
    Nftables,
    Link,
    Address,
    Neighbour,
    Route,
    Rule,
    Mount,
    Hostname,
}

/// One step, as a command that would do the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    place: Place,
    kind: Kind,
    command: String,
}

/// The steps that make the gateway, on the host and inside.
fn gateway_steps(plan: &GatewayPlan) -> Vec<Step> {
    let topology = &plan.topology;
    let pair = wiring::gateway_pair(topology).words("GATEWAY");
    let of_link = settings::of_host_link(&topology.host_link(), topology.ipv6);
    let host = wiring::host(topology, &plan.switched, &plan.switched6);
    let switched = settings::switched(&plan.switched, &plan.switched6);
    let mut steps = vec![Step::new(Place::Host, Kind::Namespace, "ip netns add GATEWAY")];
    steps
        .extend(settings::of_gateway(topology.ipv6).iter().map(|setting| Step::set(Place::Gateway, setting)));
    steps.push(Step::nft(Place::Gateway, "-f RULES"));
    steps.extend(settings::of_tracking().iter().map(|setting| Step::set(Place::Gateway, setting)));
    steps.push(Step::ip(Place::Host, Kind::Link, &pair));
    steps.extend(of_link.iter().map(|setting| Step::set(Place::Host, setting)));
    steps.push(Step::nft(Place::Host, "-f RULES"));
    steps.extend(host.iter().map(|wire| Step::wire(Place::Host, wire)));
    steps.extend(wiring::gateway(topology).iter().map(|wire| Step::wire(Place::Gateway, wire)));
    steps.extend(switched.iter().map(|setting| Step::set(Place::Host, setting)));
    steps
}

/// The steps that make a network's bridge in the gateway.
fn bridge_steps(network: &Network, member: &Member, gateway: &GatewayPlan) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.extend(settings::of_bridges().iter().map(|setting| Step::set(Place::Gateway, setting)));
    let wires = wiring::bridge(network, member.bridge, &gateway.topology);
    if network.internal {
        steps.push(Step::element(Place::Gateway, &ruleset::internal(&member.bridge_name())));
    }
    if let Some(routed) = Routed::of(network) {
        let on_host = routed.wires(&gateway.topology, &[]);
        steps.extend(on_host.iter().map(|wire| Step::wire(Place::Host, wire)));
        for place in [Place::Gateway, Place::Host] {
            steps.extend(routed.elements().iter().map(|element| Step::element(place, element)));
        }
    }
    steps.extend(wires.iter().map(|wire| Step::wire(Place::Gateway, wire)));
    steps
}

/// The steps that make the box.
fn box_steps(plan: &RunPlan<'_>) -> Vec<Step> {
    let request = plan.request;
    let can_be_root = plan.privileges.can_be_root(plan.identity);
    let attached = plan.attached.as_ref();
    let mut steps = Vec::new();
    if let Some((gateway, one)) = attached {
        if !one.networks.is_empty() {
            steps.push(Step::nft(Place::Gateway, "-f BRIDGE-RULES"));
        }
        steps
            .extend(one.networks.iter().flat_map(|(network, member)| bridge_steps(network, member, gateway)));
        steps.extend(one.let_in.iter().map(|element| Step::element(Place::Gateway, element)));
    }
    if let Some((_, one)) = attached {
        let port = one.at_port.iter();
        steps.extend(port.map(|element| Step::element_of(Family::Bridge, Place::Gateway, element)));
    }
    if let Some(path) = plan.network {
        steps.push(Step::new(Place::Box, Kind::Namespace, &format!("nsenter --net={path}")));
    }
    let options: String = namespaces(plan).iter().map(|(_, option)| format!(" --{option}")).collect();
    if !options.is_empty() {
        steps.push(Step::new(Place::Box, Kind::Namespace, &format!("unshare{options}")));
    }
    steps.extend(mounts::before_settings(request, can_be_root).iter().map(Step::mount));
    if request.has_own_network() {
        let of_box = settings::of_box_with(request.net.count_links(), plan.privileges, plan.identity.gid);
        steps.extend(of_box.iter().map(|setting| Step::set(Place::Box, setting)));
    }
    steps.extend(mounts::after_settings(request, can_be_root).iter().map(Step::mount));
    if let Some(name) = &request.hostname {
        steps.push(Step::new(Place::Box, Kind::Hostname, &format!("hostname {name}")));
    }
    if let Some((_, one)) = attached {
        for (pair, wires) in wiring::to_box(one.id, &one.attachment, one.end) {
            steps.push(Step::ip(Place::Gateway, Kind::Link, &pair.words("BOX")));
            steps.extend(wires.iter().map(|wire| Step::wire(Place::Gateway, wire)));
        }
    }
    if request.has_own_network() {
        let links = attached.map(|(_, one)| BoxLink::all(&one.attachment, one.end.mtu)).unwrap_or_default();
        let in_box = wiring::in_box(&links);
        steps.extend(in_box.iter().map(|wire| Step::wire(Place::Box, wire)));
    }
    let put = |path: &&str| Step::new(Place::Box, Kind::Mount, &format!("mount --bind FILE {path}"));
    steps.extend(plan.files.iter().map(put));
    if let Some((directory, names)) = plan.etc {
        let put = |name| {
            Step::new(Place::Box, Kind::Mount, &format!("mount --bind {directory}/{name} /etc/{name}"))
        };
        steps.extend(names.iter().map(put));
    }
    if let Some(name) = plan.exported {
        steps.push(Step::new(Place::Host, Kind::Namespace, &format!("ip netns attach {name} BOX")));
    }
    if let Some((_, one)) = attached {
        steps.extend(one.published.iter().map(|element| Step::element(Place::Gateway, element)));
        steps.extend(one.published_on_host.iter().map(|element| Step::element(Place::Host, element)));
    }
    steps
}

/// The namespaces that the box has of its own, each with its option of unshare(1).
fn namespaces(plan: &RunPlan<'_>) -> Vec<(&'static str, &'static str)> {
    let request = plan.request;
    let all = [
        (plan.privileges.own_users, ("user", "user")),
        (request.has_own_network(), ("network", "net")),
        (request.has_own_mounts(), ("mount", "mount")),
        (request.unshare.pid, ("pid", "pid --fork")),
        (request.has_own_hostname(), ("uts", "uts")),
        (request.unshare.ipc, ("ipc", "ipc")),
    ];
    all.into_iter().filter(|(own, _)| *own).map(|(_, names)| names).collect()
}

impl Step {
    fn new(place: Place, kind: Kind, command: &str) -> Self {
        Self { place, kind, command: command.to_owned() }
    }

    fn ip(place: Place, kind: Kind, words: &str) -> Self {
        let option = match place {
            Place::Host => "",
            Place::Gateway => "-n GATEWAY ",
            Place::Box => "-n BOX ",
        };
        Self { place, kind, command: format!("ip {option}{words}") }
    }

    fn wire(place: Place, wire: &Wire) -> Self {
        let kind = match wire {
            Wire::Bridge { .. }
            | Wire::Mtu { .. }
            | Wire::Port { .. }
            | Wire::NoAddressOfItsOwn { .. }
            | Wire::Up { .. } => Kind::Link,
            Wire::Behind { .. } => return Self::bridge(place, &wire.to_string()),
            Wire::Address { .. } => Kind::Address,
            Wire::Neighbour { .. } => Kind::Neighbour,
            Wire::Deliver { .. } | Wire::Route { .. } => Kind::Route,
            Wire::Rule(_) => Kind::Rule,
        };
        Self::ip(place, kind, &wire.to_string())
    }

    /// In the words of bridge(8), which has ip(8)'s options.
    fn bridge(place: Place, words: &str) -> Self {
        let ip = Self::ip(place, Kind::Neighbour, words);
        Self { command: ip.command.replacen("ip ", "bridge ", 1), ..ip }
    }

    /// Another program than ip(8), in the network of `place`.
    fn program(place: Place, kind: Kind, words: &str) -> Self {
        let prefix = match place {
            Place::Host => "",
            Place::Gateway => "ip netns exec GATEWAY ",
            Place::Box => "ip netns exec BOX ",
        };
        Self { place, kind, command: format!("{prefix}{words}") }
    }

    fn set(place: Place, setting: &Setting) -> Self {
        Self::program(place, Kind::Sysctl, &format!("sysctl -w {setting}"))
    }

    fn nft(place: Place, words: &str) -> Self {
        Self::program(place, Kind::Nftables, &format!("nft {words}"))
    }

    fn element(place: Place, element: &Element) -> Self {
        Self::element_of(Family::Inet, place, element)
    }

    fn element_of(family: Family, place: Place, element: &Element) -> Self {
        Self::nft(place, &format!("'add element {family} {TABLE} {} {{ {element} }}'", element.set))
    }

    fn mount(mount: &Mount) -> Self {
        Self::new(Place::Box, Kind::Mount, &mount.to_string())
    }
}

/// The rules of a namespace, and what is in their sets and maps.
type Ruleset = (Vec<Table>, Vec<Element>);

/// The host's rules, with what the box adds to them.
fn host_rules(plan: &GatewayPlan, one: &BoxPlan<'_>) -> Ruleset {
    let mut elements: Vec<_> = plan.switched.iter().map(|name| ruleset::switched(name)).collect();
    elements.extend(plan.switched6.iter().map(|name| ruleset::switched6(name)));
    elements.extend(routed_elements(one));
    elements.extend(one.published_on_host.iter().cloned());
    (ruleset::host(&plan.topology, plan.connections), elements)
}

/// What the box's network adds to the rules on both sides.
fn routed_elements(one: &BoxPlan<'_>) -> Vec<Element> {
    let routed = one.networks.iter().filter_map(|(network, _)| Routed::of(network));
    routed.flat_map(|routed| routed.elements()).collect()
}

/// The rules of the networks' bridges, with what the box adds to them; nothing where it is in no network.
fn bridge_rules(one: &BoxPlan<'_>) -> Option<Ruleset> {
    (!one.networks.is_empty()).then(|| (ruleset::bridge(), one.at_port.clone()))
}

/// The gateway's rules, with what the box adds to them.
fn gateway_rules(plan: &GatewayPlan, one: &BoxPlan<'_>) -> Ruleset {
    let mut elements: Vec<_> =
        plan.host_addresses.iter().map(|address| ruleset::host_address(*address)).collect();
    let internal = one.networks.iter().filter(|(network, _)| network.internal);
    elements.extend(internal.map(|(_, member)| ruleset::internal(&member.bridge_name())));
    elements.extend(routed_elements(one));
    elements.extend(one.let_in.iter().chain(&one.published).cloned());
    (ruleset::gateway(&plan.topology, plan.connections), elements)
}
