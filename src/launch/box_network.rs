//! The box's side of its network, configured by its first process while that still may.

use std::io;

use crate::error::{Context, Result};
use crate::kernel::route::link::LinkChange;
use crate::kernel::route::{PROTOCOL, Route, address, link, neighbour, path};
use crate::kernel::sysctl;
use crate::plan::topology::{ETH, GATEWAY_MAC};

use super::message::BoxLink;

/// The loopback interface is the first of every network namespace (net/core/net_namespace.c).
const LO: u32 = 1;

/// Brings up the loopback interface, and the link with its address and its way out where there is one.
///
/// # Errors
/// Naming the step.
pub fn configure(box_link: Option<&BoxLink>, gid: u32) -> Result<()> {
    let mut route = Route::open().context(|| "cannot open netlink in the box")?;
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    let mut requests = vec![link::set(LO, &up)];
    if let Some(box_link) = box_link {
        let index = route.link_index(ETH).context(|| format!("cannot find {ETH} in the box"))?;
        close_ipv6(ETH)?;
        requests.push(address::add(index, box_link.address, 32));
        requests.push(link::set(index, &up));
        requests.push(neighbour::set(index, box_link.gateway, GATEWAY_MAC));
        requests.push(path::add(&path::RouteSpec {
            destination: None,
            kind: path::RouteKind::Unicast,
            table: 254,
            via: Some(box_link.gateway),
            onlink: true,
            dev: Some(index),
            metric: None,
            protocol: PROTOCOL,
            replace: false,
        }));
    }
    route
        .pipeline(&requests)
        .map_err(|refused| refused.refusal.into_error(format!("cannot {} in the box", refused.what)))?;
    if box_link.is_some() {
        // So that it also says that it is up, to programs that look before they send.
        route.settle(ETH).context(|| format!("cannot bring up {ETH}"))?;
    }
    let_users_ping_and_bind(gid)
}

/// IPv6 is closed on the link; the box's own ::1 works.
fn close_ipv6(link: &str) -> Result<()> {
    match sysctl::write(&["ipv6", "conf", link, "disable_ipv6"], "1") {
        Ok(()) => Ok(()),
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context(|| format!("cannot close IPv6 on {link}")),
    }
}

/// In its own network a box may use any port, and ping without a raw socket (promise N5).
fn let_users_ping_and_bind(gid: u32) -> Result<()> {
    sysctl::write(&["ipv4", "ip_unprivileged_port_start"], "0")
        .context(|| "cannot open the ports below 1024 to the box")?;
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
