//! What the keeper does for its box while the command runs: it starts helpers, and sees that the box keeps its files.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::lstat;
use nix::unistd::Pid;

use crate::apply::names::BoxFile;
use crate::error::{Context, Error, Result};
use crate::kernel::call_watch::CallWatch;
use crate::kernel::memory::REST;
use crate::kernel::process::{self, Side};

use super::control::message::{Answer, Request};
use super::errands::{RELAY, RESOLVER};
use super::helper::Helper;
use super::living::Living;
use super::mounts;
use super::publish_all::Publisher;

/// Between two attempts to put a file back, at first and at last: what was in its place may be gone for a while.
const AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// One of the duties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// The helper with this number.
    Helper(usize),
    /// The box's own files.
    Files,
    /// What listens in the box.
    Listeners,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Duties<'a> {
    helpers: Vec<Helper<'a>>,
    files: Option<Files<'a>>,
    living: Option<Living<'a>>,
    publisher: Option<&'a mut Publisher>,
}

impl<'a> Duties<'a> {
    /// To start these helpers when they are asked for, to keep these files, to change the ports and networks of a box that can have any, and
    /// to publish what listens.
    #[must_use]
    pub const fn new(
        helpers: Vec<Helper<'a>>,
        files: Option<Files<'a>>,
        living: Option<Living<'a>>,
        publisher: Option<&'a mut Publisher>,
    ) -> Self {
        Self { helpers, files, living, publisher }
    }

    /// Does what another netbox command asks.
    pub(super) fn change(&mut self, request: Request) -> Answer {
        let Some(living) = &mut self.living else {
            let error = Error::new("cannot change the ports or the networks of the box");
            return Answer::Failed(error.because("it has no link to the gateway"));
        };
        match request {
            Request::Connect(network) => living.answer_connect(&network, named(&mut self.helpers, RESOLVER)),
            Request::Disconnect(name) => living.answer_disconnect(&name, named(&mut self.helpers, RESOLVER)),
            request => living.answer_ports(request, named(&mut self.helpers, RELAY)),
        }
    }

    /// Watches the calls of a command that joined the box.
    ///
    /// # Errors
    /// When nobody wants to know of them; when it is no such watch.
    pub(super) fn watch_calls(&mut self, calls: OwnedFd) -> Result<()> {
        let calls =
            CallWatch::received(calls).context(|| "cannot watch the calls of a command in the box")?;
        let Some(publisher) = &mut self.publisher else {
            // They would fail without anybody to let them go on.
            return Err(Error::new("nobody watches what listens in the box"));
        };
        publisher.watch_calls(calls);
        Ok(())
    }

    /// What to wait for.
    pub(super) fn wanted(&self, now: Instant) -> Vec<(Duty, PollFd<'_>)> {
        let mut wanted = Vec::new();
        for (number, helper) in self.helpers.iter().enumerate() {
            let fds = helper.wanted(now).into_iter();
            wanted.extend(fds.map(|fd| (Duty::Helper(number), PollFd::new(fd, PollFlags::POLLIN))));
        }
        if let Some(mounts) = self.files.as_ref().and_then(Files::wanted) {
            // proc_pid_mounts(5): a change of the mounts is exceptional.
            wanted.push((Duty::Files, PollFd::new(mounts.as_fd(), PollFlags::POLLPRI)));
        }
        let listeners = self.publisher.iter().flat_map(|publisher| publisher.wanted());
        wanted.extend(listeners.map(|fd| (Duty::Listeners, PollFd::new(fd, PollFlags::POLLIN))));
        wanted
    }

    /// How long to wait at most.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        let pauses = self.helpers.iter().filter_map(|helper| helper.pause(now));
        let pauses = pauses.chain(self.files.as_ref().and_then(|files| files.left(now)));
        pauses.chain(self.publisher.as_ref().and_then(|publisher| publisher.timeout(now))).min()
    }

    /// Does what is to be done: for those that were woken, and for what had to wait. Returns what could not be done.
    pub(super) fn attend(&mut self, woken: &[Duty], now: Instant) -> Vec<String> {
        let mut problems = Vec::new();
        for (number, helper) in self.helpers.iter_mut().enumerate() {
            if woken.contains(&Duty::Helper(number))
                && let Err(error) = helper.start(now)
            {
                problems.push(error.to_string());
            }
        }
        if let Some(files) = &mut self.files
            && (woken.contains(&Duty::Files) || files.left(now).is_some_and(|left| left.is_zero()))
        {
            files.look(now);
        }
        if let (Some(publisher), Some(living)) = (&mut self.publisher, &mut self.living)
            && (woken.contains(&Duty::Listeners) || publisher.timeout(now).is_some_and(|left| left.is_zero()))
        {
            problems.extend(publisher.attend(living, named(&mut self.helpers, RELAY), now));
        }
        problems
    }

    /// Takes note that a child of the keeper's, which is not the command, ended.
    pub(super) fn child_ended(&mut self, pid: Pid, status: u8) {
        for helper in &mut self.helpers {
            helper.child_ended(pid);
        }
        if let Some(files) = &mut self.files {
            files.child_ended(pid, status);
        }
    }
}

fn named<'h, 'a>(helpers: &'h mut [Helper<'a>], name: &str) -> Option<&'h mut Helper<'a>> {
    helpers.iter_mut().find(|helper| helper.name() == name)
}

/// The box's own files, which lie over the host's.
///
/// Where the host replaces its file by rename, or removes it, the kernel takes away what is mounted there in every
/// namespace (`detach_mounts` of fs/namespace.c). Then they are put back.
#[derive(Debug)]
pub struct Files<'a> {
    files: &'a [BoxFile],
    command: Pid,
    /// `/proc/PID/mountinfo` of the box, once it has lived for a while.
    mounts: Option<File>,
    /// The process that is at it.
    running: Option<Pid>,
    /// When to look again, and how long after that.
    again: Option<(Instant, Duration)>,
}

impl<'a> Files<'a> {
    /// Watches over `files` in the mount namespace of `command`, from a moment later on: most commands are over by then.
    #[must_use]
    pub fn new(files: &'a [BoxFile], command: Pid) -> Self {
        Self { files, command, mounts: None, running: None, again: Some((Instant::now() + REST, AGAIN.0)) }
    }

    fn left(&self, now: Instant) -> Option<Duration> {
        let (when, _) = self.again.filter(|_| self.running.is_none())?;
        Some(when.saturating_duration_since(now))
    }

    /// Its mounts, but not while a process is at them: what changes meanwhile is told afterwards.
    fn wanted(&self) -> Option<&File> {
        self.mounts.as_ref().filter(|_| self.running.is_none())
    }

    fn child_ended(&mut self, pid: Pid, status: u8) {
        if self.running == Some(pid) {
            self.running = None;
            if status == 0 {
                self.again = None;
            }
        }
    }

    fn look(&mut self, now: Instant) {
        if self.running.is_some() {
            return;
        }
        if self.mounts.is_none() {
            // A command that has just ended has none, and needs no files.
            self.mounts = File::open(format!("/proc/{}/mountinfo", self.command)).ok();
        }
        // As the command sees it, which may have changed its root directory since: then it only seems so.
        let root = format!("/proc/{}/root", self.command);
        if self.files.iter().all(|file| is_in_place(&root, file)) {
            self.again = None;
            return;
        }
        // What did not work the last time may take a while: there is nothing in its place that it could be put over.
        let pause = self.again.map_or(AGAIN.0, |(_, pause)| (pause * 2).min(AGAIN.1));
        self.again = Some((now + pause, pause));
        // In a process of its own: this one's root directory would become the box's.
        match process::fork() {
            Ok(Side::Parent(pid)) => self.running = Some(pid),
            Ok(Side::Child) => process::exit_now(u8::from(put_back(self.command, self.files).is_err())),
            // The next look is planned.
            Err(_) => {}
        }
    }
}

/// Whether the file is in its place. A link there is not followed: the file is mounted on it.
fn is_in_place(root: &str, file: &BoxFile) -> bool {
    let seen = lstat(format!("{root}{}", file.path).as_str());
    seen.is_ok_and(|seen| file.identity().is_ok_and(|own| own == (seen.st_dev, seen.st_ino)))
}

fn put_back(command: Pid, files: &[BoxFile]) -> Result<()> {
    // Made here, where the files are: a mount namespace clones its own mounts only.
    let mounts = files.iter().map(BoxFile::mount).collect::<Result<Vec<_>>>()?;
    let namespace =
        File::open(format!("/proc/{command}/ns/mnt")).context(|| "cannot find the box's mounts")?;
    // The root directory is that of the namespace then (setns(2)).
    setns(namespace, CloneFlags::CLONE_NEWNS).context(|| "cannot enter the box's mounts")?;
    let mut missing = files.iter().zip(&mounts).filter(|(file, _)| !is_in_place("", file));
    missing.try_for_each(|(file, mount)| mounts::put(mount.as_fd(), file.path))
}
