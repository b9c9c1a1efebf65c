//! The box's side of its network, configured by its first process while that still may.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::{Context, Result};
use crate::kernel::route::link::LinkChange;
use crate::kernel::route::{Request, Route, address, link, neighbour, path};
use crate::kernel::sysctl;
use crate::plan::identity::Identity;
use crate::plan::privileges::Privileges;
use crate::plan::topology::{ETH_INDEX, GATEWAY_MAC};
use crate::spec::capability::Capability;

use super::message::BoxLink;

/// The loopback interface is the first of every network namespace (net/core/net_namespace.c).
const LO: u32 = 1;

/// Brings up the loopback interface, and the link with its address and its way out where there is one.
///
/// # Errors
/// Naming the step.
pub fn configure(box_link: Option<&BoxLink>) -> Result<()> {
    let mut route = Route::open().context(|| "cannot open netlink in the box")?;
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    let mut requests = vec![link::set(LO, &up)];
    if let Some(box_link) = box_link {
        let index = ETH_INDEX;
        requests.push(address::add(index, box_link.address, 32));
        // No link-local address is made, and so neither is neighbour discovery nor a router solicitation; nobody in the box may
        // add one, and the gateway drops the rest. Not by the sysctl: a first look at each in a new namespace takes as long as there are namespaces, since
        // all have a dentry of that name under one parent (fs/proc/proc_sysctl.c, `proc_sys_compare`).
        if box_link.has_ipv6 {
            requests
                .push(link::set(index, &LinkChange { addr_gen_mode_none: true, ..LinkChange::default() }));
        }
        requests.push(link::set(index, &up));
        requests.extend(way_out(index, path::ANYWHERE4, box_link.gateway.into()));
        if let Some((address, gateway)) = box_link.ipv6 {
            requests.push(address::add(index, address, 128));
            requests.push(path::deliver(index, address));
            requests.extend(way_out(index, path::ANYWHERE6, gateway.into()));
        }
        // So that it also says that it is up, to programs that look before they send.
        requests.push(link::settle(index));
    }
    route
        .pipeline(&requests)
        .map_err(|refused| refused.refusal.into_error(format!("cannot {} in the box", refused.what)))
}

/// A default route by way of the gateway, whose hardware address is fixed.
fn way_out(index: u32, destination: IpNet, gateway: IpAddr) -> [Request; 2] {
    let route = path::RouteSpec {
        destination,
        via: Some(gateway),
        onlink: true,
        dev: Some(index),
        ..path::RouteSpec::default()
    };
    [neighbour::set(index, gateway, GATEWAY_MAC), path::add(&route)]
}

/// In its own network a box may use any port, and ping without a raw socket (promise N5).
///
/// # Errors
/// Those of writing to /proc/sys/net.
pub fn let_users_ping_and_bind(identity: &Identity, privileges: &Privileges) -> Result<()> {
    // Root, as a rule, has the capability for it.
    if !privileges.held.contains(Capability::NET_BIND_SERVICE) {
        sysctl::write(&["ipv4", "ip_unprivileged_port_start"], "0")
            .context(|| "cannot open the ports below 1024 to the box")?;
    }
    let gid = identity.gid;
    let path = ["ipv4", "ping_group_range"];
    match sysctl::write(&path, "0 2147483647") {
        // In a user namespace that does not map them all (icmp(7)): at least the command's own group.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            sysctl::write(&path, &format!("{gid} {gid}"))
        }
        other => other,
    }
    .context(|| "cannot let the box ping")
}
