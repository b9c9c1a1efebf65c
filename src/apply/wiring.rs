//! Small effects that the gateway and the boxes share, and the translation of planned routes for the kernel.

use std::io::{self, ErrorKind};

use crate::error::{Context, Result};
use crate::kernel::route::path::{RouteKind, RouteSpec};
use crate::kernel::route::rule::RuleSpec;
use crate::kernel::route::{PROTOCOL, Refused, Request, Route};
use crate::kernel::sysctl;
use crate::plan::routing;
use crate::plan::topology::{Ipv6, MARK};

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
pub fn set_up_gateway_sysctls(ipv6: Ipv6) -> Result<()> {
    // Before there is an interface, so that each begins with these.
    let four: [(&[&str], &str); 8] = [
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
    let six: &[(&[&str], &str)] = match ipv6 {
        Ipv6::Absent => &[],
        Ipv6::Closed => &[
            (&["ipv6", "conf", "all", "disable_ipv6"], "1"),
            (&["ipv6", "conf", "default", "accept_ra"], "0"),
        ],
        // What is written to `all` is the default from then on (net/ipv6/addrconf.c), but for accept_ra.
        Ipv6::Pool(_) => &[
            (&["ipv6", "conf", "all", "disable_ipv6"], "0"),
            (&["ipv6", "conf", "default", "accept_ra"], "0"),
            // IN6_ADDR_GEN_MODE_NONE: no link-local addresses, and so no neighbour discovery and no redirects.
            (&["ipv6", "conf", "default", "addr_gen_mode"], "1"),
            (&["ipv6", "conf", "all", "forwarding"], "1"),
            (&["ipv6", "icmp", "ratelimit"], "0"),
        ],
    };
    for (path, value) in four.iter().chain(six) {
        sysctl::write(path, value).context(|| format!("cannot set {} in the gateway", path.join(".")))?;
    }
    Ok(())
}

/// The settings of the host's end, before it is up.
///
/// # Errors
/// Naming the setting.
pub fn set_up_host_link_sysctls(link: &str, ipv6: Ipv6) -> Result<()> {
    let four = [
        ("forwarding", "1"),
        // The reverse look-up of a strict rp_filter must see the mark that `pre` sets.
        ("src_valid_mark", "1"),
        ("send_redirects", "0"),
        ("accept_redirects", "0"),
    ];
    let six: &[(&str, &str)] = match ipv6 {
        Ipv6::Absent => &[],
        // No link-local address, no router advertisement.
        Ipv6::Closed => &[("disable_ipv6", "1"), ("accept_ra", "0")],
        Ipv6::Pool(_) => &[
            // Some hosts have it switched off by default, and on for their uplink.
            ("disable_ipv6", "0"),
            ("accept_ra", "0"),
            ("accept_redirects", "0"),
        ],
    };
    let settings = four.iter().map(|setting| ("ipv4", setting)).chain(six.iter().map(|s| ("ipv6", s)));
    for (family, (name, value)) in settings {
        let path = [family, "conf", link, name];
        match sysctl::write(&path, value) {
            // A link whose MTU is too small for IPv6.
            Err(error) if error.kind() == ErrorKind::NotFound && ipv6 == Ipv6::Closed => {}
            other => other.context(|| format!("cannot set {}", path.join(".")))?,
        }
    }
    if matches!(ipv6, Ipv6::Pool(_)) {
        match Family::Ipv6.write(link, true) {
            // Before Linux 6.17 boxes have IPv6 only where the host forwards anyway.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other.context(|| format!("cannot switch IPv6 forwarding on for {link}"))?,
        }
    }
    Ok(())
}

/// The two switches of forwarding that an interface has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `net.ipv4.conf.<link>.forwarding`.
    Ipv4,
    /// `net.ipv6.conf.<link>.force_forwarding`, since Linux 6.17. The other switch of that family, `forwarding`, does not
    /// make an interface forward, but makes it deaf for router advertisements.
    Ipv6,
}

impl Family {
    fn write(self, link: &str, on: bool) -> io::Result<()> {
        let path = match self {
            Self::Ipv4 => ["ipv4", "conf", link, "forwarding"],
            Self::Ipv6 => ["ipv6", "conf", link, "force_forwarding"],
        };
        sysctl::write(&path, if on { "1" } else { "0" })
    }
}

/// Switches forwarding of one interface of the host on.
///
/// # Errors
/// Naming the interface.
pub fn switch_forwarding(family: Family, interface: &str) -> Result<()> {
    family
        .write(interface, true)
        .context(|| format!("cannot switch {family:?} forwarding on for {interface}"))
}

/// Switches forwarding of a link of netbox's own off.
///
/// # Errors
/// Those of the write, tried twice; a link that is gone, and a kernel that has no such switch, are no error.
pub fn stop_forwarding(link: &str, ipv6: Ipv6) -> io::Result<()> {
    let stop = |family: Family| match family.write(link, false).or_else(|_| family.write(link, false)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
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
    match family.write(interface, false) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
