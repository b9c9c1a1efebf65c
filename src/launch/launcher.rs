//! The `netbox run` process itself: it stands in for the command towards whoever started netbox.
//!
//! It changes nothing on the machine. Signals that it gets go to the command, the command's stops are
//! its own, and it ends as the command did.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::{Pid, getpgid, getpgrp};

use crate::apply::lease;
use crate::apply::sweep::sweep_now;
use crate::error::{Context, Error, Result};
use crate::kernel::channel::Channel;
use crate::kernel::memory::Rest;
use crate::kernel::namespace;
use crate::kernel::process::Process;
use crate::kernel::signal::Signals;
use crate::kernel::terminal::Terminal;
use crate::kernel::wait::{self, News};
use crate::plan::listing::Listed;
use crate::plan::output::Stream;
use crate::report::Report;

use super::detach::Detached;
use super::message::ToLauncher;
use super::status_stream::StatusStream;
use super::supervise::KILLED;

/// How a run ended, as the launcher saw it.
#[derive(Debug)]
pub enum Outcome {
    /// As the keeper said: this status, everything undone but for these problems.
    Ended(u8, Vec<String>),
    /// Before the command ran; likewise.
    Failed(Error, Vec<String>),
    /// The keeper died without a word.
    KeeperDied,
    /// Who wanted the box went away before the command ran.
    CallerGone,
}

impl Outcome {
    /// Has what could not be undone told, and returns the status to exit with.
    ///
    /// # Errors
    /// Why the command did not run; what `after_keeper` makes of a keeper that died.
    pub fn conclude(self, tell: impl FnOnce(&[String]), after_keeper: impl FnOnce() -> Error) -> Result<u8> {
        let (ended, problems) = match self {
            Self::Ended(status, problems) => (Ok(status), problems),
            Self::Failed(error, problems) => (Err(error), problems),
            Self::KeeperDied => (Err(after_keeper()), Vec::new()),
            // The keeper sees this process end.
            Self::CallerGone => (Ok(KILLED), Vec::new()),
        };
        tell(&problems);
        ended
    }
}

/// Whether a command should have the terminal from its start: the launcher is in the foreground, and nothing
/// downstream of a pipe may want to read the terminal meanwhile (`netbox run … | less`). A command that
/// reads the terminal nevertheless gets it when the kernel stops it for that.
#[must_use]
pub fn takes_terminal_at_once() -> bool {
    let is_pipe = rustix::fs::fstat(io::stdout())
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo);
    !is_pipe
        && nix::unistd::isatty(io::stdin()).unwrap_or(false)
        && Terminal::controlling().is_some_and(|terminal| terminal.is_ours())
}

/// Who ended a wait.
#[derive(Debug)]
struct Woken {
    by_keeper: bool,
    by_signal: bool,
    by_caller: bool,
    /// Of a detached command.
    by_output: Vec<Stream>,
}

/// The launcher while its keeper lives.
#[derive(Debug)]
pub struct Launcher<'a> {
    keeper: &'a Channel,
    report: &'a Report,
    command: Option<Process>,
    terminal: Option<Terminal>,
    lent: bool,
    /// Signals that came before there was a command.
    early: Vec<i32>,
    rest: Rest,
    status: Option<&'a mut StatusStream>,
    detached: Option<&'a mut Detached>,
}

impl<'a> Launcher<'a> {
    /// `lent`: the command takes the terminal by itself ([`takes_terminal_at_once`]).
    #[must_use]
    pub fn new(
        keeper: &'a Channel,
        report: &'a Report,
        lent: bool,
        status: Option<&'a mut StatusStream>,
        detached: Option<&'a mut Detached>,
    ) -> Self {
        let terminal = if lent { Terminal::controlling() } else { None };
        let (early, rest) = (Vec::new(), Rest::default());
        Self { keeper, report, command: None, terminal, lent, early, rest, status, detached }
    }

    /// Passes signals and stops on until the keeper says how the run ended. All signals must be blocked.
    ///
    /// # Errors
    /// When waiting fails. The keeper sees this process end and takes the box down.
    pub fn attend(mut self) -> Result<Outcome> {
        let mut signals = Signals::all().context(|| "cannot watch for signals")?;
        let outcome = loop {
            let woken = self.wait(&signals).context(|| "cannot wait for the keeper")?;
            if let Some(detached) = &mut self.detached {
                for stream in &woken.by_output {
                    detached.output().take(*stream);
                }
            }
            if woken.by_caller {
                break Outcome::CallerGone;
            }
            if woken.by_signal {
                while let Some(signal) = signals.read().context(|| "cannot read a signal")? {
                    // A reader that is gone, of standard error or of the status, is not the command's; nor is a log that may not
                    // grow (RLIMIT_FSIZE).
                    let is_of_writing =
                        [Signal::SIGPIPE, Signal::SIGXFSZ].iter().any(|one| *one as i32 == signal.number);
                    if !is_of_writing || signal.sender != std::process::id() {
                        self.pass_on(signal.number);
                    }
                }
            }
            if let Some(status) = &mut self.status {
                status.go_on();
            }
            if woken.by_keeper
                && let Some(outcome) = self.listen()?
            {
                break outcome;
            }
        };
        self.take_terminal_back();
        Ok(outcome)
    }

    fn wait(&mut self, signals: &Signals) -> io::Result<Woken> {
        let mut wanted = vec![
            PollFd::new(self.keeper.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        // Only its end: it says nothing.
        let caller = self.detached.as_ref().and_then(|detached| detached.caller());
        wanted.extend(caller.map(|fd| PollFd::new(fd, PollFlags::empty())));
        let pipes: Vec<_> = self.detached.iter().flat_map(|detached| detached.pipes()).collect();
        let first_pipe = wanted.len();
        wanted.extend(pipes.iter().map(|(_, fd)| PollFd::new(*fd, PollFlags::POLLIN)));
        let blocked = self.status.as_ref().and_then(|status| status.blocked());
        wanted.extend(blocked.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
        match self.rest.wait(&mut wanted, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let happened = |index: usize| wanted.get(index).and_then(PollFd::any).unwrap_or(false);
        Ok(Woken {
            by_keeper: happened(0),
            by_signal: happened(1),
            by_caller: caller.is_some() && happened(2),
            by_output: (first_pipe..)
                .zip(&pipes)
                .filter(|(index, _)| happened(*index))
                .map(|(_, (stream, _))| *stream)
                .collect(),
        })
    }

    fn listen(&mut self) -> Result<Option<Outcome>> {
        let Some(mut incoming) = self.keeper.receive().context(|| "cannot hear the keeper")? else {
            return Ok(Some(Outcome::KeeperDied));
        };
        match incoming.message {
            ToLauncher::Box { pid } => {
                self.command =
                    incoming.descriptors.pop().map(|fd| Process::from_parts(Pid::from_raw(pid), fd));
                for signal in std::mem::take(&mut self.early) {
                    self.pass_on(signal);
                }
            }
            ToLauncher::Log(line) => {
                if !self.note(&line, self.report.is_verbose()) {
                    self.report.detail(&line);
                }
            }
            ToLauncher::Warning(line) => {
                if !self.note(&format!("warning: {line}"), !self.report.is_quiet()) {
                    self.report.warning(&line);
                }
            }
            ToLauncher::Started { id } => {
                if let Some(detached) = &mut self.detached
                    && !detached.started(&id, self.report)?
                {
                    return Ok(Some(Outcome::CallerGone));
                }
                if let Some((status, record)) = self.status.as_mut().zip(incoming.descriptors.pop()) {
                    status.started(&Listed::from(lease::read_record(record)?));
                }
            }
            ToLauncher::Stopped(signal) => self.stop_as_command_did(signal),
            ToLauncher::Failed(error, problems) => return Ok(Some(Outcome::Failed(error, problems))),
            ToLauncher::Ended(status, problems) => return Ok(Some(Outcome::Ended(status, problems))),
        }
        Ok(None)
    }

    /// Puts a line that is wanted into the log of a detached box. `false`: there is standard error for it, or nobody wants it.
    fn note(&mut self, line: &str, wanted: bool) -> bool {
        wanted && self.detached.as_mut().is_some_and(|detached| detached.note(line))
    }

    fn pass_on(&mut self, signal: i32) {
        // Children are the keeper's business; being continued is handled where this process was stopped; and
        // the terminal stops only those who use it.
        if [Signal::SIGCHLD, Signal::SIGCONT, Signal::SIGTTIN, Signal::SIGTTOU]
            .iter()
            .any(|s| *s as i32 == signal)
        {
            if signal == Signal::SIGCONT as i32 {
                self.continue_command();
            }
            if signal == Signal::SIGCHLD as i32 {
                // Orphans that came here because this process is a subreaper; and the keeper, whose end the channel tells.
                while matches!(wait::news(), Ok(News::Ended(..) | News::Stopped(..) | News::Continued(_))) {}
            }
            return;
        }
        match &self.command {
            // EPERM cannot be: the command has fewer rights than this process.
            Some(command) => drop(command.signal(signal)),
            None => self.early.push(signal),
        }
    }

    /// The command was stopped: so is this process, for the shell to see; unless it only wanted the terminal, and can have it.
    fn stop_as_command_did(&mut self, signal: i32) {
        if self.detached.is_some() {
            // Nobody is there to see it, or to continue this process.
            return;
        }
        let wants_terminal = signal == Signal::SIGTTIN as i32 || signal == Signal::SIGTTOU as i32;
        if wants_terminal && self.lend_terminal() {
            self.continue_command();
            return;
        }
        self.take_terminal_back();
        // Not the command's own signal: in an orphaned process group the kernel ignores it (setpgid(2)).
        let _ = raise(Signal::SIGSTOP);
        // Continued, by `fg` (then this group is in the foreground again) or by `bg`. The signal that did it waits to be read, and
        // continues the command as one that comes at any other time: to send a second one here would undo a stop of just now.
        self.lend_terminal();
    }

    fn lend_terminal(&mut self) -> bool {
        if self.terminal.is_none() {
            self.terminal = Terminal::controlling();
        }
        let (Some(terminal), Some(command)) = (&self.terminal, &self.command) else { return false };
        self.lent = terminal.is_ours() && terminal.give_to(command.pid).is_ok();
        self.lent
    }

    fn take_terminal_back(&mut self) {
        if let (true, Some(terminal)) = (std::mem::take(&mut self.lent), &self.terminal) {
            // Only if it is still the command's: somebody else may have it by now. EIO: it hung up.
            let _ = terminal.take_from(self.command.as_ref().map(|command| command.pid), getpgrp());
        }
    }

    /// Continues the whole process group, as a shell does.
    fn continue_command(&self) {
        if let Some(command) = &self.command {
            // ESRCH: it has just ended. The keeper has not waited for it while it is stopped.
            let _ = kill(Pid::from_raw(-command.pid.as_raw()), Signal::SIGCONT);
        }
    }
}

/// Kills what came here from a keeper that was killed.
///
/// # Errors
/// Where children cannot be listed.
pub(super) fn kill_orphans(keeper: Pid) -> io::Result<()> {
    // What is in other namespaces than this process is the box's. Other orphans may have come here too, of processes that
    // were there before netbox was executed in their parent: those are not netbox's to kill.
    // What the keeper had just forked is in its process group, and holds its locks for a moment.
    let is_of_box = |child: Pid| {
        !namespace::is_shared_with(child.as_raw()) || getpgid(Some(child)).is_ok_and(|group| group == keeper)
    };
    // Its children come here before it can be waited for.
    let _ = wait::end_of(keeper);
    wait::kill_children(is_of_box)
}

/// The keeper was killed. The kernel killed the command with it; the launcher sweeps the rest.
#[must_use]
pub fn after_keeper(keeper: Pid) -> Error {
    let error = Error::new("the keeper of this box was killed, and the box with it");
    if let Err(problem) = kill_orphans(keeper) {
        return error.hint(format!("processes of the box may be left: {problem}"));
    }
    match sweep_now() {
        Ok(swept) => match swept.problems.first() {
            Some(problem) => {
                error.hint(format!("not all could be undone: {problem}; `netbox gc` tries again"))
            }
            None => error,
        },
        Err(problem) => error.hint(format!("{problem}; `netbox gc` tries again")),
    }
}
