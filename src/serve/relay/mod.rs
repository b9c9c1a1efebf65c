//! The loopback relay: what is sent to a published port on the host's loopback, carried to the box.
//!
//! It arrives at the socket that holds the port, because no rule translates what is sent to 127.0.0.0/8 and ::1, nor what is
//! sent to any IPv6 address where the box has none. The relay is a helper of the keeper's in the gateway's network namespace,
//! where the box is one hop away. It starts with the first connection or datagram.

mod filter;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::plan::record::PortMap;
use crate::spec::port::Protocol;

/// Two copies in flight for each of so many connections; further ones wait in the socket's queue.
const CONNECTIONS: usize = 4096;

/// The holding sockets of a box's published ports.
#[derive(Debug)]
pub struct Waiting {
    ports: Vec<(PortMap, OwnedFd)>,
    epoll: Epoll,
}

/// Where the relay carries things to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The box's address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, where it has one.
    pub ipv6: Option<Ipv6Addr>,
}

impl Waiting {
    /// Takes over the sockets that hold `ports`. Nothing of SCTP is relayed.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn new(ports: Vec<(PortMap, OwnedFd)>) -> nix::Result<Self> {
        Ok(Self { ports, epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? })
    }

    /// Begins to watch them, once, which the command need not wait for. What is returned becomes readable with the first
    /// connection or datagram.
    ///
    /// # Errors
    /// ENOSPC (`fs.epoll.max_user_watches`), ENOMEM.
    pub fn watch(&self) -> nix::Result<BorrowedFd<'_>> {
        for (_, socket) in self.relayed() {
            self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        }
        Ok(self.epoll.0.as_fd())
    }

    /// The sockets of ports that are relayed.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.relayed().map(|(_, socket)| socket.as_fd())
    }

    /// What each of those is published as.
    pub fn maps(&self) -> impl Iterator<Item = PortMap> {
        self.relayed().map(|(map, _)| *map)
    }

    fn relayed(&self) -> impl Iterator<Item = &(PortMap, OwnedFd)> {
        self.ports.iter().filter(|(map, _)| map.protocol != Protocol::Sctp)
    }
}

/// A port of the box.
#[derive(Debug, Clone, Copy)]
struct Port {
    target: Target,
    port: u16,
}

impl Port {
    /// Whether what is sent to this address of the host's is carried: no rule translates it. The rest comes only while the
    /// host's rules are flushed, when the fence is closed.
    fn is_relayed(self, asked: IpAddr) -> bool {
        match asked.to_canonical() {
            IpAddr::V4(asked) => asked.is_loopback(),
            IpAddr::V6(asked) => match self.target.ipv6 {
                Some(_) => asked.is_loopback() || asked.is_unicast_link_local(),
                None => !asked.is_multicast(),
            },
        }
    }

    /// Where to connect to, in order: a server in the box may know one family only, whichever the client asks by.
    fn places(self, asked: IpAddr) -> impl Iterator<Item = SocketAddr> {
        let Target { ipv4, ipv6 } = self.target;
        let (v4, v6) = (Some(IpAddr::V4(ipv4)), ipv6.map(IpAddr::V6));
        let order = if asked.to_canonical().is_ipv4() { [v4, v6] } else { [v6, v4] };
        order.into_iter().flatten().map(move |address| SocketAddr::new(address, self.port))
    }
}

/// Carries what comes to each of `ports` to the box, as seen from the network namespace that the calling process is in, for
/// as long as that lives.
///
/// # Errors
/// When there is no memory or descriptor left to begin with.
pub fn serve(ports: impl IntoIterator<Item = (PortMap, OwnedFd)>, target: Target) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let flows = udp::Flows::new();
        let mut at_work = JoinSet::new();
        for (map, socket) in ports {
            let target = Port { target, port: map.box_port };
            match map.protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::from_std(StdListener::from(socket))?;
                    at_work.spawn(tcp::accept(listener, target, slots.clone()));
                }
                Protocol::Udp => {
                    at_work.spawn(udp::receive(socket, map.host_port, target, Arc::clone(&flows)));
                }
                Protocol::Sctp => {}
            }
        }
        // They do not end by themselves.
        let _ = at_work.join_next().await;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ipv6: Option<&str>) -> Port {
        let ipv6 = ipv6.map(|address| address.parse().unwrap());
        Port { target: Target { ipv4: Ipv4Addr::new(10, 0, 0, 16), ipv6 }, port: 80 }
    }

    #[test]
    fn what_no_rule_translates_is_relayed_and_nothing_else() {
        for (asked, with_ipv6, without) in [
            ("127.0.0.1", true, true),
            ("127.255.255.254", true, true),
            ("::1", true, true),
            ("fe80::1", true, true),
            ("::ffff:127.0.0.1", true, true),
            ("192.0.2.1", false, false),
            ("::ffff:192.0.2.1", false, false),
            ("169.254.1.1", false, false),
            ("255.255.255.255", false, false),
            ("224.0.0.251", false, false),
            ("2001:db8::1", false, true),
            ("ff02::fb", false, false),
        ] {
            let asked = asked.parse().unwrap();
            assert_eq!(port(Some("fd00::16")).is_relayed(asked), with_ipv6, "{asked}");
            assert_eq!(port(None).is_relayed(asked), without, "{asked}");
        }
    }

    #[test]
    fn the_clients_family_is_tried_first() {
        let places = |ipv6, asked: &str| -> Vec<String> {
            port(ipv6).places(asked.parse().unwrap()).map(|place| place.to_string()).collect()
        };
        for (ipv6, asked, expected) in [
            (None, "127.0.0.1", &["10.0.0.16:80"][..]),
            (None, "::1", &["10.0.0.16:80"]),
            (Some("fd00::16"), "::1", &["[fd00::16]:80", "10.0.0.16:80"]),
            (Some("fd00::16"), "::ffff:127.0.0.1", &["10.0.0.16:80", "[fd00::16]:80"]),
        ] {
            assert_eq!(places(ipv6, asked), expected, "{asked}");
        }
    }
}
