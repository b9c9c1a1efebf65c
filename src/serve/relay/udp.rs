//! UDP datagrams: each client has a flow to the port, which is a socket of its own, and ends when it has been idle.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage,
    recv, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout_at};

use crate::plan::ports::Fate;

use super::Port;
use super::filter::relayed_datagrams;

/// A flow without a datagram for so long is over: the least that RFC 4787 (REQ-5) asks of an address translation.
const IDLE: Duration = Duration::from_secs(120);

/// So many flows at a time; a further one takes the place of the one that was idle for the longest. Each takes a descriptor.
const FLOWS: usize = 1024;

/// What is kept of a datagram, in bytes, until it is known that somebody takes it.
const SMALL: usize = 1500;

/// The longest payload of a datagram that is not a jumbogram, rounded up, in bytes.
const LONGEST: usize = 1 << 16;

/// Who talks to whom: answers leave from the address that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Conversation {
    client: SocketAddr,
    asked: IpAddr,
    /// The interface that it came by, which an IPv6 socket tells: a link-local address means nothing without.
    interface: u32,
    port: u16,
}

#[derive(Debug)]
struct Flow {
    inner: Arc<UdpSocket>,
    /// What its answers leave by.
    listener: Arc<UdpSocket>,
    last: Instant,
    answers: JoinHandle<()>,
}

/// The flows of all ports of a box.
#[derive(Debug)]
pub(super) struct Flows {
    table: Mutex<HashMap<Conversation, Flow>>,
    /// One for all: the runtime has one thread, and nothing waits while it is in use.
    buffer: Mutex<Vec<u8>>,
}

impl Flows {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), buffer: Mutex::new(vec![0; LONGEST]) })
    }

    /// Nothing panics that holds a lock, and if it did: the table is whole after every statement.
    fn table(&self) -> MutexGuard<'_, HashMap<Conversation, Flow>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the flows whose answers leave by `listener`, and has closed their sockets when it returns.
    async fn end(&self, listener: &Arc<UdpSocket>) {
        let ended: Vec<_> = {
            let mut table = self.table();
            table.extract_if(|_, flow| Arc::ptr_eq(&flow.listener, listener)).map(|(_, flow)| flow).collect()
        };
        ended.iter().for_each(|flow| flow.answers.abort());
        for flow in ended {
            // It ends by being aborted.
            let _ = flow.answers.await;
        }
    }

    fn buffer(&self) -> MutexGuard<'_, Vec<u8>> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries what comes to the socket that holds the port to `target`, and answers back, until `closed`.
pub(super) async fn receive(
    socket: OwnedFd,
    port: u16,
    target: Port,
    flows: Arc<Flows>,
    mut closed: oneshot::Receiver<Fate>,
) {
    // Not before: it takes the kernel longer than all the rest of holding a port. Without it there is more to be read.
    if let Port::OfBox(target, _) = target {
        let _ = SockRef::from(&socket).attach_filter(&relayed_datagrams(target));
    }
    // Which address was asked: of loopback addresses there are many. An IPv4 socket does not know the second.
    let _ = setsockopt(&socket, sockopt::Ipv4PacketInfo, &true);
    let _ = setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true);
    let Ok(listener) = UdpSocket::from_std(StdUdpSocket::from(socket)) else { return };
    let listener = Arc::new(listener);
    loop {
        tokio::select! {
            _ = &mut closed => break,
            ready = listener.readable() => if ready.is_err() { break },
        }
        consume_budget().await;
        // WouldBlock ends the readiness; errors are those of datagrams sent before (ICMP), and taken by being read.
        let _ = listener.try_io(Interest::READABLE, || {
            let mut buffer = flows.buffer();
            if let Some((length, conversation)) = next_datagram(&listener, port, target, &mut buffer)? {
                pass_on(&flows, &listener, conversation, target, buffer.get(..length).unwrap_or_default());
            }
            Ok(())
        });
    }
    flows.end(&listener).await;
}

/// The next datagram that is to be carried; `None` for one that is not.
fn next_datagram(
    socket: &UdpSocket,
    port: u16,
    target: Port,
    buffer: &mut [u8],
) -> io::Result<Option<(usize, Conversation)>> {
    let mut space = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let received =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    // Both kinds come with an IPv4 packet on a socket of both families.
    let told = |message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some((IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())), 0))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some((Ipv6Addr::from(info.ipi6_addr.s6_addr).to_canonical(), info.ipi6_ifindex))
        }
        _ => None,
    };
    let Some((asked, interface)) = received.cmsgs()?.find_map(told) else { return Ok(None) };
    let client = received.address.as_ref().and_then(client_address);
    let Some(client) = client.filter(|_| target.is_relayed(asked)) else { return Ok(None) };
    Ok(Some((received.bytes, Conversation { client, asked, interface, port })))
}

fn client_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
}

/// Sends a datagram on. One that cannot be sent is lost, as datagrams are.
fn pass_on(
    flows: &Arc<Flows>,
    listener: &Arc<UdpSocket>,
    conversation: Conversation,
    target: Port,
    datagram: &[u8],
) {
    let mut table = flows.table();
    if !table.contains_key(&conversation) {
        if table.len() >= FLOWS
            && let Some(oldest) = table.iter().min_by_key(|(_, flow)| flow.last).map(|(key, _)| *key)
            && let Some(flow) = table.remove(&oldest)
        {
            flow.answers.abort();
        }
        let mut places = target.places(conversation.asked);
        let Some(inner) = places.next().and_then(connected_to) else { return };
        let (own, way_back) = (Arc::clone(flows), Arc::clone(listener));
        // Refusals come at once, and most datagrams are small: who asks once is not told that he asked the wrong family.
        let again = places.next().filter(|_| datagram.len() <= SMALL).map(|place| (place, datagram.to_vec()));
        let answers = answers(own, way_back, conversation, Arc::clone(&inner), again);
        let answers = tokio::spawn(answers);
        let flow = Flow { inner, listener: Arc::clone(listener), last: Instant::now(), answers };
        table.insert(conversation, flow);
    }
    if let Some(flow) = table.get_mut(&conversation) {
        flow.last = Instant::now();
        // The first may tell of an earlier datagram that nobody took (ECONNREFUSED), and sends nothing then.
        let _ = send(&flow.inner, datagram).or_else(|_| send(&flow.inner, datagram));
    }
}

/// A socket of the network that this thread is in.
fn connected_to(place: SocketAddr) -> Option<Arc<UdpSocket>> {
    let socket = Socket::new(Domain::for_address(place), Type::DGRAM.nonblocking(), None).ok()?;
    connect(socket, place).map(Arc::new)
}

/// `None` also where nobody has the port and the kernel chose it for this end: its service could not start, and datagrams would come
/// back.
fn connect(socket: Socket, place: SocketAddr) -> Option<UdpSocket> {
    socket.connect(&place.into()).ok()?;
    let socket = StdUdpSocket::from(socket);
    let is_itself = socket.local_addr().ok()? == place;
    UdpSocket::from_std(socket).ok().filter(|_| !is_itself)
}

/// At once: tokio would first wait to be told that a new socket can be written to.
fn send(socket: &UdpSocket, datagram: &[u8]) -> nix::Result<usize> {
    nix::sys::socket::send(socket.as_raw_fd(), datagram, MsgFlags::MSG_DONTWAIT)
}

/// Carries the answers, until the flow was idle for long enough. `again`: where else in the box somebody may be
/// listening, if nobody does at the first place, and what to say there.
async fn answers(
    flows: Arc<Flows>,
    listener: Arc<UdpSocket>,
    conversation: Conversation,
    mut inner: Arc<UdpSocket>,
    mut again: Option<(SocketAddr, Vec<u8>)>,
) {
    loop {
        let Some(last) = flows.table().get(&conversation).map(|flow| flow.last) else { return };
        // That nobody took a datagram makes a socket ready with an error, not readable.
        let news = Interest::READABLE | Interest::ERROR;
        match timeout_at(last + IDLE, inner.ready(news)).await {
            Ok(Ok(_)) => {
                // A box that never stops talking must not keep the others, or the end of the relay, waiting.
                consume_budget().await;
                match pass_back(&flows, &listener, conversation, &inner) {
                    Ok(()) => again = None,
                    // Nobody took the datagram.
                    Err(Errno::ECONNREFUSED) => {
                        if let Some((place, datagram)) = again.take()
                            && let Some(next) = connected_to(place)
                        {
                            let _ = send(&next, &datagram);
                            inner = Arc::clone(&next);
                            if let Some(flow) = flows.table().get_mut(&conversation) {
                                flow.inner = next;
                            }
                        }
                    }
                    // There is none left. tokio is told so for one kind of readiness at a time.
                    Err(_) => {
                        for interest in [Interest::READABLE, Interest::ERROR] {
                            let _ = inner.try_io(interest, || io::Result::<()>::Err(Errno::EAGAIN.into()));
                        }
                    }
                }
            }
            Ok(Err(_)) => break,
            Err(_) => {
                let mut table = flows.table();
                if table.get(&conversation).is_none_or(|flow| flow.last + IDLE <= Instant::now()) {
                    table.remove(&conversation);
                    return;
                }
            }
        }
    }
    flows.table().remove(&conversation);
}

/// Sends the next answer to the client. One whose client is gone, or has no room, is lost.
fn pass_back(
    flows: &Flows,
    listener: &UdpSocket,
    conversation: Conversation,
    inner: &UdpSocket,
) -> nix::Result<()> {
    let mut buffer = flows.buffer();
    let length = recv(inner.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
    let _ = send_back(listener, conversation, buffer.get(..length).unwrap_or_default());
    if let Some(flow) = flows.table().get_mut(&conversation) {
        flow.last = Instant::now();
    }
    Ok(())
}

/// Sends to the client, from the address that it asked.
fn send_back(listener: &UdpSocket, conversation: Conversation, answer: &[u8]) -> io::Result<()> {
    let parts = [IoSlice::new(answer)];
    match conversation.client {
        SocketAddr::V4(client) => {
            let IpAddr::V4(asked) = conversation.asked else { return Ok(()) };
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(asked.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            send_from(listener, &parts, ControlMessage::Ipv4PacketInfo(&info), &SockaddrIn::from(client))
        }
        // A client over IPv4 too, where the socket is of both families.
        SocketAddr::V6(client) => {
            let asked = match conversation.asked {
                IpAddr::V4(asked) => asked.to_ipv6_mapped(),
                IpAddr::V6(asked) => asked,
            };
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: asked.octets() },
                ipi6_ifindex: conversation.interface,
            };
            send_from(listener, &parts, ControlMessage::Ipv6PacketInfo(&info), &SockaddrIn6::from(client))
        }
    }
}

fn send_from(
    listener: &UdpSocket,
    parts: &[IoSlice<'_>],
    info: ControlMessage<'_>,
    to: &impl SockaddrLike,
) -> io::Result<()> {
    sendmsg(listener.as_raw_fd(), parts, &[info], MsgFlags::MSG_DONTWAIT, Some(to))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_talks_to_himself() {
        let socket = || Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), None).unwrap();
        let own = socket();
        own.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let place = own.local_addr().unwrap().as_socket().unwrap();
        assert!(connect(own, place).is_none());
        let _service = StdUdpSocket::bind(place).unwrap();
        assert!(connect(socket(), place).is_some());
    }
}
