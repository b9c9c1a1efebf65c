//! `--timeout`: when the command has had its time.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};

use crate::kernel::process::Process;

/// The status of a run whose time ran out (promise R2), as timeout(1) has it.
pub const TIMED_OUT: u8 = 124;

/// How long a command may take to end that was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// The time that a command has. It runs whether or not launcher and command are stopped.
#[derive(Debug)]
pub struct Deadline {
    next: Instant,
    asked: bool,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// The command was asked to end, just now.
    Asked,
    /// It has not ended: the box is to be killed.
    Kill,
}

impl Deadline {
    /// From now on.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Self { next: Instant::now() + time, asked: false }
    }

    /// Whether the command's time ran out.
    #[must_use]
    pub const fn has_passed(&self) -> bool {
        self.asked
    }

    /// How long until something is due.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    /// Does what is due: SIGTERM first, and to a stopped command that it go on, or it would not hear.
    ///
    /// # Errors
    /// When the command cannot be signalled.
    pub fn look(&mut self, command: &Process) -> io::Result<Due> {
        let now = Instant::now();
        if now < self.next {
            return Ok(Due::Nothing);
        }
        if self.asked {
            return Ok(Due::Kill);
        }
        self.asked = true;
        self.next = now + GRACE;
        command.signal(Signal::SIGTERM as i32)?;
        command.signal(Signal::SIGCONT as i32)?;
        // ESRCH: the command is in no group of its own any more, or has just ended.
        let _ = killpg(command.pid, Signal::SIGCONT);
        Ok(Due::Asked)
    }
}
