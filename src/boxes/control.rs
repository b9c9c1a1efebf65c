//! A connection to the keeper of a living box.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::find::Found;
use crate::apply::lease::CONTROL;
use crate::apply::registry;
use crate::error::{Context, Error, Result};
use crate::kernel::channel::Channel;
use crate::kernel::listener;
pub use crate::launch::control::message::Request;
use crate::launch::control::message::{Answer, Envelope, PROTOCOL};
use crate::spec::name::BoxId;

/// A keeper makes its socket when its box has lived for a tenth of a second: one that has none after so long is not well.
const PATIENCE: Duration = Duration::from_secs(1);

/// A keeper is never busy for so long: it was stopped, or waits for one that was.
const ANSWER: Duration = Duration::from_secs(5);

/// Nor with a change of its ports or networks, for which it may wait for one who removes a network.
const CHANGE: Duration = Duration::from_secs(10);

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    channel: Channel,
    /// The box's name.
    name: String,
}

/// Connects to the keeper of the box, and waits for it where the box has only just started.
///
/// # Errors
/// When the box has ended, or its keeper cannot be reached.
pub fn connect(found: &Found) -> Result<Connection> {
    let (name, root) = (&found.record.name, found.state().root());
    let id = BoxId::parse(&found.record.id)?;
    let ended = || Error::new(format!("box {name} has just ended"));
    let directory = registry::directory_of(root, &id).map_err(|error| match error.kind() {
        ErrorKind::NotFound => ended(),
        _ => Error::new(format!("cannot reach the keeper of box {name}")).os(&error),
    })?;
    let end = Instant::now() + PATIENCE;
    let mut changes = None;
    loop {
        match listener::connect(directory.as_fd(), CONTROL, PATIENCE) {
            Ok(channel) => return Ok(Connection { channel, name: name.clone() }),
            // It is not there yet.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => return Err(ended()),
            Err(error) => {
                return Err(Error::new(format!("cannot reach the keeper of box {name}")).os(&error));
            }
        }
        if !matches!(registry::look_up(root, id.as_str()), Some((Some(_), true))) {
            return Err(ended());
        }
        let Some(changes) = &changes else {
            changes = Some(changes_in(directory.as_fd()).context(|| format!("cannot wait for box {name}"))?);
            // It may have come before anybody looked.
            continue;
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(format!("cannot reach the keeper of box {name}"))
                .because("it does not listen")
                .hint("where the box is only just starting, try again in a moment"));
        }
        wait_for(changes.as_fd(), left).context(|| format!("cannot wait for box {name}"))?;
    }
}

/// What becomes readable with every change of a directory's entries.
fn changes_in(directory: BorrowedFd<'_>) -> std::io::Result<std::os::fd::OwnedFd> {
    let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&directory));
    let flags = WatchFlags::MOVE | WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::DELETE_SELF;
    inotify::add_watch(&changes, path, flags)?;
    Ok(changes)
}

fn wait_for(changes: BorrowedFd<'_>, limit: Duration) -> std::io::Result<()> {
    let limit = PollTimeout::try_from(limit + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(changes, PollFlags::POLLIN)], limit) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    // What it was shows when one looks. EAGAIN: nothing.
    let _ = rustix::io::read(changes, &mut [0; 4096]);
    Ok(())
}

impl Connection {
    /// The box's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says something to the keeper.
    ///
    /// # Errors
    /// When it is gone.
    pub fn say(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        let envelope = Envelope { protocol: PROTOCOL, request };
        match self.channel.send(&envelope, descriptors) {
            // It has hung up already, and may have said why.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {
                self.hear().and(Err(Error::new(format!("box {} has just ended", self.name))))
            }
            sent => sent.context(|| format!("cannot talk to the keeper of box {}", self.name)),
        }
    }

    /// Waits for what the keeper says next. `None`: it has hung up.
    ///
    /// # Errors
    /// What the keeper says went wrong, or that it did not understand.
    pub fn hear(&self) -> Result<Option<Answer>> {
        let heard = self.channel.receive();
        let heard = heard.context(|| format!("cannot understand the keeper of box {}", self.name));
        match heard?.map(|incoming| incoming.message) {
            Some(Answer::Failed(error)) => Err(error),
            Some(Answer::Unknown { version, .. }) => {
                let error = Error::new(format!("box {} cannot do that", self.name));
                Err(error
                    .because(format!(
                        "its keeper is netbox {}, this is {}",
                        version,
                        env!("CARGO_PKG_VERSION")
                    ))
                    .hint("start the box again with this netbox"))
            }
            answer => Ok(answer),
        }
    }

    /// Tells the keeper that process `agent` has a command in the box: see [`Request::Exec`]. `calls`: what tells that it may
    /// listen, where the keeper wants to know. `launcher`: the channel to who wants it. No longer than a keeper may take that is
    /// well: until it answers, no signal ends the command.
    ///
    /// # Errors
    /// When the box ends, the launcher is gone, or the keeper refuses or does not answer.
    pub fn register(
        &self,
        agent: BorrowedFd<'_>,
        command: BorrowedFd<'_>,
        calls: Option<BorrowedFd<'_>>,
        launcher: BorrowedFd<'_>,
    ) -> Result<()> {
        let descriptors: Vec<_> = [agent, command].into_iter().chain(calls).collect();
        self.say(Request::Exec, &descriptors)?;
        self.wait_for_answer(Some(launcher), ANSWER)?;
        match self.hear()? {
            Some(Answer::Registered) => Ok(()),
            _ => Err(Error::new(format!("box {} has just ended", self.name))),
        }
    }
}

impl Connection {
    /// Has the keeper change something of the box, and waits until it has. No longer than a keeper may take that is well: it does
    /// not begin what nobody waits for any more.
    ///
    /// # Errors
    /// What the keeper says went wrong; when the box ends, or the keeper does not answer.
    pub fn ask(&self, request: Request) -> Result<Option<Answer>> {
        self.say(request, &[])?;
        self.wait_for_answer(None, CHANGE)?;
        self.hear()
    }

    fn wait_for_answer(&self, launcher: Option<BorrowedFd<'_>>, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(format!("cannot reach the keeper of box {}", self.name))
                    .because("it does not answer")
                    .hint("somebody may have stopped it: netbox inspect --format /0/pids/keeper shows which process it is"));
            }
            let launcher = launcher.map(|launcher| PollFd::new(launcher, PollFlags::empty()));
            let mut wanted: Vec<_> =
                [PollFd::new(self.as_fd(), PollFlags::POLLIN)].into_iter().chain(launcher).collect();
            let limit = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut wanted, limit) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context(|| format!("cannot wait for box {}", self.name)),
            }
            let mut happened = wanted.iter().map(|fd| fd.any().unwrap_or(false));
            if happened.next() == Some(true) {
                return Ok(());
            }
            if happened.next() == Some(true) {
                return Err(Error::new("who wanted this command is gone"));
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
