//! The box's resolver: takes the box's questions and asks them as the host would, now.
//!
//! A process of its own for each box, in the host's network, without any privilege: it reads what a box and what name
//! servers send. Messages are passed on as they are, but for their numbers. What one box can take of it (questions,
//! connections, memory) it takes from its own.

mod client;
mod members;
mod ports;
mod upstream;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener, UdpSocket as StdSocket};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

pub use self::members::{FromResolver, Members, ToResolver};
use self::ports::Ports;
use crate::host::names::HostResolver;
use crate::kernel::channel::Channel;
use crate::kernel::memory::{REST, release_program};
use crate::plan::host_name;
use crate::plan::question::{Question, Transport};
use crate::spec::names::Nameserver;

/// Questions on their way at a time. Further ones wait in the socket's queue, and are lost where that is full.
const QUESTIONS: usize = 256;

/// Whom a box's questions are passed on to.
#[derive(Debug, Clone, Copy)]
pub enum Asks<'a> {
    /// Those that the host asks.
    AsTheHost,
    /// These (`--dns`).
    These(&'a [Nameserver]),
    /// Nobody: the box's network has no way out, by names either.
    Nobody,
}

/// What all questions share.
#[derive(Debug)]
struct Desk {
    host: RefCell<HostResolver>,
    /// Who is asked instead: `--dns`.
    instead: Vec<Nameserver>,
    /// Whether anybody is.
    asks: bool,
    /// Where the box reaches the host's ports, where it was given any.
    gate: Option<Ipv4Addr>,
    /// Who is not asked for outside.
    members: RefCell<Vec<Members>>,
    questions: Arc<Semaphore>,
    ports: Rc<Ports>,
    asked: Notify,
}

impl Desk {
    /// The reply to a question, as the box gets it.
    async fn reply(&self, question: Question, transport: Transport) -> Vec<u8> {
        self.asked.notify_one();
        // Before the others of its network: none of them can take the name.
        if let Some(answer) = self.gate.and_then(|gate| host_name::answer(&question, gate)) {
            return question.delivered(answer, transport);
        }
        if let Some(answer) = self.members.borrow().iter().find_map(|members| members.answer(&question)) {
            return question.delivered(answer, transport);
        }
        if !self.asks {
            return question.delivered(question.unknown(), transport);
        }
        let upstream = self.host.borrow_mut().current().upstream(&self.instead);
        let question = Rc::new(question);
        let reply = upstream::ask(upstream, Rc::clone(&question), transport, &self.ports).await;
        question.delivered(reply.unwrap_or_else(|| question.failure()), transport)
    }
}

/// Gives memory back when nobody has asked for a while: most programs ask when they start (promise C3).
async fn rest(desk: Rc<Desk>) {
    loop {
        desk.asked.notified().await;
        while timeout(REST, desk.asked.notified()).await.is_ok() {}
        desk.ports.rest();
        release_program();
    }
}

/// Serves for as long as this process lives. Both sockets must not block. `gate`: where the box reaches the host's ports, where
/// it was given any. `members`: the boxes of the box's networks, which `keeper` may replace by others.
///
/// # Errors
/// When there is no memory or descriptor left to begin with.
pub fn serve(
    (udp, tcp): (OwnedFd, OwnedFd),
    asks: Asks<'_>,
    gate: Option<Ipv4Addr>,
    members: Vec<Members>,
    keeper: Option<Channel>,
) -> io::Result<Infallible> {
    let instead = if let Asks::These(servers) = asks { servers } else { &[] };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let desk = Rc::new(Desk {
            host: RefCell::default(),
            instead: instead.to_vec(),
            asks: !matches!(asks, Asks::Nobody),
            gate,
            members: RefCell::new(members),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            ports: Rc::default(),
            asked: Notify::new(),
        });
        if let Some(keeper) = keeper {
            tokio::task::spawn_local(members::listen_to(keeper, Rc::clone(&desk)));
        }
        let listener = TcpListener::from_std(StdListener::from(tcp))?;
        tokio::task::spawn_local(client::connections(listener, Rc::clone(&desk)));
        tokio::task::spawn_local(rest(Rc::clone(&desk)));
        client::datagrams(UdpSocket::from_std(StdSocket::from(udp))?, desk).await
    })
}
