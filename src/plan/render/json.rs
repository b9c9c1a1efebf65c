//! The plan for programs: one object, whose fields are those of the manual page.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;
use serde_json::Value;

use super::{
    BoxPlan, Kind, Place, Ruleset, RunPlan, Step, box_steps, bridge_rules, gateway_rules, gateway_steps,
    host_rules, namespaces,
};
use crate::plan::environment::Changes;
use crate::plan::gateway::GatewayPlan;
use crate::plan::record::PortMap;
use crate::plan::ruleset;
use crate::plan::topology::{OUT, Topology, box_link};
use crate::plan::wiring;
use crate::spec::host_port::HostPortSpec;
use crate::spec::hostname::Hostname;
use crate::spec::name::BoxName;

/// Counts up whenever a field changes its meaning or goes. New fields may come without.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    net: &'a str,
    name: Option<&'a str>,
    example: Option<Example<'a>>,
    topology: Option<Addresses<'a>>,
    mtu: Option<u32>,
    ports: &'a [PortMap],
    host_ports: &'a [HostPortSpec],
    host: Part,
    gateway: Part,
    r#box: Part,
    command: Vec<Cow<'a, str>>,
    detach: bool,
    workdir: Option<Cow<'a, str>>,
    hostname: Option<&'a str>,
    user: u32,
    group: u32,
    groups: &'a [u32],
    namespaces: Vec<&'static str>,
    capabilities: Vec<String>,
    no_new_privs: bool,
    environment: &'a Changes,
}

/// What every run chooses anew, and names and addresses follow from.
#[derive(Debug, Serialize)]
struct Example<'a> {
    id: &'a str,
    slot: u32,
    gateway: u32,
}

#[derive(Debug, Serialize)]
struct Addresses<'a> {
    pool: Ipv4Net,
    pool_ipv6: Option<Ipv6Net>,
    ipv4: Ipv4Addr,
    ipv6: Option<Ipv6Addr>,
    snat: Option<IpAddr>,
    mac: String,
    gateway_ipv4: Ipv4Addr,
    gateway_ipv6: Option<Ipv6Addr>,
    resolver_ipv4: Ipv4Addr,
    box_link: String,
    box_peer: String,
    gateway_link: &'static str,
    host_link: String,
    without_ipv6: Option<&'a str>,
}

/// What is done in one place.
#[derive(Debug, Serialize)]
struct Part {
    steps: Vec<Numbered>,
    /// `None`: there are no rules, or none are made.
    nftables: Option<Value>,
}

#[derive(Debug, Serialize)]
struct Numbered {
    /// Counts over all places from 1.
    order: usize,
    kind: Kind,
    command: String,
}

/// The plan as JSON.
///
/// # Errors
/// None that is known: every field has a form in JSON.
pub fn to_json(plan: &RunPlan<'_>) -> serde_json::Result<String> {
    let attached = plan.attached.as_ref();
    let mut steps = attached.map(|(gateway, _)| gateway_steps(gateway)).unwrap_or_default();
    steps.extend(box_steps(plan));
    let in_gateway = |gateway: &GatewayPlan, one: &BoxPlan<'_>| {
        let (mut tables, mut elements) = gateway_rules(gateway, one);
        if let Some((more, in_them)) = bridge_rules(one) {
            tables.extend(more);
            elements.extend(in_them);
        }
        (tables, elements)
    };
    let rules = |of: fn(&GatewayPlan, &BoxPlan<'_>) -> Ruleset| {
        let document = attached.map(|(gateway, one)| of(gateway, one));
        document.map(|(tables, elements)| ruleset::to_json(&tables, &elements)).transpose()
    };
    let document = Document {
        version: VERSION,
        net: plan.request.net.as_str(),
        name: plan.request.name.as_ref().map(BoxName::as_str),
        example: attached.map(|(gateway, one)| Example {
            id: one.id,
            slot: one.attachment.slot,
            gateway: gateway.topology.number,
        }),
        topology: attached.map(|(gateway, one)| addresses(gateway, one)),
        mtu: attached.map(|(_, one)| one.end.mtu),
        ports: attached.map(|(_, one)| one.ports).unwrap_or_default(),
        host_ports: &plan.request.host_ports,
        host: Part { steps: taken(&steps, Place::Host), nftables: rules(host_rules)? },
        gateway: Part { steps: taken(&steps, Place::Gateway), nftables: rules(in_gateway)? },
        r#box: Part { steps: taken(&steps, Place::Box), nftables: None },
        command: plan.request.command.iter().map(|word| word.to_string_lossy()).collect(),
        detach: plan.request.detach,
        workdir: plan.request.workdir.as_ref().map(|path| path.to_string_lossy()),
        hostname: plan.request.hostname.as_ref().map(Hostname::as_str),
        user: plan.identity.uid,
        group: plan.identity.gid,
        groups: &plan.identity.groups,
        namespaces: namespaces(plan).into_iter().map(|(name, _)| name).collect(),
        capabilities: plan.privileges.held.iter().map(|capability| capability.to_string()).collect(),
        no_new_privs: !plan.privileges.may_gain,
        environment: &plan.environment,
    };
    serde_json::to_string_pretty(&document).map(|text| text + "\n")
}

fn addresses<'a>(plan: &'a GatewayPlan, one: &BoxPlan<'_>) -> Addresses<'a> {
    let topology = &plan.topology;
    Addresses {
        pool: topology.pool,
        pool_ipv6: topology.pool6(),
        ipv4: one.link.address,
        ipv6: one.link.ipv6.map(|six| six.address),
        snat: one.attachment.snat,
        mac: wiring::written(one.end.mac),
        gateway_ipv4: one.link.gateway,
        gateway_ipv6: one.link.ipv6.map(|six| six.gateway),
        resolver_ipv4: Topology::resolver_address(one.attachment.slot),
        box_link: one.link.interface.clone(),
        box_peer: box_link(one.id, 0),
        gateway_link: OUT,
        host_link: topology.host_link(),
        without_ipv6: plan.without_ipv6.as_deref(),
    }
}

fn taken(steps: &[Step], place: Place) -> Vec<Numbered> {
    let numbered = (1..).zip(steps).filter(|(_, step)| step.place == place);
    numbered.map(|(order, step)| Numbered { order, kind: step.kind, command: step.command.clone() }).collect()
}
