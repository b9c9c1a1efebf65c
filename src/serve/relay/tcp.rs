//! TCP connections, carried both ways.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::{CONNECTIONS, Port};
use crate::plan::ports::Fate;

/// How long to leave a listener alone when descriptors have run out.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);

/// How many bytes one connection carries at once in one direction. Allocations of this size come from mmap(3) and so take
/// memory only as far as they were ever filled: a connection of few bytes costs few pages.
const AT_ONCE: usize = 128 << 10;

/// The same, while so many others are carried that all of them could not have as much.
const AT_ONCE_OF_MANY: usize = 16 << 10;

/// So many connections are not many.
const FEW: usize = 256;

/// The memory that the buffers of all connections take at most, in bytes: two for each. One that has large ones was one of
/// few when it began, and so they are few at any time.
pub const BUFFERS: usize = 2 * (FEW * AT_ONCE + (CONNECTIONS - FEW) * AT_ONCE_OF_MANY);

/// How many bytes a connection carries at once, when so many further ones would find a slot.
const fn at_once(free: usize) -> usize {
    if free >= CONNECTIONS - FEW { AT_ONCE } else { AT_ONCE_OF_MANY }
}

/// Carries every connection to `target`, until `closed`, with what then becomes of them. One that finds no free slot waits, and those behind it in the listener's
/// queue.
pub(super) async fn accept(
    listener: TcpListener,
    target: Port,
    slots: Arc<Semaphore>,
    mut closed: oneshot::Receiver<Fate>,
) {
    let mut connections = JoinSet::new();
    let fate = loop {
        let accepted = tokio::select! {
            fate = &mut closed => break fate.unwrap_or(Fate::End),
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => {
                // Not before: each of thousands of listeners would have a slot while it waits.
                let slot = tokio::select! {
                    fate = &mut closed => break fate.unwrap_or(Fate::End),
                    slot = slots.clone().acquire_owned() => slot,
                };
                let Ok(slot) = slot else { break Fate::End };
                let at_once = at_once(slots.available_permits());
                connections.spawn(async move {
                    carry(client, target, at_once).await;
                    drop(slot);
                });
            }
            // ECONNABORTED and its like concern one client; EMFILE passes.
            Err(_) => tokio::time::sleep(OUT_OF_DESCRIPTORS).await,
        }
    };
    drop(listener);
    match fate {
        Fate::End => connections.shutdown().await,
        Fate::GoOn => connections.detach_all(),
    }
}

async fn carry(mut client: TcpStream, target: Port, at_once: usize) {
    // A connection that ends without having been closed in order leaves nothing behind that retransmits and so keeps a
    // network namespace alive.
    let _ = client.set_zero_linger();
    let Ok(asked) = client.local_addr().map(|asked| asked.ip()) else { return };
    if !target.is_relayed(asked) {
        return;
    }
    let Some(mut inner) = connect(target, asked).await else { return };
    let _ = inner.set_zero_linger();
    let _ = (client.set_nodelay(true), inner.set_nodelay(true));
    if tokio::io::copy_bidirectional_with_sizes(&mut client, &mut inner, at_once, at_once).await.is_ok() {
        // Both sides said goodbye: what is still on its way must arrive.
        let linger = |stream: &TcpStream| SockRef::from(stream).set_linger(None);
        let _ = (linger(&client), linger(&inner));
    }
}

async fn connect(target: Port, asked: IpAddr) -> Option<TcpStream> {
    for place in target.places(asked) {
        let socket = if place.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        if let Some(stream) = connect_to(socket.ok()?, place).await {
            return Some(stream);
        }
    }
    None
}

/// A connection with somebody else.
async fn connect_to(socket: TcpSocket, place: SocketAddr) -> Option<TcpStream> {
    let stream = socket.connect(place).await.ok()?;
    if stream.local_addr().ok()? == place {
        // Nobody listens, and the port that the kernel chose for this end is that very one (RFC 9293, 3.5: a simultaneous open).
        // Its service could not start, with or without TIME_WAIT.
        let _ = stream.set_zero_linger();
        return None;
    }
    Some(stream)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener as StdListener;

    use super::*;

    #[test]
    fn connections_have_small_buffers_while_there_are_many() {
        for (carried, expected) in
            [(1, AT_ONCE), (FEW, AT_ONCE), (FEW + 1, AT_ONCE_OF_MANY), (CONNECTIONS, AT_ONCE_OF_MANY)]
        {
            assert_eq!(at_once(CONNECTIONS - carried), expected, "{carried}");
        }
    }

    #[tokio::test]
    async fn nobody_is_connected_with_himself() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let own = socket.local_addr().unwrap();
        assert!(connect_to(socket, own).await.is_none());
        // What was there for a moment is not in the way of who comes to listen.
        let _listener = StdListener::bind(own).unwrap();
        assert!(connect_to(TcpSocket::new_v4().unwrap(), own).await.is_some());
    }
}
