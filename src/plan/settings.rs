//! Settings of the kernel's network, as values that print in the words of sysctl(8).
//!
//! What is written and what `--dry-run` prints are the same lists.

use std::borrow::Cow;
use std::fmt;

use crate::spec::capability::Capability;

use super::privileges::Privileges;
use super::topology::Ipv6;

/// A value below `/proc/sys/net`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Where it is, one name each. The name of an interface may contain dots.
    pub path: Vec<Cow<'static, str>>,
    /// What is written.
    pub value: &'static str,
    /// What is written where the kernel refuses that as no value (EINVAL).
    pub otherwise: Option<String>,
    /// Whether all is well where the kernel has no such value.
    pub may_be_absent: bool,
}

impl Setting {
    fn new<const N: usize>(path: [&'static str; N], value: &'static str) -> Self {
        Self { path: path.map(Cow::Borrowed).into(), value, otherwise: None, may_be_absent: false }
    }

    /// One of those that each interface has.
    fn of_link(family: &'static str, link: &str, name: &'static str, value: &'static str) -> Self {
        let mut setting = Self::new([family, "conf", "", name], value);
        setting.path[2] = Cow::Owned(link.to_owned());
        setting
    }

    /// The same, where it is fine for the kernel not to have it.
    fn or_absent(self) -> Self {
        Self { may_be_absent: true, ..self }
    }

    /// Its name in the words of sysctl(8), where a dot in the name of an interface is a slash.
    #[must_use]
    pub fn name(&self) -> String {
        let names = self.path.iter().map(|name| format!(".{}", name.replace('.', "/")));
        format!("net{}", names.collect::<String>())
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.value.contains(' ') { "\"" } else { "" };
        write!(f, "{}={quote}{}{quote}", self.name(), self.value)
    }
}

/// Those of the gateway's namespace, which may have inherited the host's (net.core.devconf_inherit_init_net). To be
/// written before there is an interface, so that each begins with these.
#[must_use]
pub fn of_gateway(ipv6: Ipv6) -> Vec<Setting> {
    let mut settings = vec![
        Setting::new(["ipv4", "ip_forward"], "1"),
        // Replies may come by a link that a reverse look-up would not choose; who may send what is the rules' matter.
        Setting::new(["ipv4", "conf", "all", "rp_filter"], "0"),
        Setting::new(["ipv4", "conf", "default", "rp_filter"], "0"),
        Setting::new(["ipv4", "conf", "all", "send_redirects"], "0"),
        Setting::new(["ipv4", "conf", "default", "send_redirects"], "0"),
        Setting::new(["ipv4", "conf", "all", "accept_redirects"], "0"),
        Setting::new(["ipv4", "conf", "default", "accept_redirects"], "0"),
        // With a source route (RFC 791) a box would go on to another one in the connection that it has with the gateway itself.
        Setting::new(["ipv4", "conf", "all", "accept_source_route"], "0"),
        // What is denied is answered, each time: a box shall not wait for a time-out.
        Setting::new(["ipv4", "icmp_ratelimit"], "0"),
    ];
    match ipv6 {
        Ipv6::Absent => {}
        Ipv6::Closed => settings.extend([
            Setting::new(["ipv6", "conf", "all", "disable_ipv6"], "1"),
            Setting::new(["ipv6", "conf", "default", "accept_ra"], "0"),
        ]),
        // What is written to `all` is the default from then on (net/ipv6/addrconf.c), but for accept_ra.
        Ipv6::Pool(_) => settings.extend([
            Setting::new(["ipv6", "conf", "all", "disable_ipv6"], "0"),
            Setting::new(["ipv6", "conf", "default", "accept_ra"], "0"),
            // IN6_ADDR_GEN_MODE_NONE: no link-local addresses, and so no neighbour discovery and no redirects.
            Setting::new(["ipv6", "conf", "default", "addr_gen_mode"], "1"),
            Setting::new(["ipv6", "conf", "all", "forwarding"], "1"),
            Setting::new(["ipv6", "icmp", "ratelimit"], "0"),
        ]),
    }
    settings
}

/// How long the gateway's connection tracking remembers closed TCP connections: as [`CLOSED`](super::ruleset::CLOSED) has it for
/// the host's. They are there when the rules are. Not without CONFIG_NF_CONNTRACK_PROCFS.
#[must_use]
pub fn of_tracking() -> [Setting; 2] {
    [
        Setting::new(["netfilter", "nf_conntrack_tcp_timeout_time_wait"], "2").or_absent(),
        Setting::new(["netfilter", "nf_conntrack_tcp_timeout_close"], "1").or_absent(),
    ]
}

/// Those of the gateway's bridges: what passes from port to port is not shown to the rules of IP, which would reject it. Only where
/// br_netfilter is in the kernel or loaded, which sets them in every network namespace.
#[must_use]
pub fn of_bridges() -> [Setting; 3] {
    ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"]
        .map(|name| Setting::new(["bridge", name], "0").or_absent())
}

/// Those of the host's end of the gateway's link, before it is up.
#[must_use]
pub fn of_host_link(link: &str, ipv6: Ipv6) -> Vec<Setting> {
    let mut settings = vec![
        Family::Ipv4.forwarding(link, true),
        // The reverse look-up of a strict rp_filter must see the mark that `pre` sets.
        Setting::of_link("ipv4", link, "src_valid_mark", "1"),
        Setting::of_link("ipv4", link, "send_redirects", "0"),
        Setting::of_link("ipv4", link, "accept_redirects", "0"),
    ];
    match ipv6 {
        Ipv6::Absent => {}
        // No link-local address, no router advertisement. A link whose MTU is too small for IPv6 has neither setting.
        Ipv6::Closed => settings.extend([
            Setting::of_link("ipv6", link, "disable_ipv6", "1").or_absent(),
            Setting::of_link("ipv6", link, "accept_ra", "0").or_absent(),
        ]),
        Ipv6::Pool(_) => settings.extend([
            // Some hosts have it switched off by default, and on for their uplink.
            Setting::of_link("ipv6", link, "disable_ipv6", "0"),
            Setting::of_link("ipv6", link, "accept_ra", "0"),
            Setting::of_link("ipv6", link, "accept_redirects", "0"),
            // Before Linux 6.17 boxes have IPv6 only where the host forwards anyway.
            Family::Ipv6.forwarding(link, true).or_absent(),
        ]),
    }
    settings
}

/// Those of a box, in whose own network the command may use any port, and ping without a raw socket (promise N5).
fn of_box(privileges: &Privileges, gid: u32) -> Vec<Setting> {
    let ping = Setting {
        // In a user namespace that does not map them all (icmp(7)): at least the command's own group.
        otherwise: Some(format!("{gid} {gid}")),
        ..Setting::new(["ipv4", "ping_group_range"], "0 2147483647")
    };
    // Root, as a rule, has the capability for it.
    let may_bind = privileges.held.contains(Capability::NET_BIND_SERVICE);
    let ports = (!may_bind).then(|| Setting::new(["ipv4", "ip_unprivileged_port_start"], "0"));
    ports.into_iter().chain([ping]).collect()
}

/// Those of a box with several links, which is not to be a router between them: its network may have inherited that the host is one
/// (net.core.devconf_inherit_init_net).
#[must_use]
pub fn of_several_links() -> [Setting; 2] {
    [
        Setting::new(["ipv4", "ip_forward"], "0"),
        Setting::new(["ipv6", "conf", "all", "forwarding"], "0").or_absent(),
    ]
}

/// IPv6 is on for a link of a box.
#[must_use]
pub fn ipv6_of_link(link: &str) -> Setting {
    Setting::of_link("ipv6", link, "disable_ipv6", "0").or_absent()
}

/// All of a box, with as many links.
#[must_use]
pub fn of_box_with(links: usize, privileges: &Privileges, gid: u32) -> Vec<Setting> {
    let several = (links > 1).then(of_several_links);
    of_box(privileges, gid).into_iter().chain(several.into_iter().flatten()).collect()
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
    /// The switch of an interface.
    #[must_use]
    pub fn forwarding(self, link: &str, on: bool) -> Setting {
        let (family, name) = match self {
            Self::Ipv4 => ("ipv4", "forwarding"),
            Self::Ipv6 => ("ipv6", "force_forwarding"),
        };
        Setting::of_link(family, link, name, if on { "1" } else { "0" })
    }
}

/// The switches of all interfaces of the host that netbox makes forward.
#[must_use]
pub fn switched(four: &[String], six: &[String]) -> Vec<Setting> {
    let four = four.iter().map(|interface| Family::Ipv4.forwarding(interface, true));
    four.chain(six.iter().map(|interface| Family::Ipv6.forwarding(interface, true))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::privileges::OF_ROOT;
    use crate::plan::ruleset::{CLOSED, Timeout};

    #[test]
    fn gateway_and_host_remember_closed_connections_as_long() {
        let Timeout { time_wait, close, .. } = CLOSED;
        assert_eq!(of_tracking().map(|setting| setting.value.parse()), [Ok(time_wait), Ok(close)]);
    }

    #[test]
    fn a_setting_prints_as_sysctl_reads_it() {
        let switch = Family::Ipv4.forwarding("eth0.7", true);
        assert_eq!(switch.to_string(), "net.ipv4.conf.eth0/7.forwarding=1");
        let of = |privileges| -> Vec<_> { of_box(&privileges, 50).iter().map(Setting::to_string).collect() };
        let ping = "net.ipv4.ping_group_range=\"0 2147483647\"";
        assert_eq!(of(Privileges::NONE), ["net.ipv4.ip_unprivileged_port_start=0", ping]);
        assert_eq!(of(Privileges { held: OF_ROOT, ..Privileges::NONE }), [ping]);
    }
}
