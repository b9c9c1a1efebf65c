//! `netbox run --dry-run`: the plan, printed. It changes nothing and needs no rights.

use crate::apply::state::State;
use crate::apply::{attach, lease, reserve};
use crate::error::Result;
use crate::host;
use crate::plan::gateway;
use crate::plan::identity::{Caller, Identity};
use crate::plan::ipv6::{self, GlobalId};
use crate::plan::privileges::privileges;
use crate::plan::record::PortMap;
use crate::plan::refusal;
use crate::plan::render::{self, BoxPlan};
use crate::spec::capability::Capabilities;
use crate::spec::net::Net;
use crate::spec::port::{HostPort, PortRequest};
use crate::spec::request::RunRequest;

/// An id that no box has: the alphabet of ids has no 0.
const EXAMPLE: &str = "example0";

/// The random part of the prefix that boxes would have.
const EXAMPLE_PREFIX: GlobalId = *b"nbexa";

/// What the run would do, as text.
///
/// # Errors
/// The refusals of a run, a taken port and a taken name among them.
pub fn dry_run(request: &RunRequest, caller: &Caller, identity: &Identity) -> Result<String> {
    refusal::unsupported(request)?;
    // Whoever is not root asks what root would do.
    let own = if caller.uid == 0 { caller.capabilities } else { Capabilities::ALL };
    let privileges = privileges(request, identity, own)?;
    // Held for a moment only: bind(2) is the one honest answer to whether a port is free.
    match reserve::reserve(&request.publish) {
        Ok(held) => drop(held),
        // A port below 1024, which the run itself, by root, would have.
        Err(error) if error.errno() == Some(libc::EACCES) => {}
        Err(error) => return Err(error),
    }
    if let (Some(name), Ok(Some(mut state))) = (&request.name, State::open_existing()) {
        lease::check_name(&state.lock()?, name)?;
    }
    let mut text = String::new();
    if request.net == Net::Nat {
        let plan = gateway::gateway(&host::observe()?, 0, EXAMPLE_PREFIX)?;
        let topology = plan.topology;
        let ports: Vec<_> = request.publish.iter().flat_map(port_maps).collect();
        let mtu = request.mtu.unwrap_or(topology.mtu);
        let address6 = ipv6::of_box(&topology, 0, mtu);
        let one = BoxPlan {
            id: EXAMPLE,
            slot: 0,
            address6,
            mtu,
            ports: &ports,
            host_elements: attach::host_elements(topology, 0, address6, &ports),
            gateway_elements: attach::gateway_elements(topology, EXAMPLE, 0, address6, &ports),
        };
        text.push_str(&render::gateway(&plan));
        text.push_str(&render::box_steps(&topology, &one));
        text.push_str(&render::rules(&plan, &one));
    }
    text.push_str(&render::command(request, identity, &privileges));
    Ok(text)
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
