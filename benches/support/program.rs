//! A program that is started over and over.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{FLOOR, NETBOX};

/// What is executed. The standard library starts it with posix_spawn(3): the time does not grow with this process.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
}

impl Program {
    pub(crate) fn new(path: &str, arguments: &[&str]) -> Self {
        let null = || File::options().read(true).write(true).open("/dev/null").expect("/dev/null");
        let mut command = Command::new(path);
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin");
        command.stdin(null()).stdout(null()).stderr(Stdio::inherit());
        Self { command }
    }

    /// `netbox run OPTIONS -- COMMAND`.
    pub(crate) fn netbox(options: &[&str], command: &[&str]) -> Self {
        Self::new(NETBOX, &[&["run"], options, &["--"], command].concat())
    }

    /// The floor program, which executes `command` in the end.
    pub(crate) fn floor(command: &[&str]) -> Self {
        Self::new(FLOOR, command)
    }

    pub(crate) fn input(mut self, input: OwnedFd) -> Self {
        self.command.stdin(input);
        self
    }

    pub(crate) fn output(mut self, output: OwnedFd) -> Self {
        self.command.stdout(output);
        self
    }

    #[expect(clippy::zombie_processes, reason = "every caller waits by pid")]
    pub(crate) fn start(&mut self) -> Pid {
        let child: Child =
            self.command.spawn().unwrap_or_else(|error| panic!("cannot start {:?}: {error}", self.command));
        Pid::from_raw(child.id().cast_signed())
    }

    /// Starts it and waits for its end, which must be success.
    pub(crate) fn run(&mut self) -> Duration {
        let start = Instant::now();
        let pid = self.start();
        let status = waitpid(pid, None);
        let time = start.elapsed();
        assert_eq!(status, Ok(WaitStatus::Exited(pid, 0)), "{:?}", self.command);
        time
    }
}
