//! Published ports of a box that runs: which of them are to go, and what of the rules changes with them.

use std::collections::HashSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::record::PortMap;
use super::ruleset::Element;
use crate::error::{Error, Result};
use crate::spec::port::{PortRequest, Protocol, publishable};
use crate::spec::publish::{PublishSpec, merge};
use crate::spec::unpublish::UnpublishSpec;

/// So many ports can be published at once by a box that runs: what is answered is one message.
pub const MOST_AT_ONCE: usize = 1024;

/// What becomes of the TCP connections of a port that goes. Datagrams have none: what is remembered of them always ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// They end too: the port was taken away from the box.
    End,
    /// They go on: the box itself closed what listened, as a server does that lets its clients finish.
    GoOn,
}

/// The single ports that are to be published, in the order in which they are reserved.
///
/// # Errors
/// Two ports of the box for one of the host (exit 2); what no kernel can publish; too many.
pub fn addition(specs: &[PublishSpec]) -> Result<Vec<PortRequest>> {
    let requests = merge(specs)?;
    if requests.len() > MOST_AT_ONCE {
        return Err(Error::new(format!("cannot publish {} ports at once", requests.len()))
            .because(format!("while a box runs, {MOST_AT_ONCE} can be"))
            .hint("publish them in several steps"));
    }
    requests.iter().try_for_each(publishable)?;
    Ok(requests)
}

/// Which of `sockets` are to be given up. Each holds a port, with what it is published as: one on every address of both families is two
/// maps.
///
/// # Errors
/// A port that is not published; one that is, but not by itself.
pub fn removal(sockets: &[Vec<PortMap>], specs: &[UnpublishSpec]) -> Result<Vec<usize>> {
    let mut chosen = HashSet::new();
    for spec in specs {
        for (offset, port) in (0..).zip(spec.host.ports()) {
            let inside = spec.inside.map(|inside| inside.first() + offset);
            let meant = |map: &PortMap| {
                (map.protocol, map.host_port) == (spec.protocol, port)
                    && inside.is_none_or(|inside| inside == map.box_port)
            };
            let is_on = |map: &&PortMap| spec.address.is_none_or(|address| address == map.host_address);
            let mut found = false;
            for (place, maps) in sockets.iter().enumerate() {
                let meant: Vec<_> = maps.iter().filter(|map| meant(map)).collect();
                let Some(map) = meant.iter().copied().find(is_on) else { continue };
                if let Some(address) = spec.address.filter(|_| maps.len() > 1) {
                    whole(map, address, specs)?;
                }
                chosen.insert(place);
                found = true;
            }
            if !found {
                return Err(unpublished(spec.protocol, spec.address, port, inside, sockets));
            }
        }
    }
    let mut chosen: Vec<_> = chosen.into_iter().collect();
    chosen.sort_unstable();
    Ok(chosen)
}

/// A port on every address is one socket of both families: it goes as a whole.
fn whole(map: &PortMap, address: IpAddr, specs: &[UnpublishSpec]) -> Result<()> {
    let other_too = specs.iter().any(|spec| {
        spec.protocol == map.protocol
            && spec.host.ports().contains(&map.host_port)
            && spec.address.is_none_or(|other| other != address && other.is_unspecified())
    });
    if other_too {
        return Ok(());
    }
    let PortMap { host_port, protocol, .. } = map;
    Err(Error::new(format!("cannot give up {map} alone"))
        .because("the port is published on every address of both families, as one")
        .hint(format!("give up both: {host_port}/{protocol}")))
}

fn unpublished(
    protocol: Protocol,
    address: Option<IpAddr>,
    port: u16,
    inside: Option<u16>,
    sockets: &[Vec<PortMap>],
) -> Error {
    let at = match address {
        Some(IpAddr::V4(address)) => format!("{address}:{port}"),
        Some(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        None => format!("port {port}"),
    };
    let to = inside.map(|inside| format!(", to {inside} in the box,")).unwrap_or_default();
    let error = Error::new(format!("cannot give up {at}/{protocol}"))
        .because(format!("it is not published{to} by this box"));
    match sockets.iter().flatten().find(|map| map.host_port == port) {
        Some(map) => error.hint(format!("{map} is")),
        None => error.hint("`netbox ps` shows what is"),
    }
}

/// What there is of `old` and not of `new`, and the other way round.
#[must_use]
pub fn difference(old: Vec<Element>, new: Vec<Element>) -> (Vec<Element>, Vec<Element>) {
    let (before, after): (HashSet<_>, HashSet<_>) =
        (old.iter().cloned().collect(), new.iter().cloned().collect());
    let gone = old.into_iter().filter(|element| !after.contains(element)).collect();
    let come = new.into_iter().filter(|element| !before.contains(element)).collect();
    (gone, come)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str, host_port: u16, box_port: u16, protocol: Protocol) -> PortMap {
        PortMap { protocol, host_address: text.parse().unwrap(), host_port, box_port }
    }

    /// 8080 on every address, 8081 to 8083 on two addresses each by itself, a UDP port.
    fn sockets() -> Vec<Vec<PortMap>> {
        use Protocol::{Tcp, Udp};
        let mut all = vec![vec![map("0.0.0.0", 8080, 80, Tcp), map("::", 8080, 80, Tcp)]];
        for port in 8081..=8083 {
            all.push(vec![map("192.0.2.1", port, port - 8000, Tcp)]);
            all.push(vec![map("192.0.2.2", port, port - 8000, Tcp)]);
        }
        all.push(vec![map("127.0.0.1", 53, 5353, Udp)]);
        all
    }

    fn removed(specs: &[&str]) -> Result<Vec<usize>> {
        removal(&sockets(), &specs.iter().map(|spec| spec.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn a_port_is_given_up_by_as_much_as_is_said_of_it() {
        for (specs, expected) in [
            (&["8080"][..], &[0][..]),
            (&["8080:80/tcp"], &[0]),
            (&["8081"], &[1, 2]),
            (&["192.0.2.2:8081"], &[2]),
            (&["192.0.2.2:8081-8083->81-83/tcp"], &[2, 4, 6]),
            (&["8081-8082", "53/udp", "8082"], &[1, 2, 3, 4, 7]),
            (&["0.0.0.0:8080", "[::]:8080->80/tcp"], &[0]),
            (&["0.0.0.0:8080", "8080"], &[0]),
        ] {
            assert_eq!(removed(specs).unwrap(), expected, "{specs:?}");
        }
    }

    #[test]
    fn what_is_not_published_or_not_by_itself_is_refused_as_a_whole() {
        for (specs, words) in [
            (&["8080", "9090"][..], "cannot give up port 9090/tcp: it is not published by this box"),
            (&["53"], "cannot give up port 53/tcp: it is not published"),
            (
                &["8080:81"],
                "cannot give up port 8080/tcp: it is not published, to 81 in the box, by this box",
            ),
            (&["192.0.2.3:8081"], "cannot give up 192.0.2.3:8081/tcp: it is not published"),
            (&["8081-8084"], "cannot give up port 8084/tcp"),
            (&["0.0.0.0:8080"], "cannot give up 0.0.0.0:8080->80/tcp alone"),
            (&["[::]:8080", "[::]:8080"], "cannot give up [::]:8080->80/tcp alone"),
        ] {
            let error = removed(specs).unwrap_err();
            assert!(error.to_string().starts_with(words), "{specs:?}: {error}");
            assert_eq!((error.exit_status(), error.remedy().is_some()), (125, true));
        }
    }

    #[test]
    fn what_cannot_be_published_is_refused_before_a_keeper_is_asked() {
        let add =
            |specs: &[&str]| addition(&specs.iter().map(|spec| spec.parse().unwrap()).collect::<Vec<_>>());
        assert_eq!(add(&["1-1024:1-1024"]).unwrap().len(), MOST_AT_ONCE);
        assert_eq!(add(&["1-1024:1-1024", "53/udp"]).unwrap_err().exit_status(), 125);
        assert_eq!(add(&["80:80", "80:81"]).unwrap_err().exit_status(), 2);
        assert_eq!(add(&["224.0.0.1:80:80"]).unwrap_err().exit_status(), 125);
    }

    #[test]
    fn a_part_of_a_range_changes_more_than_its_own_element() {
        let element = |set, port| Element {
            set,
            key: vec![super::super::ruleset::Datum::Port(port)],
            value: Vec::new(),
        };
        let (gone, come) = difference(
            vec![element("a", 1), element("a", 2), element("b", 2)],
            vec![element("a", 2), element("b", 3), element("b", 2)],
        );
        assert_eq!((gone, come), (vec![element("a", 1)], vec![element("b", 3)]));
    }
}
