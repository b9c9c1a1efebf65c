//! The control socket of a living box: by it other netbox commands ask the keeper for what it alone can do.
//!
//! The keeper has one thread and more to do than to listen: nothing here waits for a peer. Who may connect is the keeper's own
//! user, or root; what they say is nevertheless taken for anybody's. A bad message ends its connection and no other.

pub mod message;
mod strays;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::apply::lease::{CONTROL, Lease, NEW_CONTROL};
use crate::apply::sweep;
use crate::error::{Context, Error, Result};
use crate::kernel::channel::{Channel, Heard};
use crate::kernel::listener::Listener;
use crate::kernel::namespace::MountNamespace;
use crate::kernel::process::{self, Process};
use crate::plan::record::MountIdentity;

use super::duties::Duties;
use message::{Answer, Request, Unreadable};

/// So many connections at a time. An `exec` takes three descriptors, with `-P` four.
const MOST: usize = 256;
/// So many of them may have asked for nothing yet.
const MOST_IDLE: usize = 64;
/// So many wait to be accepted.
const BACKLOG: i32 = 64;
/// How long to leave those alone when descriptors have run out.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);
/// How long a box that ends waits for those that have commands in it.
const PATIENCE: Duration = Duration::from_millis(100);

/// What woke the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// Somebody connects.
    Listener,
    /// This one speaks or hangs up.
    Client(u64),
}

/// What somebody wants of the keeper.
#[derive(Debug)]
enum Role {
    /// Nothing so far, or nothing any more.
    Idle,
    /// To be told of the end.
    Waiter,
    /// To have a command in the box.
    Exec(Exec),
}

/// A command in the box that the keeper did not start.
#[derive(Debug)]
struct Exec {
    /// Who did.
    agent: Process,
    command: Process,
    /// What stands above the command in the box's pid namespace: it kills what is left of the command's, and ends by itself. Killed
    /// before it is done, it would leave that to the box's init, whose are the box's own.
    warden: Option<Pid>,
}

#[derive(Debug)]
struct Client {
    number: u64,
    channel: Channel,
    /// Who connected.
    peer: Pid,
    role: Role,
}

/// The keeper's end of the control socket. Does not listen before [`Control::open`].
#[derive(Debug, Default)]
pub struct Control {
    listener: Option<Listener>,
    clients: Vec<Client>,
    /// Of the next client.
    number: u64,
    deaf_until: Option<Instant>,
    /// Whether anybody else's command ever was in the box.
    had_execs: bool,
}

impl Control {
    /// Listens from now on, in the directory of the box.
    ///
    /// # Errors
    /// ENOSPC, EMFILE and their like.
    pub fn open(&mut self, lease: &Lease) -> Result<()> {
        let listener = Listener::at(lease.directory(), NEW_CONTROL, CONTROL, BACKLOG);
        self.listener =
            Some(listener.context(|| format!("cannot make the control socket of box {}", lease.id))?);
        Ok(())
    }

    /// Whether [`Control::open`] made the socket.
    pub(super) const fn is_open(&self) -> bool {
        self.listener.is_some()
    }

    /// What to wait for.
    pub(super) fn wanted(&self, now: Instant) -> Vec<(Woken, PollFd<'_>)> {
        let listener = self.listener.as_ref().filter(|_| self.deaf_for(now).is_none());
        let listener = listener.map(|listener| (Woken::Listener, listener.as_fd()));
        let clients =
            self.clients.iter().map(|client| (Woken::Client(client.number), client.channel.as_fd()));
        listener
            .into_iter()
            .chain(clients)
            .map(|(who, fd)| (who, PollFd::new(fd, PollFlags::POLLIN)))
            .collect()
    }

    /// For how long it does not listen.
    pub(super) fn deaf_for(&self, now: Instant) -> Option<Duration> {
        self.deaf_until?.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Does what is asked. `mounts`: the box's mount namespace, if it has one of its own. `duties`: what changes ports and networks.
    pub(super) fn attend(&mut self, woken: &[Woken], mounts: Option<MountIdentity>, duties: &mut Duties<'_>) {
        for who in woken {
            match who {
                Woken::Listener => drop(self.accept()),
                Woken::Client(number) => {
                    let Some(place) = self.clients.iter().position(|client| client.number == *number) else {
                        continue;
                    };
                    if !self.hear(place, mounts, duties) {
                        self.part(place, mounts);
                    }
                }
            }
        }
    }

    /// Lets one in who waits. `false`: nobody does, or nobody can be let in.
    fn accept(&mut self) -> bool {
        let Some(listener) = &self.listener else { return false };
        match listener.accept() {
            Ok(Some((channel, user, peer))) => {
                if user != 0 && user != nix::unistd::geteuid().as_raw() {
                    return true;
                }
                match place_of_whom(self.clients.iter().map(|client| matches!(client.role, Role::Idle))) {
                    Room::Free => {}
                    Room::InPlaceOf(idle) => turn_away(&self.clients.remove(idle).channel),
                    Room::None => {
                        turn_away(&channel);
                        return true;
                    }
                }
                self.number += 1;
                self.clients.push(Client { number: self.number, channel, peer, role: Role::Idle });
                true
            }
            Ok(None) => false,
            // They wait on, and would wake the keeper without end.
            Err(_) => {
                self.deaf_until = Some(Instant::now() + OUT_OF_DESCRIPTORS);
                false
            }
        }
    }

    /// Hears one message. `false`: the connection is over.
    fn hear(&mut self, place: usize, mounts: Option<MountIdentity>, duties: &mut Duties<'_>) -> bool {
        let Some(client) = self.clients.get_mut(place) else { return false };
        let (bytes, descriptors) = match client.channel.hear() {
            Ok(Heard::Message(bytes, descriptors)) => (bytes, descriptors),
            Ok(Heard::Nothing) => return true,
            Ok(Heard::HungUp) | Err(_) => return false,
        };
        let answer = match message::read(&bytes) {
            // Each is said once, by who wants nothing else.
            Ok(Request::Wait | Request::Exec) if !matches!(client.role, Role::Idle) => return false,
            Ok(Request::Wait) => {
                client.role = Role::Waiter;
                return true;
            }
            Ok(Request::Exec) => match exec(descriptors, mounts, duties) {
                Ok(exec) => {
                    client.role = Role::Exec(exec);
                    self.had_execs = true;
                    Answer::Registered
                }
                Err(error) => Answer::Failed(error),
            },
            Ok(
                request @ (Request::AddPorts(_)
                | Request::RemovePorts(_)
                | Request::Connect(_)
                | Request::Disconnect(_)),
            ) => {
                // Who gave up waiting, as for a keeper that was stopped, is to find everything as it was.
                if client.channel.is_hung_up() {
                    return false;
                }
                duties.change(request)
            }
            Ok(Request::Goodbye) => {
                client.role = Role::Idle;
                return false;
            }
            Err(Unreadable::Foreign) => message::unknown(),
            Err(Unreadable::Garbage) => return false,
        };
        // Who does not read what it asked for has asked for enough.
        client.channel.send_now(&answer, &[]).is_ok()
    }

    /// Ends a connection, and what of an `exec` has lost its master.
    fn part(&mut self, place: usize, mounts: Option<MountIdentity>) {
        if let Role::Exec(exec) = self.clients.remove(place).role {
            kill(&exec.command);
            let warden = exec.warden;
            if let Some(mounts) = mounts {
                // Who has just connected may have a command in the box that it is about to register.
                (0..=BACKLOG).any(|_| !self.accept());
                let others = self.execs().flat_map(|exec| [exec.agent.pid, exec.command.pid]);
                let joining = self.clients.iter().filter(|client| matches!(client.role, Role::Idle));
                let others = others.chain(joining.map(|client| client.peer));
                let entitled: Vec<_> = others.chain([nix::unistd::getpid()]).collect();
                // What cannot be found now dies with the box.
                let _ = strays::kill(mounts, &entitled, warden);
            }
        }
    }

    fn execs(&self) -> impl Iterator<Item = &Exec> {
        self.clients.iter().filter_map(|client| match &client.role {
            Role::Exec(exec) => Some(exec),
            Role::Idle | Role::Waiter => None,
        })
    }

    /// The box ends: what others have in it is killed, and nobody can have more. To be called before the box's own processes
    /// are killed, and [`Control::await_execs`] after.
    pub fn dismiss_execs(&self) {
        for client in &self.clients {
            if let Role::Exec(exec) = &client.role {
                kill(&exec.command);
                // Who has no room for it sees the connection close.
                let _ = client.channel.send_now(&Answer::Over, &[]);
            }
        }
    }

    /// Waits, not for long, until those who had commands in the box have ended what descends from them, and kills what is left.
    ///
    /// # Errors
    /// Where /proc cannot be read.
    pub fn await_execs(&mut self, mounts: Option<MountIdentity>) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let (numbers, mut wanted): (Vec<_>, Vec<_>) = self
                .clients
                .iter()
                .filter(|client| matches!(client.role, Role::Exec(_)))
                .map(|client| (client.number, PollFd::new(client.channel.as_fd(), PollFlags::POLLIN)))
                .unzip();
            let left = end.saturating_duration_since(Instant::now());
            if numbers.is_empty() || left.is_zero() {
                break;
            }
            // EINTR: the time is looked at again.
            let _ = poll(
                &mut wanted,
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            );
            let ready: Vec<_> = wanted.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            let ready: Vec<_> = numbers.into_iter().zip(ready).filter(|(_, ready)| *ready).collect();
            self.clients.retain(|client| {
                let speaks = ready.iter().any(|(number, _)| *number == client.number);
                !speaks || matches!(client.channel.hear(), Ok(Heard::Nothing))
            });
        }
        match mounts.filter(|_| self.had_execs) {
            Some(mounts) => sweep::kill_in(mounts, |_| true),
            None => Ok(()),
        }
    }

    /// Tells those who wait for it how the box ended, and closes all connections.
    pub fn tell_end(mut self, status: u8) {
        // Who came in the last moment may have been left waiting.
        (0..=BACKLOG).any(|_| !self.accept());
        for client in self.clients {
            let waits = match client.role {
                Role::Idle => said(&client.channel) == Some(Request::Wait),
                Role::Waiter => true,
                Role::Exec(_) => false,
            };
            if waits {
                // Who does not read sees the connection close.
                let _ = client.channel.send_now(&Answer::Ended(status), &[]);
            }
        }
    }
}

fn turn_away(channel: &Channel) {
    let error = Error::new("too many netbox commands are connected to the box")
        .hint("try again when one of them has ended");
    // Who does not hear why finds the connection closed.
    let _ = channel.send_now(&Answer::Failed(error), &[]);
}

fn said(channel: &Channel) -> Option<Request> {
    match channel.hear() {
        Ok(Heard::Message(bytes, _)) => message::read(&bytes).ok(),
        _ => None,
    }
}

fn kill(command: &Process) {
    // EPERM cannot be for a process of the box. One that is gone is no error.
    let _ = command.signal(Signal::SIGKILL as i32);
}

/// Looks at what came with [`Request::Exec`].
fn exec(
    mut descriptors: Vec<OwnedFd>,
    mounts: Option<MountIdentity>,
    duties: &mut Duties<'_>,
) -> Result<Exec> {
    let calls = if descriptors.len() == 3 { descriptors.pop() } else { None };
    let [agent, command] = <[OwnedFd; 2]>::try_from(descriptors)
        .map_err(|_| Error::new("a command in the box comes with two process descriptors"))?;
    let open = |fd| Process::of_pidfd(fd).context(|| "cannot watch a command in the box");
    let (agent, command) = (open(agent)?, open(command)?);
    // ENOENT: it has just ended.
    let parent = process::parent_of(command.pid.as_raw()).ok().map(Pid::from_raw);
    let exec = Exec { warden: parent.filter(|parent| *parent != agent.pid), agent, command };
    // The keeper kills it at the end: nobody may name a process that is not the box's.
    if let Some((inode, id)) = mounts
        && !MountNamespace::of(exec.command.pid.as_raw()).is_ok_and(|own| own == MountNamespace { inode, id })
    {
        return Err(Error::new(format!("process {} is not in the box", exec.command.pid)));
    }
    calls.map_or(Ok(()), |calls| duties.watch_calls(calls))?;
    Ok(exec)
}

/// Where one more connection has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Free,
    /// The oldest that has asked for nothing goes.
    InPlaceOf(usize),
    None,
}

/// `idle`: of each connection, in the order in which they came, whether it has asked for nothing.
fn place_of_whom(idle: impl Iterator<Item = bool> + Clone) -> Room {
    let (all, idle_ones) = (idle.clone().count(), idle.clone().filter(|idle| *idle).count());
    if all < MOST && idle_ones < MOST_IDLE {
        return Room::Free;
    }
    idle.into_iter().position(|idle| idle).map_or(Room::None, Room::InPlaceOf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_nothing_goes_first() {
        let room = |idle: &[bool]| place_of_whom(idle.iter().copied());
        assert_eq!(room(&[]), Room::Free);
        assert_eq!(room(&[true; MOST_IDLE - 1]), Room::Free);
        assert_eq!(room(&[&[false][..], &[true; MOST_IDLE]].concat()), Room::InPlaceOf(1));
        assert_eq!(room(&[false; MOST - 1]), Room::Free);
        assert_eq!(room(&[&[false; MOST - 1][..], &[true]].concat()), Room::InPlaceOf(MOST - 1));
        assert_eq!(room(&[false; MOST]), Room::None);
    }
}
