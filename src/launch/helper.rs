//! The keeper's helpers: processes that serve the box, started when somebody first asks for it, and again if they die.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::Serialize;

use crate::error::{Context, Result};
use crate::kernel::channel::{Channel, Heard};
use crate::kernel::process::{self, Side};
use crate::kernel::wait;

use super::confine::confine;

/// A helper that dies is not started again sooner than this.
const PAUSE: Duration = Duration::from_millis(100);

/// A helper that does not take or answer a word for so long is not well.
const PATIENCE: Duration = Duration::from_millis(200);

/// What is to be done in a helper.
pub struct Errand<'a> {
    /// How the process is called in lists of processes, at most 15 characters (PR_SET_NAME(2const)).
    pub name: &'static str,
    /// What starts it: descriptors that become readable. The helper watches them from then on.
    pub activity: Box<dyn Fn() -> Vec<BorrowedFd<'a>> + 'a>,
    /// Whether the keeper talks to it while it runs.
    pub linked: Box<dyn Fn() -> bool + 'a>,
    /// The user that it runs as.
    pub user: u32,
    /// The memory that it may have, in bytes.
    pub memory: u64,
    /// What has to be done with the keeper's rights. Returns what it keeps open: all else is closed, the locks of the keeper among
    /// it.
    pub prepare: Box<dyn Fn() -> Result<Vec<OwnedFd>> + 'a>,
    /// What it does without any. Returns only when it cannot. With the other end of what the keeper talks by, where it is linked.
    pub serve: Box<dyn Fn(Vec<OwnedFd>, Option<Channel>) + 'a>,
}

impl std::fmt::Debug for Errand<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Errand").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A helper, running or not.
#[derive(Debug)]
pub struct Helper<'a> {
    errand: Errand<'a>,
    running: Option<Pid>,
    link: Option<Channel>,
    started: Option<Instant>,
}

impl<'a> Helper<'a> {
    /// Not running.
    #[must_use]
    pub const fn new(errand: Errand<'a>) -> Self {
        Self { errand, running: None, link: None, started: None }
    }

    /// Whether it runs.
    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// What it is called.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.errand.name
    }

    /// What to watch for it: nothing while it runs, or has just died.
    pub(super) fn wanted(&self, now: Instant) -> Vec<BorrowedFd<'a>> {
        if self.running.is_some() || self.pause(now).is_some() {
            Vec::new()
        } else {
            (self.errand.activity)()
        }
    }

    /// How long until it may be started again.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        if self.running.is_some() {
            return None;
        }
        PAUSE.checked_sub(now.duration_since(self.started?)).filter(|left| !left.is_zero())
    }

    /// Takes note that a child of the keeper's ended.
    pub(super) fn child_ended(&mut self, pid: Pid) {
        if self.running == Some(pid) {
            self.running = None;
            self.link = None;
        }
    }

    /// Tells it something, if it runs. One that does not take it in time is killed, and started again when it is next asked for.
    pub(super) fn tell(&mut self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) {
        let Some(link) = &self.link else { return };
        let end = Instant::now() + PATIENCE;
        loop {
            match link.send_now(message, descriptors) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && is_ready(link, PollFlags::POLLOUT, end) => {}
                Ok(()) => return,
                Err(_) => return self.kill(),
            }
        }
    }

    /// Tells it something that it answers, if it runs. One that the keeper does not talk to is ended instead: it is started again,
    /// knowing better, when it is next asked for.
    pub(super) fn tell_or_end(&mut self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) {
        if self.link.is_none() {
            return self.kill();
        }
        self.tell(message, descriptors);
        self.await_answer();
    }

    /// Waits for its answer, if it runs. One that does not give it in time is killed.
    pub(super) fn await_answer(&mut self) {
        let Some(link) = &self.link else { return };
        let answered = is_ready(link, PollFlags::POLLIN, Instant::now() + PATIENCE)
            && matches!(link.hear(), Ok(Heard::Message(..)));
        if !answered {
            self.kill();
        }
    }

    /// Kills it: what it had open is closed when this returns.
    fn kill(&mut self) {
        if let Some(pid) = self.running.take() {
            self.link = None;
            // A child that nobody has waited for yet, so the number is its own.
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
            let _ = wait::end_of(pid);
        }
    }

    /// Starts it. To be called while this process has a single thread.
    ///
    /// # Errors
    /// Those of fork(2).
    pub(super) fn start(&mut self, now: Instant) -> Result<()> {
        self.started = Some(now);
        let keeper = nix::unistd::getpid();
        let cannot = || format!("cannot start {}", self.errand.name);
        let (link, other) = (self.errand.linked)().then(Channel::pair).transpose().context(cannot)?.unzip();
        match process::fork().context(cannot)? {
            Side::Parent(pid) => {
                self.running = Some(pid);
                self.link = link;
            }
            Side::Child => {
                // Nobody is told: what it should have served fails, and it is started again.
                let _ = run(&self.errand, keeper, other);
                process::exit_now(1)
            }
        }
        Ok(())
    }
}

/// Whether the channel is ready by then.
fn is_ready(link: &Channel, what: PollFlags, end: Instant) -> bool {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(link.as_fd(), what)], limit) {
            Err(Errno::EINTR) => {}
            ready => return ready.is_ok_and(|ready| ready > 0),
        }
    }
}

fn run(errand: &Errand<'_>, keeper: Pid, link: Option<Channel>) -> Result<()> {
    if let Ok(name) = std::ffi::CString::new(errand.name) {
        // A name is for people.
        let _ = nix::sys::prctl::set_name(&name);
    }
    let kept = (errand.prepare)()?;
    let open: Vec<_> = kept.iter().map(AsFd::as_fd).chain(link.as_ref().map(AsFd::as_fd)).collect();
    process::close_all_but(&open).context(|| "cannot close the keeper's descriptors")?;
    confine(errand.user, keeper, errand.memory, open.len())?;
    (errand.serve)(kept, link);
    Ok(())
}
