//! The loopback relay: what is sent to a published port on the host's loopback, carried to the box.
//!
//! It arrives at the socket that holds the port, because no rule translates what is sent to 127.0.0.0/8 and ::1, nor what is
//! sent to any IPv6 address where the box has none. The relay is a helper of the keeper's in the gateway's network namespace,
//! where the box is one hop away. It starts with the first connection or datagram.

mod filter;
pub mod host;
mod tcp;
mod udp;
mod waiting;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::{TcpListener, UnixDatagram};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::kernel::channel::{Channel, Heard};
use crate::plan::ports::Fate;
use crate::plan::record::PortMap;
use crate::spec::port::Protocol;

pub use tcp::BUFFERS;
pub use waiting::{Waiting, name_for_relay};

/// Two copies in flight for each of so many connections; further ones wait in the socket's queue.
const CONNECTIONS: usize = 4096;

/// Where the relay carries things to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The box's address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, where it has one.
    pub ipv6: Option<Ipv6Addr>,
}

/// Where what comes to a socket is carried to.
#[derive(Debug, Clone, Copy)]
enum Port {
    /// A port of the box.
    OfBox(Target, u16),
    /// A port of the host's loopback.
    OfHost(u16),
}

impl Port {
    /// Whether what is sent to this address is carried. Of the host's addresses those that no rule translates: the rest comes only
    /// while the host's rules are flushed, when the fence is closed. A socket for a port of the host has one address.
    fn is_relayed(self, asked: IpAddr) -> bool {
        let Self::OfBox(target, _) = self else { return true };
        match asked.to_canonical() {
            IpAddr::V4(asked) => asked.is_loopback(),
            IpAddr::V6(asked) => match target.ipv6 {
                Some(_) => asked.is_loopback() || asked.is_unicast_link_local(),
                None => !asked.is_multicast(),
            },
        }
    }

    /// Where to connect to, in order: a server in the box may know one family only, whichever the client asks by.
    fn places(self, asked: IpAddr) -> impl Iterator<Item = SocketAddr> {
        let (v4, v6, port) = match self {
            Self::OfBox(Target { ipv4, ipv6 }, port) => (ipv4, ipv6, port),
            Self::OfHost(port) => (Ipv4Addr::LOCALHOST, None, port),
        };
        let (v4, v6) = (Some(IpAddr::V4(v4)), v6.map(IpAddr::V6));
        let order = if asked.to_canonical().is_ipv4() { [v4, v6] } else { [v6, v4] };
        order.into_iter().flatten().map(move |address| SocketAddr::new(address, port))
    }
}

/// From the keeper to the relay.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToRelay {
    /// Carry what comes to these too. With a socket for each.
    Add(Vec<PortMap>),
    /// Close these, and what is carried by them or not. The answer is [`FromRelay::Removed`].
    Remove(Vec<PortMap>, Fate),
}

/// From the relay to the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromRelay {
    /// Nothing of them is open here any more.
    Removed,
}

/// Carries what comes to each of `ports` to the box, as seen from the network namespace that the calling process is in, for
/// as long as that lives, and does what the keeper says meanwhile.
///
/// # Errors
/// When there is no memory or descriptor left to begin with.
pub fn serve(
    ports: impl IntoIterator<Item = (PortMap, OwnedFd)>,
    target: Target,
    keeper: Channel,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let mut relay = Relay { target, slots, flows: udp::Flows::new(), served: HashMap::new() };
        for (map, socket) in ports {
            relay.begin(map, socket)?;
        }
        // For being woken alone: tokio has no sockets of whole messages.
        let waker = StdDatagram::from(keeper.as_fd().try_clone_to_owned()?);
        waker.set_nonblocking(true)?;
        let waker = UnixDatagram::from_std(waker)?;
        loop {
            waker.readable().await?;
            let heard = waker.try_io(Interest::READABLE, || match keeper.hear()? {
                Heard::Nothing => Err(io::ErrorKind::WouldBlock.into()),
                heard => Ok(heard),
            });
            let (bytes, sockets) = match heard {
                Ok(Heard::Message(bytes, sockets)) => (bytes, sockets),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            };
            match serde_json::from_slice(&bytes)? {
                ToRelay::Add(maps) => {
                    for (map, socket) in maps.into_iter().zip(sockets) {
                        // One that cannot be watched leaves its clients to time out, as without descriptors for them.
                        let _ = relay.begin(map, socket);
                    }
                }
                ToRelay::Remove(maps, fate) => {
                    relay.end(&maps, fate).await;
                    keeper.send_now(&FromRelay::Removed, &[])?;
                }
            }
        }
    })
}

/// What is carried.
struct Relay {
    target: Target,
    slots: Arc<Semaphore>,
    flows: Arc<udp::Flows>,
    /// By what they are published as first.
    served: HashMap<PortMap, Served>,
}

/// A port, and what ends it.
struct Served {
    closing: oneshot::Sender<Fate>,
    task: JoinHandle<()>,
}

impl Relay {
    fn begin(&mut self, map: PortMap, socket: OwnedFd) -> io::Result<()> {
        let target = Port::OfBox(self.target, map.box_port);
        let (closing, closed) = oneshot::channel();
        let task = match map.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::from_std(StdListener::from(socket))?;
                tokio::spawn(tcp::accept(listener, target, self.slots.clone(), closed))
            }
            Protocol::Udp => {
                let flows = Arc::clone(&self.flows);
                tokio::spawn(udp::receive(socket, map.host_port, target, flows, closed))
            }
            Protocol::Sctp => return Ok(()),
        };
        self.served.insert(map, Served { closing, task });
        Ok(())
    }

    async fn end(&mut self, maps: &[PortMap], fate: Fate) {
        let ended: Vec<_> = maps.iter().filter_map(|map| self.served.remove(map)).collect();
        let tasks: Vec<_> = ended
            .into_iter()
            .map(|Served { closing, task }| {
                // It may have ended by itself.
                let _ = closing.send(fate);
                task
            })
            .collect();
        for task in tasks {
            // What they had open is closed when they have ended.
            let _ = task.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ipv6: Option<&str>) -> Port {
        let ipv6 = ipv6.map(|address| address.parse().unwrap());
        Port::OfBox(Target { ipv4: Ipv4Addr::new(10, 0, 0, 16), ipv6 }, 80)
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

    #[test]
    fn a_port_of_the_host_is_carried_to_its_loopback_alone() {
        for asked in ["169.254.64.16", "::1"] {
            let places: Vec<_> = Port::OfHost(5432).places(asked.parse().unwrap()).collect();
            assert_eq!(places, ["127.0.0.1:5432".parse().unwrap()], "{asked}");
        }
    }
}
