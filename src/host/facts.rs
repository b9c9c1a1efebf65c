//! The machine's network, read once.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use ipnet::IpNet;

use crate::error::{Context, Result};
use crate::kernel::route::Route;
use crate::kernel::route::link::LinkInfo;
use crate::kernel::route::path::{MAIN, RouteInfo, RouteKind};
use crate::kernel::sysctl;
use crate::plan::facts::{Facts, Forwarding, HostAddress, Ipv6Facts, Link, Uplink};

/// Reads the network of the calling thread's namespace: links, addresses and routes by netlink, the
/// global forwarding switches from `/proc/sys`.
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
    let ipv6 = match sysctl::read(&["ipv6", "conf", "all", "forwarding"]) {
        Ok(switch) => Some(Ipv6Facts {
            uplink: uplink(|net| matches!(net, IpNet::V6(_)), &routes, &links, &addresses),
            forwards: switch != "0",
            force_forwarding: links
                .iter()
                .filter_map(|link| Some((link.name.clone(), link.force_forwarding_v6?)))
                .collect(),
        }),
        // Not compiled in, not loaded, or started with ipv6.disable=1.
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).context(|| "cannot read net.ipv6.conf.all.forwarding"),
    };
    Ok(Facts {
        uplink: uplink(|net| matches!(net, IpNet::V4(_)), &routes, &links, &addresses),
        ipv6,
        addresses,
        routes: routes.iter().filter(|route| leads_away(route)).map(|route| route.destination).collect(),
        forwarding: Forwarding {
            global: switch != "0",
            links: links
                .iter()
                .map(|link| (link.name.clone(), link.forwarding_v4))
                .collect::<BTreeMap<_, _>>(),
        },
        // ENOENT: not loaded.
        tracked_connections: sysctl::read(&["netfilter", "nf_conntrack_max"])
            .ok()
            .and_then(|max| max.parse().ok()),
        links: links
            .into_iter()
            .map(|LinkInfo { index, name, up, loopback, mtu, .. }| Link { index, name, up, loopback, mtu })
            .collect(),
    })
}

/// The link of the default route, of one family, that the kernel takes first.
fn uplink(
    of_family: impl Fn(&IpNet) -> bool,
    routes: &[RouteInfo],
    links: &[LinkInfo],
    addresses: &[HostAddress],
) -> Option<Uplink> {
    let default = routes
        .iter()
        .filter(|route| route.table == MAIN && route.kind == RouteKind::Unicast)
        .filter(|route| of_family(&route.destination) && route.destination.prefix_len() == 0)
        .filter(|route| route.dev.is_some())
        .min_by_key(|route| route.metric)?;
    let link = links.iter().find(|link| Some(link.index) == default.dev)?;
    let first = || {
        let mut own = addresses.iter().filter(|address| address.index == link.index);
        own.find(|address| of_family(&address.address)).map(|address| address.address.addr())
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
        RouteKind::Local | RouteKind::Other(libc::RTN_BROADCAST | libc::RTN_ANYCAST | libc::RTN_MULTICAST)
    )
}
