//! Small effects that the gateway and the boxes share, and the translation of planned routes for the kernel.

use std::io;

use crate::error::{Context, Error, Result};
use crate::kernel::route::path::{RouteKind, RouteSpec};
use crate::kernel::route::rule::RuleSpec;
use crate::kernel::route::{PROTOCOL, Refused, Request, Route};
use crate::kernel::sysctl;
use crate::plan::routing;
use crate::plan::topology::MARK;

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
        },
        table: route.table.unwrap_or(MAIN),
        via: route.via,
        onlink: route.via.is_some(),
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

/// As [`route_spec`], for a route that takes the place of one to the same destination: the kernel frees a dead
/// box's link, and its route, a moment after the box.
#[must_use]
pub fn replacing_route_spec(route: &routing::Route, link: u32) -> RouteSpec {
    RouteSpec { replace: true, ..route_spec(route, link) }
}

/// The settings of the gateway's namespace, which may have inherited the host's (net.core.devconf_inherit_init_net).
///
/// # Errors
/// Naming the setting.
pub fn set_up_gateway_sysctls() -> Result<()> {
    // Before there is an interface, so that each begins with these.
    let settings: [(&[&str], &str); 8] = [
        (&["ipv4", "ip_forward"], "1"),
        // Replies may come by a link that a reverse look-up would not choose; who may send what is the rules' matter.
        (&["ipv4", "conf", "all", "rp_filter"], "0"),
        (&["ipv4", "conf", "default", "rp_filter"], "0"),
        (&["ipv4", "conf", "all", "send_redirects"], "0"),
        (&["ipv4", "conf", "default", "send_redirects"], "0"),
        (&["ipv4", "conf", "all", "accept_redirects"], "0"),
        (&["ipv4", "conf", "default", "accept_redirects"], "0"),
        // What is denied is answered, each time: a box shall not wait for a time-out.
        (&["ipv4", "icmp_ratelimit"], "0"),
    ];
    for (path, value) in settings {
        sysctl::write(path, value).context(|| format!("cannot set {} in the gateway", path.join(".")))?;
    }
    without_ipv6("all")?;
    without_ipv6("default")
}

/// The settings of the host's end, before it is up.
///
/// # Errors
/// Naming the setting.
pub fn set_up_host_link_sysctls(link: &str) -> Result<()> {
    let settings = [
        ("forwarding", "1"),
        // The reverse look-up of a strict rp_filter must see the mark that `pre` sets.
        ("src_valid_mark", "1"),
        ("send_redirects", "0"),
        ("accept_redirects", "0"),
    ];
    for (name, value) in settings {
        let path = ["ipv4", "conf", link, name];
        sysctl::write(&path, value).context(|| format!("cannot set {}", path.join(".")))?;
    }
    without_ipv6(link)
}

/// Closes IPv6 on an interface: no link-local address, no router advertisement.
///
/// # Errors
/// When it is there and cannot be closed.
pub fn without_ipv6(link: &str) -> Result<()> {
    for (name, value) in [("disable_ipv6", "1"), ("accept_ra", "0")] {
        let path = ["ipv6", "conf", link, name];
        match sysctl::write(&path, value) {
            Ok(()) => {}
            // A kernel without IPv6: closed already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::new(format!("cannot set {}", path.join("."))).os(&error)),
        }
    }
    Ok(())
}

/// Switches IPv4 forwarding of one interface of the host.
///
/// # Errors
/// Naming the interface.
pub fn switch_forwarding(interface: &str, on: bool) -> Result<()> {
    write_forwarding(interface, on).context(|| format!("cannot switch forwarding on {interface}"))
}

fn write_forwarding(interface: &str, on: bool) -> io::Result<()> {
    sysctl::write(&["ipv4", "conf", interface, "forwarding"], if on { "1" } else { "0" })
}

/// Switches IPv4 forwarding of a link of netbox's own off.
///
/// # Errors
/// Those of the write, tried twice; a link that is gone is no error.
pub fn stop_forwarding(link: &str) -> io::Result<()> {
    match write_forwarding(link, false).or_else(|_| write_forwarding(link, false)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Switches forwarding off again, unless somebody has switched all of the host to forwarding meanwhile: then it
/// is theirs.
///
/// # Errors
/// Those of the write; an interface that is gone is no error.
pub fn switch_forwarding_back(interface: &str) -> io::Result<()> {
    if sysctl::read(&["ipv4", "ip_forward"])?.trim() == "1" {
        return Ok(());
    }
    match write_forwarding(interface, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
