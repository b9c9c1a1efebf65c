//! The keeper's life while the command runs: it waits, for the command's end or the launcher's.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::apply::lease::Lease;
use crate::error::{Context, Error, Result};
use crate::kernel::channel::Channel;
use crate::kernel::memory::{self, Rest};
use crate::kernel::process::Process;
use crate::kernel::signal::Signals;
use crate::kernel::wait::{self, News};
use crate::plan::record::MountIdentity;
use crate::serve::watch::{Watch, Word};

use super::control::Control;
use super::deadline::{Deadline, Due, TIMED_OUT};
use super::duties::Duties;
use super::first_process::FirstProcess;
use super::message::{FromInit, ToLauncher};

/// Why the keeper stops waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The command ended, and netbox ends with this status.
    Command(u8),
    /// The launcher is gone: nobody wants the box any more.
    LauncherGone,
}

/// What the keeper does while it waits.
#[derive(Debug)]
pub struct Care<'a> {
    /// For its box.
    pub duties: Duties<'a>,
    /// This keeper's share in looking after the host.
    pub watch: Option<&'a mut Watch>,
    /// For other netbox commands.
    pub control: &'a mut Control,
    /// What the box holds in the state directory.
    pub lease: Option<&'a Lease>,
    /// The box's mount namespace, where it has one of its own.
    pub mounts: Option<MountIdentity>,
}

/// The status of a command that got SIGKILL, and of a launcher whose caller went away.
pub const KILLED: u8 = 128 + 9;

/// The status of a run that ended so.
#[must_use]
pub fn status_of(ended: &Result<End>) -> u8 {
    match ended {
        Ok(End::Command(status)) => *status,
        // Its command was killed.
        Ok(End::LauncherGone) => KILLED,
        Err(error) => error.exit_status(),
    }
}

/// Waits until the command or the launcher ends, or the command's `time` has run out, and takes care of the box meanwhile.
///
/// # Errors
/// When waiting itself fails, or the box's init does; the caller then ends the box.
pub fn supervise(
    first: &FirstProcess,
    launcher: &Channel,
    signals: &mut Signals,
    time: Option<Duration>,
    care: Care<'_>,
) -> Result<End> {
    let Care { mut duties, mut watch, control, lease, mounts } = care;
    let cannot_wait = || "cannot wait for the end of the box";
    let mut init = first.news();
    let mut rest = Rest::default();
    // Most boxes end before anybody asks them for something, or anything of the host's changes.
    let mut settles = Some(Instant::now() + memory::REST);
    let mut deadline = time.map(Deadline::after);
    loop {
        if let Some(status) = reap(first, launcher, &mut duties).context(cannot_wait)? {
            let status = if deadline.as_ref().is_some_and(Deadline::has_passed) { TIMED_OUT } else { status };
            return first.failure().map_or(Ok(End::Command(status)), Err);
        }
        if let Some(deadline) = &mut deadline {
            match deadline.look(first.command()).context(|| "cannot end the command in time")? {
                Due::Nothing => {}
                Due::Asked => {
                    let line = "the command's time has run out: it was sent SIGTERM".to_owned();
                    // A dead launcher shows in the next poll.
                    let _ = launcher.send(&ToLauncher::Log(line), &[]);
                }
                Due::Kill => return Ok(End::Command(TIMED_OUT)),
            }
        }
        let now = Instant::now();
        let (launcher_gone, init_speaks, woken, changed, asked) = {
            // Nothing asked of the launcher's side: only its end wakes the keeper (poll(2): POLLHUP is
            // always reported).
            let mut wanted = vec![
                PollFd::new(launcher.as_fd(), PollFlags::empty()),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            wanted.extend(init.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            let others = wanted.len();
            let (names, fds): (Vec<_>, Vec<_>) = duties.wanted(now).into_iter().unzip();
            wanted.extend(fds);
            let on_watch = wanted.len();
            let watched = watch.as_ref().and_then(|watch| watch.descriptor());
            wanted.extend(watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            let on_control = wanted.len();
            let (clients, fds): (Vec<_>, Vec<_>) = control.wanted(now).into_iter().unzip();
            wanted.extend(fds);
            let pauses = [
                duties.timeout(now),
                control.deaf_for(now),
                settles.map(|settles| settles.saturating_duration_since(now)),
                deadline.as_ref().map(|deadline| deadline.left(now)),
            ];
            match rest.wait(&mut wanted, pauses.into_iter().flatten().min()) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context(cannot_wait),
            }
            let happened = |index: usize| wanted.get(index).and_then(PollFd::any).unwrap_or(false);
            let woken = names.into_iter().enumerate().filter(|(at, _)| happened(at + others));
            let woken: Vec<_> = woken.map(|(_, name)| name).collect();
            let changed = watched.is_some() && happened(on_watch);
            let asked = clients.into_iter().enumerate().filter(|(at, _)| happened(at + on_control));
            let asked: Vec<_> = asked.map(|(_, who)| who).collect();
            (happened(0), init.is_some() && happened(2), woken, changed, asked)
        };
        if launcher_gone {
            return Ok(End::LauncherGone);
        }
        if init_speaks {
            match first.heard().context(cannot_wait)? {
                Some(FromInit::Stopped(signal)) => tell_stopped(first, launcher, signal),
                Some(FromInit::Failed(error)) => return Err(error),
                Some(FromInit::Command) => {}
                // It is ending: the next news is its end.
                None => init = None,
            }
        }
        if !woken.is_empty() {
            rest = Rest::default();
        }
        for problem in duties.attend(&woken, Instant::now()) {
            // A launcher that is gone shows in the next wait.
            let _ = launcher.send(&ToLauncher::Warning(problem), &[]);
        }
        let has_settled = settles.take_if(|settles| *settles <= Instant::now()).is_some();
        if let Some(watch) = watch.as_mut().filter(|_| has_settled || changed) {
            for word in if has_settled { watch.begin() } else { watch.attend() } {
                // A launcher that is gone shows in the next wait.
                let _ = launcher.send(&ToLauncher::from(word), &[]);
            }
            // What was needed for that need not stay in memory.
            rest = Rest::default();
        }
        if let Some(lease) = lease.filter(|_| has_settled && !control.is_open())
            && let Err(error) = control.open(lease)
        {
            let line = format!("other netbox commands cannot reach the box: {error}");
            // A launcher that is gone shows in the next wait.
            let _ = launcher.send(&ToLauncher::Warning(line), &[]);
        }
        if !asked.is_empty() {
            control.attend(&asked, mounts, &mut duties);
            rest = Rest::default();
        }
        while signals.read().context(cannot_wait)?.is_some() {}
    }
}

/// Whether anybody still wants the box.
///
/// # Errors
/// When the launcher is gone.
pub fn launcher_is_there(launcher: &Channel) -> Result<()> {
    let mut wanted = [PollFd::new(launcher.as_fd(), PollFlags::empty())];
    match poll(&mut wanted, PollTimeout::ZERO) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Error::new("the launcher of this box is gone")),
        Err(errno) => Err(errno).context(|| "cannot look whether the launcher is still there"),
    }
}

/// Takes note of every child that changed: orphans of the command come here too, unless there is an init. Returns the command's
/// status once it ended.
pub(super) fn reap(
    first: &FirstProcess,
    launcher: &Channel,
    duties: &mut Duties<'_>,
) -> io::Result<Option<u8>> {
    let child = first.process.pid;
    loop {
        match wait::news()? {
            News::None => return Ok(None),
            News::NoChildren => return Err(io::Error::other("somebody else waited for the command")),
            News::Ended(pid, status) if pid == child => return Ok(Some(status)),
            // An init that somebody stopped is not the command.
            News::Stopped(pid, signal) if pid == child && first.news().is_none() => {
                tell_stopped(first, launcher, signal);
            }
            News::Ended(pid, status) => duties.child_ended(pid, status),
            _ => {}
        }
    }
}

pub(super) fn tell_stopped(first: &FirstProcess, launcher: &Channel, signal: i32) {
    first.note_stop();
    // A dead launcher shows in the next poll.
    let _ = launcher.send(&ToLauncher::Stopped(signal), &[]);
}

/// Continues a launcher that was stopped as its command was: the command has ended, and it should see that.
pub fn wake(launcher: Pid) {
    // Still this process's parent, so the number is its own. ESRCH: it has just ended.
    if nix::unistd::getppid() == launcher {
        let _ = nix::sys::signal::kill(launcher, Signal::SIGCONT);
    }
}

/// Kills what is left of the box: the command, its children, and theirs, all of which are or become this process's children; or
/// the init, and the kernel the rest.
///
/// # Errors
/// Where the children cannot be listed.
pub fn kill_box(first: &Process) -> io::Result<()> {
    let killed = first.signal(Signal::SIGKILL as i32);
    wait::kill_children(|_| true)?;
    killed
}

impl From<Word> for ToLauncher {
    fn from(word: Word) -> Self {
        match word {
            Word::Detail(line) => Self::Log(line),
            Word::Warning(line) => Self::Warning(line),
        }
    }
}
