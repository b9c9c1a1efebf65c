//! The box's first process, as its keeper sees it: a process, the steps that it tells, and the command that it becomes or, as
//! the init of a pid namespace, forks.

use std::cell::{Cell, OnceCell, RefCell};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::apply::names::BoxFile;
use crate::error::{Context, Error, Result};
use crate::kernel::channel::{Channel, Incoming};
use crate::kernel::namespace::{self, MountNamespace};
use crate::kernel::process::{self, Birth, Process, Side};
use crate::kernel::signal::Signals;
use crate::plan::record::MountIdentity;
use crate::spec::request::RunRequest;

use super::inside::{self, Inside};
use super::message::{BoxFacts, FromBox, FromInit, ToBox, introduce};

const CANNOT_HEAR: &str = "cannot hear the box's first process";

/// The box's first process.
#[derive(Debug)]
pub struct FirstProcess {
    /// The keeper's child: the command, or the init above it.
    pub process: Process,
    /// From whoever becomes the command.
    channel: Channel,
    init: Option<Init>,
    stopped: Cell<bool>,
    /// See [`FirstProcess::wait_until_configured`].
    left: RefCell<Vec<OwnedFd>>,
    /// See [`FirstProcess::network`].
    network: OnceCell<u64>,
}

/// The first process of a pid namespace.
#[derive(Debug)]
struct Init {
    news: Channel,
    command: OnceCell<Process>,
}

impl FirstProcess {
    /// `channel`: the end whose other end the process has; `news`: likewise, where it stays as init.
    fn new(process: Process, channel: Channel, news: Option<Channel>) -> Self {
        let init = news.map(|news| Init { news, command: OnceCell::new() });
        let (stopped, left, network) = (Cell::new(false), RefCell::default(), OnceCell::new());
        Self { process, channel, init, stopped, left, network }
    }

    /// Its network namespace: the one in which it was when this was first called, before it became the command. A command can go
    /// to another, of a user namespace of its own, where it has rights that no box has.
    ///
    /// # Errors
    /// When it did; when it has ended.
    pub fn network(&self) -> Result<OwnedFd> {
        let cannot = || "cannot open the box's network namespace";
        let network = namespace::network_of_process(&self.process).context(cannot)?;
        // Not used again while the namespace lives.
        let inode = rustix::fs::fstat(&network).map_err(io::Error::from).context(cannot)?.st_ino;
        if *self.network.get_or_init(|| inode) != inode {
            return Err(Error::new("cannot enter the box's network namespace")
                .because("its command is not in the one that it was started in"));
        }
        Ok(network)
    }

    /// Starts it, in a process group of the keeper's own, and lets go of what the command inherits.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM and what else fork(2) and clone(2) know.
    pub fn start(inside: Inside<'_>, launcher: &Channel) -> Result<(Self, Signals)> {
        let pids = inside.request.unshare.pid;
        let birth = Birth { pids, users: inside.privileges.own_users };
        let fork = || process::fork_into(birth);
        Self::begin(pids, launcher, &[], fork, |init, to_keeper| {
            inside::first_process(Inside { init, ..inside }, to_keeper)
        })
    }

    /// The same for whatever becomes a command: `fork` makes the process, which does `work`. `has_init`: it stays above the
    /// command. `kept`: what the process that calls keeps open besides.
    ///
    /// # Errors
    /// As [`FirstProcess::start`].
    pub fn begin(
        has_init: bool,
        launcher: &Channel,
        kept: &[BorrowedFd<'_>],
        fork: impl FnOnce() -> io::Result<Side>,
        work: impl FnOnce(Option<Channel>, &Channel) -> u8,
    ) -> Result<(Self, Signals)> {
        let own = Pid::from_raw(0);
        // What is sent to the launcher's process group is not for the keeper.
        nix::unistd::setpgid(own, own).context(|| "cannot make a process group")?;
        process::become_subreaper().context(|| "cannot become a subreaper")?;
        let (to_box, to_keeper) = Channel::pair().context(|| "cannot make a channel")?;
        let (news, init) = match has_init {
            true => Channel::pair().map(|(news, init)| (Some(news), Some(init))),
            false => Ok((None, None)),
        }
        .context(|| "cannot make a channel")?;
        let pid = match fork().context(|| "cannot start the box's first process")? {
            Side::Parent(pid) => pid,
            Side::Child => {
                drop((to_box, news));
                process::exit_now(work(init, &to_keeper))
            }
        };
        drop((to_keeper, init));
        let own = [launcher, &to_box].into_iter().chain(&news).map(AsFd::as_fd);
        let kept: Vec<_> = own.chain(kept.iter().copied()).collect();
        process::close_all_but(&kept).context(|| "cannot close the inherited descriptors")?;
        process::let_go_of_standard_descriptors().context(|| "cannot open /dev/null")?;
        let process = Process::of_child(pid).context(|| "cannot watch the box's first process")?;
        if news.is_none() {
            introduce(launcher, &process);
        }
        let signals = Signals::of_children().context(|| "cannot watch for children")?;
        Ok((Self::new(process, to_box, news), signals))
    }

    /// The process that is, or becomes, the command.
    #[must_use]
    pub fn command(&self) -> &Process {
        self.init.as_ref().and_then(|init| init.command.get()).unwrap_or(&self.process)
    }

    /// Waits until the init has forked the process that becomes the command, and returns that. `None`: there is no init.
    ///
    /// # Errors
    /// What the init says went wrong; its death.
    pub fn meet_command(&self) -> Result<Option<&Process>> {
        let Some(init) = &self.init else { return Ok(None) };
        let incoming = init.news.receive().context(|| "cannot hear the box's init")?;
        let pidfd = match incoming {
            Some(Incoming { message: FromInit::Command, mut descriptors }) => descriptors
                .pop()
                .ok_or_else(|| Error::new("the box's init did not say who the command is"))?,
            Some(Incoming { message: FromInit::Failed(error), .. }) => return Err(error),
            Some(_) => return Err(Error::new("the box's init skipped a step")),
            None => return Err(Error::new("the box's init was killed before the command ran")),
        };
        // ESRCH: it has ended already, and said why.
        let process = Process::of_pidfd(pidfd)
            .context(|| "cannot watch the command")
            .map_err(|seen| self.explain(seen))?;
        Ok(Some(init.command.get_or_init(|| process)))
    }

    /// What becomes readable when the init says something.
    #[must_use]
    pub fn news(&self) -> Option<BorrowedFd<'_>> {
        self.init.as_ref().map(|init| init.news.as_fd())
    }

    /// What the init says, without waiting for it. `None`: nothing more, ever.
    ///
    /// # Errors
    /// Those of the channel.
    pub fn heard(&self) -> io::Result<Option<FromInit>> {
        let Some(init) = &self.init else { return Ok(None) };
        Ok(init.news.receive()?.map(|incoming| incoming.message))
    }

    /// Takes note that the command was stopped.
    pub fn note_stop(&self) {
        self.stopped.set(true);
    }

    /// Whether the command was ever stopped.
    #[must_use]
    pub const fn was_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Why the init ended, if it said so.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let init = self.init.as_ref()?;
        while has_news(&init.news) {
            match self.heard() {
                Ok(Some(FromInit::Failed(error))) => return Some(error),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
        None
    }

    /// Waits until the process has come so far. Returns the descriptors that came with the news.
    ///
    /// # Errors
    /// What the process says went wrong; its death.
    pub fn wait_until(&self, step: FromBox) -> Result<Vec<OwnedFd>> {
        let incoming = self.channel.receive().context(|| CANNOT_HEAR)?;
        match incoming.map(|incoming| (incoming.message, incoming.descriptors)) {
            Some((said, descriptors)) if said == step => Ok(descriptors),
            Some((FromBox::Failed(error), _)) => Err(error),
            Some(_) => Err(Error::new("the box's first process skipped a step")),
            None => Err(self
                .failure()
                .unwrap_or_else(|| Error::new("the box's first process was killed before the command ran"))),
        }
    }

    /// Waits until the process has configured its network. Returns what its calls are watched by, where they are (`watched`). What
    /// else comes with the news the process has no time to close: that stays open until the end of the keeper, who has.
    ///
    /// # Errors
    /// As [`FirstProcess::wait_until`].
    pub fn wait_until_configured(&self, watched: bool) -> Result<Option<OwnedFd>> {
        let mut descriptors = self.wait_until(FromBox::Configured)?.into_iter();
        let calls = if watched { descriptors.next() } else { None };
        self.left.borrow_mut().extend(descriptors);
        Ok(calls)
    }

    /// What the process itself says of a failure that was seen from outside: what it says comes first.
    #[must_use]
    pub fn explain(&self, seen: Error) -> Error {
        // Only if it has said something, or is gone: one that waits for this process says nothing.
        match has_news(&self.channel).then(|| self.listen()) {
            Some(Ok(Some(FromBox::Failed(error)))) => error,
            _ => self.failure().unwrap_or(seen),
        }
    }

    /// Gives the process's own user namespace the users of the host, and tells it.
    ///
    /// # Errors
    /// When they cannot be mapped; what the process says went wrong.
    pub fn map_users(&self) -> Result<()> {
        namespace::map_users_as_here(self.process.pid.as_raw())
            .context(|| "cannot map the users of the box's user namespace")?;
        self.tell(&ToBox::UsersMapped, &[])
    }

    /// By what the namespaces of the box are known, those that it does not share with the host: mounts and network.
    ///
    /// # Errors
    /// When they cannot be looked at.
    pub fn namespaces(&self, request: &RunRequest) -> Result<(Option<MountIdentity>, Option<u64>)> {
        let command = self.command();
        let mounts = request.has_own_mounts().then(|| MountNamespace::of_process(command)).transpose();
        let mounts = mounts.context(|| "cannot identify the box's mount namespace")?;
        let network =
            request.has_own_network().then(|| namespace::inode_of(command.pid.as_raw(), "net")).transpose();
        let network = network.context(|| "cannot identify the box's network namespace")?;
        Ok((mounts.map(|mounts| (mounts.inode, mounts.id)), network))
    }

    /// Tells the process that its link is there, and what it is. `files`: those of its own.
    ///
    /// # Errors
    /// What the process says went wrong.
    pub fn configure(&self, facts: BoxFacts, files: &[BoxFile]) -> Result<()> {
        let mounts = files.iter().map(BoxFile::mount).collect::<Result<Vec<_>>>()?;
        let mounts: Vec<_> = mounts.iter().map(AsFd::as_fd).collect();
        self.tell(&ToBox::Configure(facts), &mounts)
    }

    /// Lets the process become the command, and waits until it has: exec closes its end of the channel. So does its
    /// death by a signal, and then that is how the command ended. `warn` is told what the user should know.
    ///
    /// # Errors
    /// What the process says went wrong: a command that is not found, for instance.
    pub fn become_command(&self, warn: impl Fn(String)) -> Result<()> {
        self.tell(&ToBox::Run, &[])?;
        loop {
            match self.listen()? {
                Some(FromBox::Failed(error)) => return Err(error),
                Some(FromBox::Warning(line)) => warn(line),
                Some(_) => return Err(Error::new("the box's first process skipped a step")),
                None => return Ok(()),
            }
        }
    }

    /// The process, without the channels to it: whoever is at their other ends sees them close.
    #[must_use]
    pub fn into_process(self) -> Process {
        self.process
    }

    fn tell(&self, message: &ToBox, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        match self.channel.send(message, descriptors) {
            Ok(()) => Ok(()),
            // It is gone, and may have said why. After any other error it still waits, and so would this process.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                match self.listen()? {
                    Some(FromBox::Failed(error)) => Err(error),
                    _ => Err(self
                        .failure()
                        .unwrap_or_else(|| Error::new("cannot reach the box's first process").os(&error))),
                }
            }
            Err(error) => Err(Error::new("cannot reach the box's first process").os(&error)),
        }
    }

    fn listen(&self) -> Result<Option<FromBox>> {
        let incoming = self.channel.receive().context(|| CANNOT_HEAR)?;
        Ok(incoming.map(|incoming| incoming.message))
    }
}

fn has_news(channel: &Channel) -> bool {
    let mut wanted = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
