//! A name server on threads, that says the same address to every question, or what the first label asks for.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use domain::base::iana::{Class, Rcode};
use domain::base::message_builder::MessageBuilder;
use domain::base::{Message, Rtype};
use domain::rdata::A;

use super::place::Place;

/// `large` has so many addresses: more than a datagram without EDNS holds.
pub(crate) const MANY: u8 = 100;

/// A server that runs until the test ends. `silent.…` is not answered, `fails.…` fails, `gone.…` is not there, `large.…`
/// has [`MANY`] addresses, and `forged.…` is answered under another number and to another question first.
#[derive(Debug, Clone, Default)]
pub(crate) struct NameServer {
    datagrams: Arc<AtomicUsize>,
    streams: Arc<AtomicUsize>,
}

impl NameServer {
    pub(crate) fn start(place: &Place, at: SocketAddr, says: Ipv4Addr) -> Self {
        let server = Self::default();
        let (udp, tcp) = place.run(|| (UdpSocket::bind(at), TcpListener::bind(at)));
        let (udp, tcp) = (udp.expect("to bind"), tcp.expect("to listen"));
        let (datagrams, streams) = (Arc::clone(&server.datagrams), Arc::clone(&server.streams));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                // An ICMP error for an earlier answer comes as an error here.
                let Ok((length, from)) = udp.recv_from(&mut buffer) else { continue };
                datagrams.fetch_add(1, SeqCst);
                for answer in answers(&buffer[..length], says, true) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                streams.fetch_add(1, SeqCst);
                thread::spawn(move || converse(stream, says));
            }
        });
        server
    }

    pub(crate) fn datagrams(&self) -> usize {
        self.datagrams.load(SeqCst)
    }

    pub(crate) fn streams(&self) -> usize {
        self.streams.load(SeqCst)
    }
}

fn converse(mut stream: TcpStream, says: Ipv4Addr) {
    while let Some(message) = read_framed(&mut stream) {
        for answer in answers(&message, says, false) {
            if write_framed(&mut stream, &answer).is_err() {
                return;
            }
        }
    }
}

/// A message of a stream (RFC 1035, 4.2.2).
pub(crate) fn read_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

pub(crate) fn write_framed(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).expect("a short message");
    stream.write_all(&[&length.to_be_bytes()[..], message].concat())
}

fn answers(question: &[u8], says: Ipv4Addr, in_datagram: bool) -> Vec<Vec<u8>> {
    let Ok(question) = Message::from_slice(question) else { return Vec::new() };
    let Ok(asked) = question.sole_question() else { return Vec::new() };
    let name = asked.qname().to_string();
    let kind = name.split('.').next().unwrap_or_default();
    let rcode = match kind {
        "silent" => return Vec::new(),
        "fails" => Rcode::SERVFAIL,
        "gone" => Rcode::NXDOMAIN,
        _ => Rcode::NOERROR,
    };
    let mut builder = MessageBuilder::new_vec().start_answer(question, rcode).expect("room");
    builder.header_mut().set_ra(true);
    if asked.qtype() == Rtype::A && rcode == Rcode::NOERROR {
        for last in 0..if kind == "large" { MANY } else { 1 } {
            let address = if kind == "large" { Ipv4Addr::new(192, 0, 2, last) } else { says };
            builder.push((asked.qname(), Class::IN, 60, A::new(address))).expect("room");
        }
    }
    let mut answer = builder.finish();
    let room = question.opt().map_or(512, |opt| usize::from(opt.udp_payload_size()));
    if in_datagram && answer.len() > room {
        let mut cut = MessageBuilder::new_vec().start_answer(question, rcode).expect("room");
        cut.header_mut().set_tc(true);
        answer = cut.finish();
    }
    if kind != "forged" {
        return vec![answer];
    }
    let mut number = answer.clone();
    number[0] ^= 0xff;
    let mut other = answer.clone();
    other[13] ^= 1;
    vec![number, other, answer]
}
