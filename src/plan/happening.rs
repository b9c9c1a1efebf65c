//! What happens to boxes, as `netbox monitor` tells it. The form is stable.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::network::Member;
use super::record::{BoxRecord, PortMap};
use crate::spec::network::NetworkName;

/// One thing that happened to a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Happening {
    /// It started.
    Start,
    /// A port of its was published, or is no more.
    Port {
        /// Which of the two.
        change: Change,
        /// The port.
        #[serde(flatten)]
        port: PortMap,
    },
    /// It has joined a network or left one.
    Network {
        /// Which of the two.
        change: Change,
        /// The network.
        network: NetworkName,
        /// The box's address there.
        ipv4: Ipv4Addr,
        /// Its IPv6 address, where it has one.
        ipv6: Option<Ipv6Addr>,
        /// Its interface there.
        interface: String,
    },
    /// It ended.
    End,
}

/// What became of a port or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is published; the box is in it.
    Added,
    /// It was, and is not now.
    Removed,
}

impl Happening {
    /// The word for it, and what there is to say.
    #[must_use]
    pub fn words(&self) -> (&'static str, String) {
        match self {
            Self::Start => ("start", String::new()),
            Self::Port { change: Change::Added, port } => ("port", format!("added {port}")),
            Self::Port { change: Change::Removed, port } => ("port", format!("removed {port}")),
            Self::Network { change, network, ipv4, interface, .. } => {
                let word = if *change == Change::Added { "added" } else { "removed" };
                ("network", format!("{word} {network} {ipv4} on {interface}"))
            }
            Self::End => ("end", String::new()),
        }
    }
}

/// What has happened to a box that is described so now, and before was described so. `None`: it did not live.
#[must_use]
pub fn between(before: Option<&BoxRecord>, now: Option<&BoxRecord>) -> Vec<Happening> {
    let Some(now) = now else {
        // Its ports go with it.
        return before.map(|_| Happening::End).into_iter().collect();
    };
    let old = before.map_or(&[][..], |before| &before.ports);
    let only = |here: &[PortMap], there: &[PortMap], change| -> Vec<Happening> {
        let ports = here.iter().filter(|port| !there.contains(port));
        ports.map(|port| Happening::Port { change, port: *port }).collect()
    };
    let mut all = Vec::new();
    if before.is_none() {
        all.push(Happening::Start);
    }
    all.extend(only(old, &now.ports, Change::Removed));
    all.extend(only(&now.ports, old, Change::Added));
    if let Some(before) = before {
        all.extend(networks(before, now, Change::Removed));
        all.extend(networks(now, before, Change::Added));
    }
    all
}

/// The networks that a box is in, as it is described here, and is not in as it is described there.
fn networks(here: &BoxRecord, there: &BoxRecord, change: Change) -> Vec<Happening> {
    let of = |record: &BoxRecord| record.attachment.clone().map(|own| own.networks).unwrap_or_default();
    let other = of(there);
    let only = of(here).into_iter().filter(|member| !other.contains(member));
    let tell = |member: Member| Happening::Network {
        change,
        ipv4: member.address,
        ipv6: member.address6(),
        network: member.name,
        interface: member.interface,
    };
    only.map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::port::Protocol;

    fn port(host_port: u16) -> PortMap {
        let host_address = "0.0.0.0".parse().unwrap();
        PortMap { protocol: Protocol::Tcp, host_address, host_port, box_port: 80 }
    }

    fn record(ports: &[u16]) -> BoxRecord {
        BoxRecord {
            id: "q2phdpxl".to_owned(),
            name: "web".to_owned(),
            pid: 10,
            keeper_pid: 11,
            box_pid: 12,
            net: "nat".to_owned(),
            privilege: "root".to_owned(),
            command: Vec::new(),
            started: String::new(),
            attachment: None,
            ports: ports.iter().map(|number| port(*number)).collect(),
            mounts: None,
            host_ports: Vec::new(),
            other_ports: Vec::new(),
            joining: None,
            exported: None,
            rights: None,
            detached: false,
            publish_all: false,
            network: None,
        }
    }

    #[test]
    fn a_box_starts_with_its_ports_and_ends_without_a_word_about_them() {
        let added = |number| Happening::Port { change: Change::Added, port: port(number) };
        let removed = |number| Happening::Port { change: Change::Removed, port: port(number) };
        let (bare, one, other) = (record(&[]), record(&[1, 2]), record(&[2, 3]));
        for (before, now, expected) in [
            (None, None, vec![]),
            (None, Some(&bare), vec![Happening::Start]),
            (None, Some(&one), vec![Happening::Start, added(1), added(2)]),
            (Some(&one), Some(&one), vec![]),
            (Some(&one), Some(&other), vec![removed(1), added(3)]),
            (Some(&one), Some(&bare), vec![removed(1), removed(2)]),
            (Some(&one), None, vec![Happening::End]),
        ] {
            assert_eq!(between(before, now), expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn what_happened_has_words_and_fields() {
        let added = Happening::Port { change: Change::Added, port: port(8080) };
        assert_eq!(added.words(), ("port", "added 0.0.0.0:8080->80/tcp".to_owned()));
        assert_eq!(
            serde_json::to_value(added).unwrap(),
            serde_json::json!({
                "event": "port", "change": "added", "protocol": "tcp",
                "host_address": "0.0.0.0", "host_port": 8080, "box_port": 80,
            })
        );
        assert_eq!(serde_json::to_string(&Happening::Start).unwrap(), r#"{"event":"start"}"#);
    }
}
