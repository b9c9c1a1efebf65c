//! The machine's network, read once.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::error::{Context, Result};
use crate::kernel::route::Route;
use crate::kernel::route::link::LinkInfo;
use crate::kernel::route::path::{MAIN, RouteInfo, RouteKind};
use crate::kernel::sysctl;
use crate::plan::facts::{Facts, Forwarding, HostAddress, Link, Uplink};

/// Reads the network of the calling thread's namespace: links, addresses and routes by netlink, the
/// global forwarding switch from `/proc/sys`.
///
/// # Errors
/// When one of these cannot be read.
pub fn observe() -> Result<Facts> {
    let mut route = Route::open().context(|| "cannot open a netlink socket")?;
    let links = route.links().context(|| "cannot list the network interfaces")?;
    let listed = route.addresses().context(|| "cannot list the addresses")?;
    let routes = route.routes().context(|| "cannot list the routes")?;
    let switch = sysctl::read(&["ipv4", "ip_forward"]).context(|| "cannot read net.ipv4.ip_forward")?;

    let addresses: Vec<_> = listed
        .into_iter()
        .filter_map(|(index, address)| {
            let link = links.iter().find(|link| link.index == index)?.name.clone();
            Some(HostAddress { link, index, address })
        })
        .collect();
    Ok(Facts {
        uplink: uplink(&routes, &links, &addresses),
        addresses,
        routes: routes.iter().filter(|route| leads_away(route)).map(|route| route.destination).collect(),
        forwarding: Forwarding {
            global: switch != "0",
            links: links
                .iter()
                .map(|link| (link.name.clone(), link.forwarding_v4))
                .collect::<BTreeMap<_, _>>(),
        },
        links: links
            .into_iter()
            .map(|LinkInfo { index, name, up, loopback, mtu, .. }| Link { index, name, up, loopback, mtu })
            .collect(),
    })
}

/// The link of the default route that the kernel takes first.
fn uplink(routes: &[RouteInfo], links: &[LinkInfo], addresses: &[HostAddress]) -> Option<Uplink> {
    let default = routes
        .iter()
        .filter(|route| route.table == MAIN && route.kind == RouteKind::Unicast)
        .filter(|route| route.destination.prefix_len() == 0 && route.dev.is_some())
        .min_by_key(|route| route.metric)?;
    let link = links.iter().find(|link| Some(link.index) == default.dev)?;
    let first = || -> Option<Ipv4Addr> {
        addresses.iter().find(|address| address.index == link.index).map(|address| address.address.addr())
    };
    Some(Uplink {
        name: link.name.clone(),
        index: link.index,
        mtu: link.mtu,
        address: default.source.or_else(first),
    })
}

/// Whether a route is about other machines (or refuses them): not local, broadcast, anycast or multicast.
fn leads_away(route: &RouteInfo) -> bool {
    !matches!(
        route.kind,
        RouteKind::Other(libc::RTN_LOCAL | libc::RTN_BROADCAST | libc::RTN_ANYCAST | libc::RTN_MULTICAST)
    )
}
