//! Decides what a gateway has to become when the host is not what it was.

use std::net::IpAddr;

use super::changes::View;
use super::facts::Facts;
use super::gateway;
use super::ipv6;
use super::record::GatewayRecord;

/// The interfaces of the host that forward because of netbox, of one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Switches {
    /// Those that netbox has switched, or has to switch; all of them forward for boxes only.
    pub all: Vec<String>,
    /// Those of them that do not forward now.
    pub to_switch: Vec<String>,
}

/// What has to be done, as the difference to a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upkeep {
    /// Of IPv4.
    pub four: Switches,
    /// Of IPv6.
    pub six: Switches,
    /// All addresses of the host.
    pub host_addresses: Vec<IpAddr>,
    /// Those that are new.
    pub added: Vec<IpAddr>,
    /// Those that are gone.
    pub removed: Vec<IpAddr>,
}

/// Compares the host with what is written down about the gateway. `before`: as the host was seen last, if it was.
#[must_use]
pub fn upkeep(facts: &Facts, record: &GatewayRecord, before: Option<&View>) -> Upkeep {
    let has_ipv6 = record.topology.pool6().is_some();
    let host_addresses = gateway::host_addresses(facts, has_ipv6);
    let (now, then) = (&host_addresses, &record.host_addresses);
    let added = now.iter().filter(|address| !then.contains(address)).copied().collect();
    let removed = then.iter().filter(|address| !now.contains(address)).copied().collect();
    let four = match facts.forwarding.global {
        // Somebody who switched all of the host to forwarding took it over: netbox restricts and undoes nothing any more.
        true => Switches::default(),
        false => {
            let forwards = |name: &str| facts.forwarding.links.get(name) == Some(&true);
            switches(facts, &record.switched, &gateway::to_switch(facts), before, forwards)
        }
    };
    let six = match facts.ipv6.as_ref().filter(|ipv6| has_ipv6 && !ipv6.forwards) {
        None => Switches::default(),
        Some(ipv6) => {
            let forwards = |name: &str| ipv6.force_forwarding.get(name) == Some(&true);
            switches(facts, &record.switched6, &ipv6::to_switch(facts), before, forwards)
        }
    };
    Upkeep { four, six, host_addresses, added, removed }
}

/// What netbox has switched stays so, also under a new name; and there is more to switch.
fn switches(
    facts: &Facts,
    written: &[String],
    wanted: &[String],
    before: Option<&View>,
    forwards: impl Fn(&str) -> bool,
) -> Switches {
    let was_ours = |name: &str, index: u32| {
        let old = before.and_then(|view| view.name_of(index)).unwrap_or(name);
        written.iter().any(|own| own == name || own == old)
    };
    let fits = |name: &String, index: u32| was_ours(name, index) || wanted.contains(name);
    let links = facts.links.iter().filter(|link| fits(&link.name, link.index));
    let all: Vec<_> = links.map(|link| link.name.clone()).collect();
    let to_switch = all.iter().filter(|name| !forwards(name)).cloned().collect();
    Switches { all, to_switch }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]
    use super::*;
    use crate::plan::changes::{Change, Concern};
    use crate::plan::facts::Ipv6Facts;
    use crate::plan::facts::{HostAddress, Link};
    use crate::plan::topology::Ipv6;
    use crate::plan::topology::{CLOSED_TABLE, HOST_MAC, Topology};
    use std::net::{Ipv4Addr, Ipv6Addr};

    const FIRST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

    fn topology() -> Topology {
        let ipv6 = Ipv6::Pool("fd12:3456:789a::/64".parse().unwrap());
        Topology { pool: "10.77.128.0/18".parse().unwrap(), ipv6, number: 7, mtu: 1500 }
    }

    fn facts(links: &[(u32, &str, Option<Ipv4Addr>, bool)], global: bool) -> Facts {
        let mut facts = Facts::default();
        facts.forwarding.global = global;
        for (index, name, address, forwarding) in links {
            let name = (*name).to_owned();
            facts.links.push(Link {
                index: *index,
                name: name.clone(),
                up: true,
                loopback: false,
                mtu: 1500,
            });
            facts.forwarding.links.insert(name.clone(), *forwarding);
            facts.addresses.extend(address.map(|address| HostAddress {
                link: name,
                index: *index,
                address: ipnet::IpNet::new(address.into(), 24).unwrap(),
            }));
        }
        facts
    }

    fn record(switched: &[&str], host_addresses: &[Ipv4Addr]) -> GatewayRecord {
        let switched = switched.iter().map(|name| (*name).to_owned()).collect();
        GatewayRecord {
            topology: topology(),
            cookie: 1,
            switched,
            switched6: Vec::new(),
            host_addresses: host_addresses.iter().copied().map(IpAddr::V4).collect(),
            without_ipv6: None,
            connections: 8192,
            bridges: Vec::new(),
            routed: Vec::new(),
        }
    }

    #[test]
    fn nothing_new_is_nothing_to_do() {
        let facts = facts(&[(2, "eth0", Some(FIRST), true), (9, "nb7", None, true)], false);
        let todo = upkeep(&facts, &record(&["eth0"], &[FIRST]), None);
        assert_eq!(todo.four.all, ["eth0"]);
        assert!(todo.four.to_switch.is_empty() && todo.added.is_empty() && todo.removed.is_empty());
    }

    #[test]
    fn a_new_uplink_is_switched_and_its_address_fenced() {
        let facts = facts(&[(2, "eth0", Some(FIRST), true), (3, "wg0", Some(SECOND), false)], false);
        let todo = upkeep(&facts, &record(&["eth0"], &[FIRST]), None);
        assert_eq!(todo.four.all, ["eth0", "wg0"]);
        assert_eq!(todo.four.to_switch, ["wg0"]);
        assert_eq!(todo.added, [IpAddr::V4(SECOND)]);
    }

    #[test]
    fn what_forwarded_before_netbox_is_not_its_own() {
        let facts = facts(&[(2, "eth0", Some(FIRST), true), (3, "lan", Some(SECOND), true)], false);
        assert_eq!(upkeep(&facts, &record(&["eth0"], &[FIRST]), None).four.all, ["eth0"]);
    }

    #[test]
    fn an_interface_that_is_gone_is_forgotten() {
        let facts = facts(&[(2, "eth0", Some(FIRST), true)], false);
        let todo = upkeep(&facts, &record(&["eth0", "usb0"], &[FIRST, SECOND]), None);
        assert_eq!(todo.four.all, ["eth0"]);
        assert_eq!(todo.removed, [IpAddr::V4(SECOND)]);
    }

    #[test]
    fn a_renamed_interface_stays_restricted() {
        let old = facts(&[(2, "eth0", Some(FIRST), true)], false);
        let before = View::of(&old, &topology());
        let new = facts(&[(2, "lan", Some(FIRST), true)], false);
        assert_eq!(upkeep(&new, &record(&["eth0"], &[FIRST]), Some(&before)).four.all, ["lan"]);
    }

    #[test]
    fn somebody_who_switches_the_whole_host_takes_it_over() {
        let facts = facts(&[(2, "eth0", Some(FIRST), true)], true);
        assert!(upkeep(&facts, &record(&["eth0"], &[FIRST]), None).four.all.is_empty());
    }

    #[test]
    fn somebody_who_switches_the_whole_host_off_gives_it_back() {
        let facts = facts(&[(2, "eth0", Some(FIRST), false), (9, "nb7", None, false)], false);
        let todo = upkeep(&facts, &record(&[], &[FIRST]), None);
        let own = vec!["eth0".to_owned()];
        assert_eq!(todo.four, Switches { all: own.clone(), to_switch: own });
    }

    #[test]
    fn ipv6_has_switches_of_its_own() {
        let mut facts = facts(&[(2, "eth0", Some(FIRST), true), (9, "nb7", None, true)], true);
        let six: IpAddr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into();
        let local: IpAddr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into();
        for address in [six, local] {
            let (link, address) = ("eth0".to_owned(), ipnet::IpNet::new(address, 64).unwrap());
            facts.addresses.push(HostAddress { link, index: 2, address });
        }
        let force_forwarding = [("eth0".to_owned(), false), ("nb7".to_owned(), true)].into();
        facts.ipv6 = Some(Ipv6Facts { uplink: None, forwards: false, force_forwarding });
        let todo = upkeep(&facts, &record(&[], &[FIRST]), None);
        let own = vec!["eth0".to_owned()];
        assert_eq!((todo.four, todo.added), (Switches::default(), vec![six]));
        assert_eq!(todo.six, Switches { all: own.clone(), to_switch: own });
    }

    #[test]
    fn what_concerns_netbox_is_told_from_what_does_not() {
        let seen = facts(&[(2, "eth0", Some(FIRST), true), (9, "nb7", None, true)], false);
        let view = View::of(&seen, &topology());
        let link = |index, name: &str, mac, up| Change::Link { index, name: name.to_owned(), mac, up };
        let at = |index, address: Ipv4Addr| Change::Address { index, address: IpAddr::V4(address) };
        let rules = |table: &str| Change::Rules { table: table.to_owned(), made: false };
        for (change, concerns) in [
            (link(2, "eth0", None, true), false),
            (link(2, "eth0", None, false), true),
            (link(2, "lan", None, true), true),
            (link(5, "veth1", None, true), false),
            (link(9, "nb7", Some(HOST_MAC), true), false),
            (link(9, "nb7", Some(HOST_MAC), false), true),
            (link(9, "other", Some(HOST_MAC), true), true),
            (Change::LinkGone { index: 9, mac: Some(HOST_MAC) }, true),
            (Change::LinkGone { index: 5, mac: None }, false),
            (at(2, FIRST), false),
            (at(2, SECOND), true),
            (Change::RuleGone { table: CLOSED_TABLE }, true),
            (Change::RuleGone { table: 51820 }, false),
            (Change::Forwarding { index: None, on: true }, true),
            (Change::Forwarding { index: Some(2), on: true }, false),
            (Change::Forwarding { index: Some(2), on: false }, true),
            (Change::Forwarding { index: Some(5), on: false }, false),
        ] {
            assert_eq!(view.concern(&change).network, concerns, "{change:?}");
        }
        assert!(view.concern(&rules("netbox")).rules);
        assert!(view.concern(&rules("filter")).is_none());
        let mended = [rules("netbox"), Change::OwnRules];
        assert!(view.concerns(&mended).is_none());
        assert!(view.concerns(&[Change::OwnRules, rules("netbox")]).rules);
        let remade = [rules("netbox"), Change::Rules { table: "netbox".to_owned(), made: true }];
        assert_eq!(view.concerns(&remade), Concern { rules_perhaps: true, ..Concern::default() });
    }
}
