//! The box's side of its resolver.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::Desk;
use crate::plan::question::{LONGEST, Transport, Verdict, judge};

/// Connections at a time. Further ones wait in the listener's queue.
const CONNECTIONS: usize = 32;

/// Questions of one connection at a time (RFC 7766, 6.2.1.1: answered as they come, in any order).
const PIPELINE: u32 = 16;

/// How long a connection may be silent, between messages and within one (RFC 7766, 6.2.3).
const SILENCE: Duration = Duration::from_secs(10);

/// How long the box may take to take an answer, and to close after this side has.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long to leave a socket alone that fails: descriptors or memory have run out.
const BREATH: Duration = Duration::from_millis(50);

/// Answers datagrams.
pub(super) async fn datagrams(socket: UdpSocket, desk: Rc<Desk>) -> io::Result<Infallible> {
    let socket = Rc::new(socket);
    // One byte more shows what is longer.
    let mut buffer = vec![0; LONGEST + 1];
    loop {
        let Ok(place) = Arc::clone(&desk.questions).acquire_owned().await else {
            return Err(io::Error::other("nobody closes it"));
        };
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            sleep(BREATH).await;
            continue;
        };
        match judge(buffer.get(..length).unwrap_or_default()) {
            Verdict::Ignore => {}
            Verdict::Answer(said) => send(&socket, &said, from).await,
            Verdict::Ask(question) => {
                let (socket, desk) = (Rc::clone(&socket), Rc::clone(&desk));
                spawn_local(async move {
                    let said = desk.reply(question, Transport::Udp).await;
                    send(&socket, &said, from).await;
                    drop(place);
                });
            }
        }
    }
}

/// An answer that the box does not get it asks for again.
async fn send(socket: &UdpSocket, said: &[u8], to: std::net::SocketAddr) {
    let _ = socket.send_to(said, to).await;
}

/// Serves connections, for as long as this process lives.
pub(super) async fn connections(listener: TcpListener, desk: Rc<Desk>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = Rc::clone(&desk);
                spawn_local(async move {
                    // An error is the end of a connection, which the box sees by itself.
                    let _ = converse(stream, desk).await;
                    drop(place);
                });
            }
            // ECONNABORTED concerns one client; EMFILE passes.
            Err(_) => sleep(BREATH).await,
        }
    }
}

/// One connection, from its first message to its end.
async fn converse(stream: TcpStream, desk: Rc<Desk>) -> io::Result<()> {
    // Nothing may be left behind that retransmits, and so keeps the gateway's network namespace alive.
    stream.set_zero_linger()?;
    stream.set_nodelay(true)?;
    let (mut incoming, outgoing) = stream.into_split();
    let outgoing = Rc::new(Mutex::new(outgoing));
    let pipeline = Arc::new(Semaphore::new(PIPELINE as usize));
    while let Some(message) = next(&mut incoming).await? {
        let Ok(turn) = Arc::clone(&pipeline).acquire_owned().await else { break };
        let question = match judge(&message) {
            // What is no question at all ends the connection: nobody knows where the next message begins.
            Verdict::Ignore => break,
            Verdict::Answer(said) => {
                write(&outgoing, &said).await?;
                continue;
            }
            Verdict::Ask(question) => question,
        };
        let Ok(place) = Arc::clone(&desk.questions).acquire_owned().await else { break };
        let (desk, outgoing) = (Rc::clone(&desk), Rc::clone(&outgoing));
        spawn_local(async move {
            let said = desk.reply(question, Transport::Tcp).await;
            // A box that has gone away is told nothing.
            let _ = write(&outgoing, &said).await;
            drop((place, turn));
        });
    }
    // What was asked is answered, then the box closes first: a reset would take with it what it has not read.
    let _ = pipeline.acquire_many(PIPELINE).await;
    outgoing.lock().await.shutdown().await?;
    let _ = timeout(FAREWELL, incoming.read_u8()).await;
    Ok(())
}

/// The next message (RFC 1035, 4.2.2). `None`: the box closed, has been silent for long, or sends no question.
async fn next(incoming: &mut OwnedReadHalf) -> io::Result<Option<Vec<u8>>> {
    let Ok(Ok(length)) = timeout(SILENCE, incoming.read_u16()).await else { return Ok(None) };
    if usize::from(length) > LONGEST {
        return Ok(None);
    }
    let mut message = vec![0; usize::from(length)];
    match timeout(SILENCE, incoming.read_exact(&mut message)).await {
        Ok(read) => read.map(|_| Some(message)),
        Err(_) => Ok(None),
    }
}

async fn write(outgoing: &Mutex<OwnedWriteHalf>, said: &[u8]) -> io::Result<()> {
    let Ok(length) = u16::try_from(said.len()) else { return Ok(()) };
    let framed = [&length.to_be_bytes()[..], said].concat();
    let mut outgoing = outgoing.lock().await;
    timeout(FAREWELL, outgoing.write_all(&framed)).await?
}
