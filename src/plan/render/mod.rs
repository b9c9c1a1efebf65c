//! `--dry-run`: what a run would do, in the words of `ip`, `sysctl` and `nft`.

use std::fmt::Write;
use std::net::Ipv6Addr;

use crate::spec::capability::Capabilities;
use crate::spec::request::RunRequest;

use super::gateway::GatewayPlan;
use super::identity::Identity;
use super::privileges::{OF_ROOT, Privileges};
use super::record::PortMap;
use super::routing;
use super::ruleset::{self, Element};
use super::topology::{ETH, GATEWAY_MAC, HOST_MAC, Ipv6, Mac, OUT, OUT_MAC, Topology, WRONG_MAC, box_link};

/// One box to be made.
#[derive(Debug)]
pub struct BoxPlan<'a> {
    /// An example of an id.
    pub id: &'a str,
    /// Its slot in the pool.
    pub slot: u32,
    /// Its IPv6 address, where it gets one.
    pub address6: Option<Ipv6Addr>,
    /// The MTU of its link, in bytes.
    pub mtu: u32,
    /// Its published ports; host port 0 is one that the kernel will choose.
    pub ports: &'a [PortMap],
    /// The elements of the host's maps.
    pub host_elements: Vec<Element>,
    /// The elements of the gateway's sets and maps.
    pub gateway_elements: Vec<Element>,
}

/// The steps that make the gateway, on the host and inside.
#[must_use]
pub fn gateway(plan: &GatewayPlan) -> String {
    let t = &plan.topology;
    let (link, gw, nh) = (t.host_link(), t.gateway_address(), t.next_hop());
    let mut text = String::new();
    let mut line = |words: String| text.push_str(&(words + "\n"));
    line("# the gateway: a network namespace between boxes and host".to_owned());
    line("sysctl -w net.ipv4.ip_forward=1                            # in the gateway".to_owned());
    if t.pool6().is_some() {
        line("sysctl -w net.ipv6.conf.all.forwarding=1                   # in the gateway".to_owned());
    }
    line(format!(
        "ip link add {link} address {} mtu {} type veth peer name {OUT} address {} netns GATEWAY",
        mac(HOST_MAC),
        t.mtu,
        mac(OUT_MAC)
    ));
    line(format!("ip -n GATEWAY addr add {gw}/32 dev {OUT}"));
    line(format!("ip -n GATEWAY neigh add {nh} lladdr {} nud permanent dev {OUT}", mac(WRONG_MAC)));
    if let (Some(gw), Some(nh)) = (t.gateway_address6(), t.next_hop6()) {
        line(format!("ip -n GATEWAY addr add {gw}/128 dev {OUT} nodad"));
        line(format!("ip -n GATEWAY neigh add {nh} lladdr {} nud permanent dev {OUT}", mac(WRONG_MAC)));
    }
    for route in routing::gateway_routes(t) {
        line(format!("ip -n GATEWAY {}route add {route}", family_option(&route)));
    }
    line("# the host".to_owned());
    for name in ["forwarding=1", "src_valid_mark=1", "send_redirects=0", "accept_redirects=0"] {
        line(format!("sysctl -w net.ipv4.conf.{link}.{name}"));
    }
    match t.ipv6 {
        Ipv6::Absent => {}
        Ipv6::Closed => line(format!("sysctl -w net.ipv6.conf.{link}.disable_ipv6=1")),
        Ipv6::Pool(_) => {
            for setting in ["accept_ra=0", "accept_redirects=0", "force_forwarding=1"] {
                line(format!("sysctl -w net.ipv6.conf.{link}.{setting}"));
            }
        }
    }
    for rule in routing::host_rules(t, &plan.switched, &plan.switched6) {
        let family = if rule.destination.addr().is_ipv6() { "-6 " } else { "" };
        line(format!("ip {family}rule add {rule}"));
    }
    for (_, gateway) in t.pools() {
        line(format!("ip neigh add {gateway} lladdr {} nud permanent dev {link}", mac(OUT_MAC)));
    }
    for route in routing::host_routes(t) {
        line(format!("ip {}route add {route}", family_option(&route)));
    }
    for interface in &plan.switched {
        line(format!("sysctl -w net.ipv4.conf.{interface}.forwarding=1"));
    }
    for interface in &plan.switched6 {
        line(format!("sysctl -w net.ipv6.conf.{interface}.force_forwarding=1"));
    }
    if let Some(reason) = &plan.without_ipv6 {
        line(format!("# no IPv6: {reason}"));
    }
    text
}

/// Both rulesets, with what a box adds to them.
#[must_use]
pub fn rules(plan: &GatewayPlan, one: &BoxPlan<'_>) -> String {
    let mut host: Vec<_> = plan.switched.iter().map(|name| ruleset::switched(name)).collect();
    host.extend(plan.switched6.iter().map(|name| ruleset::switched6(name)));
    host.extend(one.host_elements.iter().cloned());
    let mut inner: Vec<_> =
        plan.host_addresses.iter().map(|address| ruleset::host_address(*address)).collect();
    inner.extend(one.gateway_elements.iter().cloned());
    format!(
        "# nft, on the host\n{}\n# nft, in the gateway\n{}",
        ruleset::to_text(&ruleset::host(&plan.topology), &host),
        ruleset::to_text(&ruleset::gateway(&plan.topology, plan.connections), &inner),
    )
}

/// The steps that make one box.
#[must_use]
pub fn box_steps(topology: &Topology, one: &BoxPlan<'_>) -> String {
    let (link, address, gw) = (box_link(one.id), topology.box_address(one.slot), topology.gateway_address());
    let mut text = String::new();
    let mut line = |words: String| text.push_str(&(words + "\n"));
    line("# the box: its id and its address are examples".to_owned());
    line(format!(
        "ip -n GATEWAY link add {link} address {} mtu {} type veth peer name {ETH} address {} netns BOX",
        mac(GATEWAY_MAC),
        one.mtu,
        mac(Topology::box_mac(one.slot))
    ));
    line(format!(
        "ip -n GATEWAY neigh add {address} lladdr {} nud permanent dev {link}",
        mac(Topology::box_mac(one.slot))
    ));
    line(format!("ip -n GATEWAY route add {}", routing::box_route(address, &link)));
    line(format!("ip -n BOX addr add {address}/32 dev {ETH}"));
    line(format!("ip -n BOX neigh add {gw} lladdr {} nud permanent dev {ETH}", mac(GATEWAY_MAC)));
    line(format!("ip -n BOX route add default via {gw} dev {ETH} onlink"));
    if let (Some(address), Some(gw)) = (one.address6, topology.gateway_address6()) {
        let neighbour = mac(Topology::box_mac(one.slot));
        line(format!("ip -n GATEWAY neigh add {address} lladdr {neighbour} nud permanent dev {link}"));
        line(format!("ip -n GATEWAY -6 route add {}", routing::box_route(address, &link)));
        line(format!("ip -n BOX addr add {address}/128 dev {ETH} nodad"));
        line(format!("ip -n BOX neigh add {gw} lladdr {} nud permanent dev {ETH}", mac(GATEWAY_MAC)));
        line(format!("ip -n BOX -6 route add default via {gw} dev {ETH} onlink"));
    }
    let resolver = Topology::resolver_address(one.slot);
    line(format!(
        "# the resolver: {resolver} port 53 in the gateway, for {link} alone; resolv.conf of the box names it"
    ));
    for port in one.ports {
        line(format!("# {port} of {address}"));
    }
    text
}

/// What tells ip(8) the family where the words of a route do not.
fn family_option(route: &routing::Route) -> &'static str {
    if route.destination.addr().is_ipv6() { "-6 " } else { "" }
}

/// Who the command runs as, in which namespaces, and what it runs.
#[must_use]
pub fn command(request: &RunRequest, identity: &Identity, privileges: &Privileges) -> String {
    let words: Vec<_> = request.command.iter().map(|word| word.to_string_lossy()).collect();
    let kinds = [
        (request.has_own_network(), "network"),
        (request.has_own_mounts(), "mount"),
        (request.unshare.pid, "pid"),
        (request.has_own_hostname(), "UTS"),
        (request.unshare.ipc, "IPC"),
        (privileges.own_users, "user"),
    ];
    let kinds: Vec<_> = kinds.iter().filter(|(own, _)| *own).map(|(_, name)| *name).collect();
    let rights = match privileges.held {
        Capabilities::NONE => "no capabilities".to_owned(),
        OF_ROOT => "Docker's default capabilities less NET_RAW and MKNOD".to_owned(),
        other => other.to_string(),
    };
    let gain = if privileges.may_gain { "without no_new_privs" } else { "with no_new_privs" };
    let mut text = format!("# as user {}, group {}, with {rights}, {gain}\n", identity.uid, identity.gid);
    // Writing to a String cannot fail.
    if !kinds.is_empty() {
        let _ = writeln!(text, "# namespaces of its own: {}", kinds.join(", "));
    }
    if let Some(name) = &request.hostname {
        let _ = writeln!(text, "hostname {name}");
    }
    let _ = writeln!(text, "exec {}", words.join(" "));
    text
}

fn mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
