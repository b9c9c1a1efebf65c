//! `--timeout`: when the command has had its time.

use std::io;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;
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

    /// How long a wait may last that may last `at_most` so long.
    #[must_use]
    pub fn limit(&self, at_most: PollTimeout) -> PollTimeout {
        // Rounded up: poll(2) takes milliseconds, and must not return before the time.
        let left = self.next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        // PollTimeout::as_millis panics for the one without an end.
        if at_most.is_some() && at_most.as_millis() < left.as_millis() { at_most } else { left }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_longer_than_the_deadline_nor_shorter() {
        let deadline = Deadline::after(Duration::from_secs(1000));
        let limited = deadline.limit(PollTimeout::NONE).as_millis().unwrap();
        assert!((999_000..=1_000_001).contains(&limited), "{limited}");
        assert_eq!(deadline.limit(PollTimeout::from(100u8)), PollTimeout::from(100u8));
        let passed = Deadline::after(Duration::ZERO);
        assert_eq!(passed.limit(PollTimeout::NONE).as_millis(), Some(1));
        assert!(Deadline::after(Duration::from_secs(1 << 31)).limit(PollTimeout::NONE).as_millis().is_some());
    }
}
