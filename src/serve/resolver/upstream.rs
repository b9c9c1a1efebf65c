//! The host's side of a box's resolver: asking name servers, as resolv.conf(5) says.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ports::{Ports, random};
use crate::plan::question::{Question, Reply, Transport};
use crate::plan::resolver::Upstream;
use crate::spec::names::Nameserver;

/// The port of name servers (RFC 1035, 4.2).
const PORT: u16 = 53;

/// A server that has said nothing for so long is not given up, but the next one is asked beside it: the box's program
/// has the patience for one server's time-out, and knows one server only.
const HEAD_START: Duration = Duration::from_secs(1);

/// The largest datagram.
const LARGEST: usize = 65_535;

/// How one server's try ended.
enum Try {
    Answered(Vec<u8>),
    Refused(Option<Vec<u8>>),
    Silent,
}

/// Asks one server after the other until one answers. `None`: none did. Where all refuse, what the first said.
pub(super) async fn ask(
    upstream: Upstream,
    question: Rc<Question>,
    transport: Transport,
    ports: &Rc<Ports>,
) -> Option<Vec<u8>> {
    let servers = in_order(&upstream);
    let mut refused = vec![false; servers.len()];
    let mut said = None;
    // Dropping it ends what is still being tried.
    let mut tries = JoinSet::new();
    let mut left = (0..upstream.attempts).flat_map(|_| 0..servers.len());
    loop {
        let next = left.by_ref().find(|number| refused.get(*number) == Some(&false));
        match next.and_then(|number| Some((number, servers.get(number)?.clone()))) {
            Some((number, server)) => {
                let (question, ports, limit) = (Rc::clone(&question), Rc::clone(ports), upstream.timeout);
                tries.spawn_local(async move {
                    (number, try_one(&server, &question, transport, limit, &ports).await)
                });
            }
            None if tries.is_empty() => return said,
            None => {}
        }
        let patience = if next.is_some() { HEAD_START.min(upstream.timeout) } else { upstream.timeout };
        match timeout(patience, tries.join_next()).await {
            Ok(Some(Ok((_, Try::Answered(reply))))) => return Some(reply),
            Ok(Some(Ok((number, Try::Refused(reply))))) => {
                said = said.or(reply);
                refused.get_mut(number).into_iter().for_each(|refused| *refused = true);
            }
            // Silent, or the time of the next has come.
            _ => {}
        }
    }
}

fn in_order(upstream: &Upstream) -> Vec<Nameserver> {
    let mut servers = upstream.servers.clone();
    if upstream.rotate
        && let Some(shift) = usize::from(random()).checked_rem(servers.len())
    {
        servers.rotate_left(shift);
    }
    servers
}

async fn try_one(
    server: &Nameserver,
    question: &Question,
    transport: Transport,
    limit: Duration,
    ports: &Rc<Ports>,
) -> Try {
    let Some(address) = address_of(server) else { return Try::Refused(None) };
    // By datagram first, also for a question that came by stream: not every server knows streams.
    let mut reply = timeout(limit, by_datagram(address, question, ports)).await;
    if transport == Transport::Tcp && matches!(reply, Ok(Ok(Reply::Truncated(_)))) {
        reply = timeout(limit, by_stream(address, question, ports)).await;
    }
    match reply {
        Ok(Ok(Reply::Answer(said) | Reply::Truncated(said))) => Try::Answered(said),
        Ok(Ok(Reply::Refusal(said))) => Try::Refused(Some(said)),
        // ECONNREFUSED, ENETUNREACH: nobody there.
        Ok(Err(_)) => Try::Refused(None),
        Err(_) => Try::Silent,
    }
}

/// `None` where the interface of a link-local server is not there.
fn address_of(server: &Nameserver) -> Option<SocketAddr> {
    match server.address {
        IpAddr::V4(address) => Some(SocketAddrV4::new(address, PORT).into()),
        IpAddr::V6(address) => {
            let scope = match &server.scope {
                None => 0,
                Some(scope) => index_of(scope)?,
            };
            Some(SocketAddrV6::new(address, PORT, 0, scope).into())
        }
    }
}

/// The number of an interface, which may be given by it.
fn index_of(scope: &str) -> Option<u32> {
    if let Ok(number) = scope.parse() {
        return Some(number);
    }
    let any = Socket::new(Domain::IPV6, Type::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(any, scope).ok()
}

/// Under a number that is chosen at random as the port is (RFC 5452).
async fn by_datagram(server: SocketAddr, question: &Question, ports: &Rc<Ports>) -> io::Result<Reply> {
    let lent = ports.datagram(server)?;
    let socket = lent.socket()?;
    let id = random();
    socket.send(&question.numbered(id)).await?;
    loop {
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error() {
            // An ICMP error makes the socket exceptional, not readable.
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            let over = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = socket.try_io(Interest::ERROR, over);
        }
        // Made only now, since hundreds of questions may be waiting; and not filled with zeros.
        let mut message = Vec::with_capacity(LARGEST);
        match socket.try_recv_buf(&mut message) {
            Ok(_) => {
                if let Some(reply) = question.reply(id, &message) {
                    return Ok(reply);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn by_stream(server: SocketAddr, question: &Question, ports: &Rc<Ports>) -> io::Result<Reply> {
    ports.stream().await;
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let id = random();
    let message = question.numbered(id);
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).await?;
    loop {
        let mut message = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut message).await?;
        if let Some(reply) = question.reply(id, &message) {
            return Ok(reply);
        }
    }
}
