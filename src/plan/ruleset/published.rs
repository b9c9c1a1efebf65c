//! Published ports as elements of sets and maps: one for each port, or one for a whole range of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::{BLOCK, Datum, Element, Map, R4TCP, R4UDP, R6TCP, R6UDP, T4A, T4W, T6A, T6W};

/// From so many ports in a row on they are one element of an interval map, in which a connection is looked up step by step;
/// fewer are an element each of a map in which it is found at once.
const RANGE: usize = 32;

/// A port of the host's that leads to a port of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedPort {
    /// The one address of the host's that it is published on; every address of the target's family if there is none. Never a
    /// loopback address: what is sent to those is relayed, not translated.
    pub host_address: Option<IpAddr>,
    /// The IP protocol number: 6, 17 or 132.
    pub protocol: u8,
    /// The host's port.
    pub host_port: u16,
    /// Where it leads.
    pub target: SocketAddr,
}

/// What translates `ports`, in the maps of the host and of the gateway. Ports of every address that lead to the same number, in a
/// row, are one element. Put in and take out the same list: of a part of it the elements may be others.
#[must_use]
pub fn translations(ports: &[PublishedPort]) -> Vec<Element> {
    let mut ports = ports.to_vec();
    ports.sort_by_key(|port| (port.target.ip(), port.host_address, port.protocol, port.host_port));
    let mut elements = Vec::new();
    for run in ports.chunk_by(PublishedPort::continues_with) {
        let range = if run.len() < RANGE { None } else { range(run) };
        match range {
            Some(range) => elements.push(range),
            None => elements.extend(run.iter().map(PublishedPort::translation)),
        }
    }
    elements
}

/// What lets in to `ports`, in the gateway's sets: an element for each port, or each whole [block](BLOCK) of them. As with
/// [`translations`], one list, one way.
#[must_use]
pub fn admissions(ports: &[PublishedPort]) -> Vec<Element> {
    // Several ports of the host may lead to one of the box.
    let services: BTreeSet<_> =
        ports.iter().map(|port| (port.target.ip(), port.protocol, port.target.port())).collect();
    let services: Vec<_> = services.into_iter().collect();
    let same_block = |one: &(IpAddr, u8, u16), next: &(IpAddr, u8, u16)| {
        (one.0, one.1, one.2 / BLOCK) == (next.0, next.1, next.2 / BLOCK)
    };
    let mut elements = Vec::new();
    for ports in services.chunk_by(same_block) {
        let is_whole = ports.len() == usize::from(BLOCK);
        for (address, protocol, port) in if is_whole { &ports[..1] } else { ports } {
            let set = match (address, is_whole) {
                (IpAddr::V4(_), false) => "pub4",
                (IpAddr::V4(_), true) => "pub4b",
                (IpAddr::V6(_), false) => "pub6",
                (IpAddr::V6(_), true) => "pub6b",
            };
            let key = [Datum::from(*address), Datum::Proto(*protocol), Datum::Port(*port)];
            elements.push(Element::of_set(set, key));
        }
    }
    elements
}

/// Ports in a row as one element, if there is a map for it.
fn range(run: &[PublishedPort]) -> Option<Element> {
    let (first, last) = (run.first()?, run.last()?);
    let map: Map = match (first.protocol, first.target.is_ipv4()) {
        _ if first.host_address.is_some() => return None,
        (6, true) => R4TCP,
        (17, true) => R4UDP,
        (6, false) => R6TCP,
        (17, false) => R6UDP,
        _ => return None,
    };
    let key = vec![Datum::Ports(first.host_port, last.host_port)];
    Some(Element { set: map.name, key, value: vec![Datum::from(first.target.ip())] })
}

impl PublishedPort {
    const fn keeps_its_number(&self) -> bool {
        self.host_port == self.target.port()
    }

    /// Whether the two could be of one range: a translation without a port keeps it.
    fn continues_with(&self, next: &Self) -> bool {
        let place = |port: &Self| (port.target.ip(), port.host_address, port.protocol);
        self.keeps_its_number()
            && next.keeps_its_number()
            && place(self) == place(next)
            && self.host_port.checked_add(1) == Some(next.host_port)
    }

    fn translation(&self) -> Element {
        let (at, anywhere) = if self.target.is_ipv4() { (T4A, T4W) } else { (T6A, T6W) };
        let value = vec![Datum::from(self.target.ip()), Datum::Port(self.target.port())];
        let (protocol, port) = (Datum::Proto(self.protocol), Datum::Port(self.host_port));
        match self.host_address {
            Some(address) => Element { set: at.name, key: vec![Datum::from(address), protocol, port], value },
            None => Element { set: anywhere.name, key: vec![protocol, port], value },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range_of(at: Option<&str>, protocol: u8, host: u16, target: &str, count: u16) -> Vec<PublishedPort> {
        let target: SocketAddr = target.parse().unwrap();
        let port = |number| PublishedPort {
            host_address: at.map(|address| address.parse().unwrap()),
            protocol,
            host_port: host + number,
            target: SocketAddr::new(target.ip(), target.port() + number),
        };
        (0..count).map(port).collect()
    }

    fn said(elements: &[Element]) -> Vec<String> {
        elements.iter().map(|element| format!("{} {element}", element.set)).collect()
    }

    #[test]
    fn a_range_of_the_same_numbers_is_one_element() {
        let mut ports = range_of(None, 6, 8000, "10.0.0.16:8000", 1000);
        ports.extend(range_of(None, 6, 8000, "[fd00::16]:8000", 1000));
        ports.extend(range_of(None, 17, 65000, "10.0.0.16:65000", 536));
        assert_eq!(
            said(&translations(&ports)),
            ["r4tcp 8000-8999 : 10.0.0.16", "r4udp 65000-65535 : 10.0.0.16", "r6tcp 8000-8999 : fd00::16",]
        );
    }

    #[test]
    fn other_numbers_an_address_sctp_and_few_ports_are_an_element_each() {
        for (at, protocol, host, target, count) in [
            (None, 6, 8000, "10.0.0.16:9000", 100),
            (Some("192.0.2.1"), 6, 8000, "10.0.0.16:8000", 100),
            (None, 132, 8000, "10.0.0.16:8000", 100),
            (None, 6, 8000, "10.0.0.16:8000", 31),
        ] {
            let ports = range_of(at, protocol, host, target, count);
            assert_eq!(translations(&ports).len(), usize::from(count), "{target}");
        }
        let one = range_of(None, 6, 8080, "10.0.0.16:80", 1);
        assert_eq!(said(&translations(&one)), ["t4w tcp . 8080 : 10.0.0.16 . 80"]);
    }

    #[test]
    fn a_gap_and_another_protocol_end_a_range() {
        let mut ports = range_of(None, 6, 8000, "10.0.0.16:8000", 100);
        ports.remove(50);
        assert_eq!(
            said(&translations(&ports)),
            ["r4tcp 8000-8049 : 10.0.0.16", "r4tcp 8051-8099 : 10.0.0.16"]
        );
        let mut ports = range_of(None, 6, 8000, "10.0.0.16:8000", 20);
        ports.extend(range_of(None, 17, 8020, "10.0.0.16:8020", 20));
        assert_eq!(translations(&ports).len(), 40);
    }

    #[test]
    fn whole_blocks_are_let_in_by_one_element() {
        let ports = range_of(None, 6, 18000, "10.0.0.16:8000", 100);
        // 8000 is a multiple of 32.
        let said = said(&admissions(&ports));
        assert_eq!(said.len(), 3 + 4);
        assert_eq!(
            said[..4],
            [8000, 8032, 8064]
                .map(|port| format!("pub4b 10.0.0.16 . tcp . {port}"))
                .into_iter()
                .chain(["pub4 10.0.0.16 . tcp . 8096".to_owned()])
                .collect::<Vec<_>>()
        );
        // A block that lacks a port would let in to it.
        let mut ports = range_of(None, 17, 9000, "[fd00::16]:8000", 32);
        assert_eq!(admissions(&ports).len(), 1);
        ports.remove(7);
        assert_eq!(admissions(&ports).len(), 31);
    }

    #[test]
    fn what_two_ports_lead_to_is_let_in_once() {
        let mut ports = range_of(None, 6, 8000, "10.0.0.16:8000", 64);
        ports.extend(range_of(None, 6, 9000, "10.0.0.16:8032", 64));
        ports.extend(range_of(Some("192.0.2.1"), 6, 7000, "10.0.0.16:8000", 64));
        assert_eq!(
            said(&admissions(&ports)),
            ["pub4b 10.0.0.16 . tcp . 8000", "pub4b 10.0.0.16 . tcp . 8032", "pub4b 10.0.0.16 . tcp . 8064"]
        );
    }
}
