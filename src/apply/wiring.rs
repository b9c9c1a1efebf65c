//! Small effects that the gateway and the boxes share, and the translation of what is planned for the kernel.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;

use crate::error::{Context, Result};
use crate::kernel::route::link::{LinkChange, Veth};
use crate::kernel::route::path::{RouteKind, RouteSpec};
use crate::kernel::route::rule::RuleSpec;
use crate::kernel::route::{PROTOCOL, Refused, Request, Route, address, link, neighbour, path, rule};
use crate::kernel::sysctl;
use crate::plan::settings::{Family, Setting};
use crate::plan::topology::{Ipv6, MARK};
use crate::plan::wiring::{Pair, Wire};
use crate::plan::{self, routing};

/// The loopback interface is the first of every network namespace (net/core/net_namespace.c).
pub const LO: u32 = 1;

/// The kernel's main routing table (RT_TABLE_MAIN).
const MAIN: u32 = 254;

/// A planned route for the kernel; `link` is the index of the interface that it names.
#[must_use]
pub fn route_spec(route: &routing::Route, link: u32) -> RouteSpec {
    RouteSpec {
        destination: route.destination,
        kind: match route.kind {
            routing::Kind::Unicast => RouteKind::Unicast,
            routing::Kind::Unreachable => RouteKind::Unreachable,
            routing::Kind::Blackhole => RouteKind::Blackhole,
            routing::Kind::Local => RouteKind::Local,
        },
        table: route.table.unwrap_or(MAIN),
        via: route.via,
        onlink: route.is_onlink(),
        dev: route.dev.as_ref().map(|_| link),
        metric: route.metric,
        protocol: PROTOCOL,
        replace: false,
    }
}

/// A planned routing rule for the kernel.
#[must_use]
pub fn rule_spec(rule: &routing::Rule) -> RuleSpec {
    RuleSpec {
        priority: rule.priority,
        destination: rule.destination,
        iif: rule.iif.clone(),
        fwmark: rule.marked.then_some((MARK, MARK)),
        table: rule.table,
    }
}

/// Sends several requests at once; an error names the one that failed.
///
/// # Errors
/// That of the first request that the kernel refused.
pub fn pipeline(route: &mut Route, requests: &[Request], place: &str) -> Result<()> {
    let named = |refused: Refused| refused.refusal.into_error(format!("cannot {} in {place}", refused.what));
    route.pipeline(requests).map_err(named)
}

/// Planned changes for the kernel, where `link` is the index of the one interface, but lo, that they name.
#[must_use]
pub fn requests(wires: &[Wire], link: u32) -> Vec<Request> {
    requests_by(wires, |dev| if dev == plan::wiring::LO { LO } else { link })
}

/// Planned changes for the kernel; `index` knows the interfaces that they name.
pub fn requests_by(wires: &[Wire], index: impl Fn(&str) -> u32) -> Vec<Request> {
    let request = |wire: &Wire| match wire {
        Wire::Bridge { dev, index, mac } => link::add_bridge(dev, *index, *mac),
        Wire::Mtu { dev, mtu } => {
            link::set(index(dev), &LinkChange { mtu: Some(*mtu), ..LinkChange::default() })
        }
        Wire::Port { dev, isolated } => link::set_port(index(dev), *isolated, plan::wiring::FORWARD_ALL),
        Wire::Behind { dev, mac } => neighbour::forward(index(dev), *mac),
        Wire::NoAddressOfItsOwn { dev } => {
            link::set(index(dev), &LinkChange { addr_gen_mode_none: true, ..LinkChange::default() })
        }
        Wire::Up { dev, alias, arp } => {
            let (up, no_arp) = (Some(true), !arp);
            link::set(index(dev), &LinkChange { up, alias: *alias, no_arp, ..LinkChange::default() })
        }
        Wire::Address { dev, address } => address::add(index(dev), address.addr(), address.prefix_len()),
        Wire::Deliver { dev, address } => path::deliver(index(dev), *address),
        Wire::Neighbour { dev, address, mac } => neighbour::set(index(dev), *address, *mac),
        Wire::Route { route, replace } => {
            // A route without an interface names none.
            let link = route.dev.as_deref().map_or(0, &index);
            path::add(&RouteSpec { replace: *replace, ..route_spec(route, link) })
        }
        Wire::Rule(rule) => rule::add(&rule_spec(rule)),
    };
    wires.iter().map(request).collect()
}

/// Makes a planned link whose other end goes to `netns`, with what is needed once it is there: of itself, or of the bridge that it
/// is a port of. Its index is planned too.
#[must_use]
pub fn link(pair: &Pair, wires: &[Wire], netns: BorrowedFd<'_>) -> Vec<Request> {
    let own = pair.indexes.map_or(0, |(own, _)| own);
    let bridge = pair.bridge.as_ref().map_or(0, |(_, index)| *index);
    let index = |dev: &str| if dev == pair.name { own } else { bridge };
    [link::add_veth(&veth(pair, netns))].into_iter().chain(requests_by(wires, index)).collect()
}

/// A planned link for the kernel; `netns` is where its other end goes.
#[must_use]
pub fn veth<'a>(pair: &'a Pair, netns: BorrowedFd<'a>) -> Veth<'a> {
    Veth {
        name: &pair.name,
        mac: pair.mac,
        mtu: pair.mtu,
        peer_name: &pair.peer,
        peer_mac: pair.peer_mac,
        peer_netns: netns,
        indexes: pair.indexes,
        bridge: pair.bridge.as_ref().map(|(_, index)| *index),
    }
}

/// Writes settings, in their order. `place`: whose they are, for the error.
///
/// # Errors
/// Naming the setting.
pub fn set(settings: &[Setting], place: &str) -> Result<()> {
    set_by(sysctl::write, settings, place)
}

/// [`set`] through `proc`, a /proc that need not be mounted.
///
/// # Errors
/// As [`set`].
pub fn set_in(proc: BorrowedFd<'_>, settings: &[Setting], place: &str) -> Result<()> {
    set_by(|path, value| sysctl::write_in(proc, path, value), settings, place)
}

fn set_by(writer: impl Fn(&[&str], &str) -> io::Result<()>, settings: &[Setting], place: &str) -> Result<()> {
    settings.iter().try_for_each(|setting| {
        write_by(&writer, setting).context(|| format!("cannot set {} {place}", setting.name()))
    })
}

fn write(setting: &Setting) -> io::Result<()> {
    write_by(sysctl::write, setting)
}

fn write_by(writer: impl Fn(&[&str], &str) -> io::Result<()>, setting: &Setting) -> io::Result<()> {
    let path: Vec<&str> = setting.path.iter().map(AsRef::as_ref).collect();
    match (writer(&path, setting.value), &setting.otherwise) {
        (Err(error), Some(other)) if error.raw_os_error() == Some(libc::EINVAL) => writer(&path, other),
        (Err(error), _) if setting.may_be_absent && error.kind() == ErrorKind::NotFound => Ok(()),
        (result, _) => result,
    }
}

/// Switches forwarding of an interface of the host on.
///
/// # Errors
/// ENOENT where it is gone.
pub fn switch_forwarding(family: Family, interface: &str) -> Result<()> {
    set(&[family.forwarding(interface, true)], "on the host")
}

/// Switches forwarding of a link of netbox's own off.
///
/// # Errors
/// Those of the write, tried twice; a link that is gone, and a kernel that has no such switch, are no error.
pub fn stop_forwarding(link: &str, ipv6: Ipv6) -> io::Result<()> {
    let stop = |family: Family| {
        let off = family.forwarding(link, false);
        match write(&off).or_else(|_| write(&off)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    };
    let four = stop(Family::Ipv4);
    let six = if matches!(ipv6, Ipv6::Pool(_)) { stop(Family::Ipv6) } else { Ok(()) };
    four.and(six)
}

/// Switches forwarding off again, unless somebody has switched all of the host to forwarding meanwhile: then it
/// is theirs.
///
/// # Errors
/// Those of the write; an interface that is gone is no error.
pub fn switch_forwarding_back(family: Family, interface: &str) -> io::Result<()> {
    // The switch of IPv6 is a second one, beside that for all.
    if family == Family::Ipv4 && sysctl::read(&["ipv4", "ip_forward"])?.trim() == "1" {
        return Ok(());
    }
    match write(&family.forwarding(interface, false)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
