//! `netbox` as the tests call it.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Lab, NETBOX, Outcome, PROBE, Place, stage};

impl Lab {
    /// `netbox` with these arguments, to be run in the host's namespace (or the place of the caller's thread).
    pub(crate) fn netbox(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(NETBOX);
        command.args(arguments).stdin(Stdio::null());
        for variable in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
            command.env_remove(variable);
        }
        stage::hide_from(&mut command);
        command
    }

    /// `netbox run OPTIONS -- probe WORDS`, run to its end.
    pub(crate) fn run(&self, options: &[&str], words: &[&str]) -> Output {
        self.run_command(options, words).output().expect("netbox can be started")
    }

    /// The same, not yet started.
    pub(crate) fn run_command(&self, options: &[&str], words: &[&str]) -> Command {
        self.netbox(&[&["run"], options, &["--", PROBE], words].concat())
    }

    /// How an attempt from a box of its own ends.
    pub(crate) fn attempt(&self, words: &[&str]) -> Outcome {
        outcome(&self.run(&[], words))
    }

    /// A box whose command is a probe that stays; it is ready when this returns.
    pub(crate) fn start(&self, options: &[&str], words: &[&str]) -> RunningBox {
        self.start_command(&mut self.run_command(options, words))
    }

    /// The same with a command that the caller has prepared.
    pub(crate) fn start_command(&self, command: &mut Command) -> RunningBox {
        // Its standard error is the test's, and so part of a failure's text.
        let mut child = command.stdout(Stdio::piped()).spawn().expect("netbox can be started");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the probe's first line");
        let (pid, address, address6) = parse_ready(&line).unwrap_or_else(|| {
            panic!("the box did not get ready: {:?}, stdout {line:?}", child.wait());
        });
        RunningBox { child, stdout, pid, address, address6, ended: false }
    }
}

fn parse_ready(line: &str) -> Option<(u32, Ipv4Addr, Option<Ipv6Addr>)> {
    let mut words = line.trim().strip_prefix("ready ")?.split(' ');
    let pid = words.next()?.parse().ok()?;
    // A box without a network has no address.
    let address = words.next()?.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
    Some((pid, address, words.next().and_then(|word| word.parse().ok())))
}

/// What a probe found, provided that netbox and the probe themselves went well.
pub(crate) fn outcome(output: &Output) -> Outcome {
    assert!(output.status.success(), "{}", words(output));
    let said = String::from_utf8_lossy(&output.stdout);
    Outcome::parse(&said).unwrap_or_else(|| panic!("the probe did not say how it went: {}", words(output)))
}

/// An output for a failure's text.
pub(crate) fn words(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("netbox ended with {}, stdout {out:?}, stderr:\n{err}", output.status)
}

/// A box that runs; ends with this value.
#[derive(Debug)]
pub(crate) struct RunningBox {
    child: Child,
    pub(crate) stdout: BufReader<ChildStdout>,
    /// The command's process, in the lab's pid namespace.
    pub(crate) pid: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) address6: Option<Ipv6Addr>,
    ended: bool,
}

impl RunningBox {
    /// The launcher's process.
    pub(crate) fn launcher(&self) -> u32 {
        self.child.id()
    }

    /// The network namespace of the box, to be entered with all rights that the lab has.
    pub(crate) fn place(&self) -> Place {
        Place::of(self.pid)
    }

    /// What a probe finds from within this very box (with the lab's rights, not the box's).
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.place().run(work)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.launcher(), signal);
    }

    /// Writes a line to the command's standard input, which must be a pipe, and waits for its answer.
    pub(crate) fn tell(&mut self, line: &str) -> String {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{line}").expect("a command that listens");
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).expect("an answer");
        answer
    }

    /// SIGTERM to the launcher, and its status.
    pub(crate) fn end(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for the launcher to return by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.ended = true;
        let limit = Instant::now() + Duration::from_secs(10);
        while Instant::now() < limit {
            if let Some(status) = self.child.try_wait().expect("the launcher is our child") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.signal(Signal::SIGKILL);
        panic!("netbox did not end within ten seconds");
    }
}

impl Drop for RunningBox {
    fn drop(&mut self) {
        if !self.ended {
            let launcher = Pid::from_raw(self.child.id().cast_signed());
            // It may have ended by itself; it is reaped below either way.
            let _ = kill(launcher, Signal::SIGTERM);
            if std::thread::panicking() {
                let _ = self.child.kill();
            }
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal to a process of the lab.
pub(crate) fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal)
        .unwrap_or_else(|errno| panic!("{signal} to {pid}: {errno}"));
}
