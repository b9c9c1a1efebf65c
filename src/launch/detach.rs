//! `netbox run -d`: the launcher goes on without whoever called.
//!
//! The process that the user started forks the launcher, waits until that says that the command runs, prints the box's id and
//! ends. Until then the launcher is as it is in the foreground: it has the caller's standard error, says there what went wrong,
//! and ends with the status that its caller then ends with too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::apply::kept::{Kept, KeptBox};
use crate::apply::log::Writer;
use crate::error::{Context, Error, Kind, Result};
use crate::kernel::channel::Channel;
use crate::kernel::process::{self, Side};
use crate::kernel::signal;
use crate::kernel::wait::{self, News};
use crate::plan::output::Stream;
use crate::report::{self, Report};
use crate::spec::name::BoxId;

use super::output::{CommandEnds, Output};

/// From the launcher to the process that the user started.
#[derive(Debug, Serialize, Deserialize)]
struct Started {
    id: String,
}

/// Which of two processes this one is.
#[derive(Debug)]
pub enum Half {
    /// The one that the user started: it has to wait for the launcher.
    Caller(Waiting),
    /// The launcher.
    Launcher(Detached),
}

/// What the process has that the user started.
#[derive(Debug)]
pub struct Waiting {
    launcher: Pid,
    channel: Channel,
}

/// What a launcher has besides, when it goes on without its caller.
#[derive(Debug)]
pub struct Detached {
    /// To the process that the user started, until it was told.
    caller: Option<Channel>,
    /// What is kept of the box, once its command runs.
    kept: Option<KeptBox>,
    /// What the command prints.
    output: Output,
    /// The command's ends of it, until there is somebody who passes them to the command.
    command_ends: Option<CommandEnds>,
}

/// Forks the launcher, which has a session of its own: no terminal, and nothing that is sent to the caller's process group or
/// terminal, reaches it.
///
/// # Errors
/// Those of fork(2) and socketpair(2).
pub fn part() -> Result<Half> {
    signal::expect_children().context(|| "cannot wait for children")?;
    let (channel, caller) = Channel::pair().context(|| "cannot make a channel")?;
    match process::fork().context(|| "cannot start the launcher")? {
        Side::Parent(launcher) => Ok(Half::Caller(Waiting { launcher, channel })),
        Side::Child => {
            drop(channel);
            // EPERM is for the leader of a process group, which a process that was just forked is not.
            nix::unistd::setsid().context(|| "cannot leave the session")?;
            process::let_go_of_input_and_output().context(|| "cannot open /dev/null")?;
            let (output, command_ends) = Output::new().context(|| "cannot make a pipe")?;
            let command_ends = Some(command_ends);
            Ok(Half::Launcher(Detached { caller: Some(caller), kept: None, output, command_ends }))
        }
    }
}

/// Tells what could not be undone: in the log of a box whose caller has gone, and else on standard error.
pub fn tell(problems: &[String], mut detached: Option<&mut Detached>, report: &Report) {
    for problem in problems {
        if !detached.as_mut().is_some_and(|detached| detached.note(problem)) {
            report.problem(problem);
        }
    }
}

impl Waiting {
    /// Waits until the command runs and prints the box's id; or until the launcher has ended, and returns how.
    ///
    /// # Errors
    /// When the launcher was killed; when the id cannot be printed.
    pub fn wait(self) -> Result<u8> {
        if let Some(started) = self.channel.receive::<Started>().context(|| "cannot hear the launcher")? {
            let id = started.message.id;
            if report::output(&format!("{id}\n")) {
                return Ok(0);
            }
            return Err(Error::new("cannot write to standard output").hint(format!("box {id} runs")));
        }
        // It said why.
        match wait::end_of(self.launcher).context(|| "cannot wait for the launcher")? {
            News::Ended(_, status) if status < 128 => Ok(status),
            _ => Err(Error::new("the launcher of this box was killed")
                .hint("netbox ps -a lists the box if its command had been started")),
        }
    }
}

impl Detached {
    /// What hangs up when the process that the user started ends before it was told.
    #[must_use]
    pub fn caller(&self) -> Option<BorrowedFd<'_>> {
        self.caller.as_ref().map(AsFd::as_fd)
    }

    /// Tells the caller that the command runs, and lets go of all that was the caller's. `false`: there is no caller any more,
    /// and nobody who knows of the box.
    ///
    /// # Errors
    /// When /dev/null cannot be opened.
    pub fn started(&mut self, id: &str, report: &Report) -> Result<bool> {
        let Some(caller) = self.caller.take() else { return Ok(true) };
        if let (Some(kept), Ok(id)) = (Kept::open_existing()?, BoxId::parse(id)) {
            self.kept = kept.open_box(&id)?;
        }
        let log = self.kept.as_ref().map(Writer::begin).transpose();
        match &log {
            // With --rm it may have ended, and be forgotten already.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                report.warning(&format!("what box {id} prints is not kept: {error}"));
            }
            _ => {}
        }
        self.output.begin(log.ok().flatten());
        process::let_go_of_standard_descriptors().context(|| "cannot open /dev/null")?;
        let is_told = caller.send(&Started { id: id.to_owned() }, &[]).is_ok();
        if let Some(kept) = self.kept.as_ref().filter(|_| !is_told) {
            // The keeper does it again when the box has ended.
            let _ = kept.forget();
        }
        Ok(is_told)
    }

    /// The ends of the pipes that the command prints to. Given once.
    pub const fn take_command_ends(&mut self) -> Option<CommandEnds> {
        self.command_ends.take()
    }

    /// What the launcher must not close.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.caller().into_iter().chain(self.output.pipes().map(|(_, pipe)| pipe))
    }

    /// What the command prints.
    pub const fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// The pipes that have to be read now, with the stream of each.
    pub fn pipes(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        self.output.pipes().filter(|_| self.output.has_begun())
    }

    /// Adds a line to the log, if standard error is no longer the caller's. `false`: it still is.
    pub fn note(&mut self, line: &str) -> bool {
        if self.output.has_begun() {
            self.output.note(&format!("netbox: {line}\n"));
        }
        self.output.has_begun()
    }

    /// Notes the end of a box whose keeper was killed. Nobody is left to be told of a failure.
    pub fn keeper_died(&self) {
        if let Some(kept) = &self.kept {
            let _ = kept.note_end(Some(Kind::Failure.exit_status()));
        }
    }
}
