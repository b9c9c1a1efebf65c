//! A real shell on a terminal of its own: job control, signals, sizes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::signal::Signal;

use crate::privileges::lab_with_a_user;

use crate::lab::{Lab, NETBOX, PROBE, Shape, live_tests, running, send, words};

live_tests![
    ctrl_c_reaches_the_command_once,
    ctrl_backslash_ends_the_command_as_it_would_bare,
    a_command_can_be_stopped_and_taken_back,
    a_stopped_command_goes_on_in_the_background,
    a_command_in_the_background_that_reads_is_stopped,
    a_new_size_reaches_the_command,
    a_shell_in_the_box_has_its_own_job_control,
    a_command_that_was_killed_while_stopped_is_seen_to_end,
    the_shell_has_its_terminal_back,
    a_detached_box_outlives_its_terminal,
    another_user_cannot_type_into_the_callers_terminal,
];

/// Longer than this, what is expected does not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Each way to run a command.
const WAYS: [&str; 2] = ["", "--unshare-pid"];

/// What a box runs that others join.
const MEMBER: &str = "echo ready $$ -; exec sleep 1000";

/// An interactive shell on a terminal.
struct Shell {
    terminal: File,
    path: PathBuf,
    child: Child,
    /// All that it said.
    said: String,
    /// How much of that has been looked at.
    seen: usize,
}

impl Shell {
    fn start() -> Self {
        let pair = openpty(None, None).expect("a terminal");
        // Else it would not hang up before the shell has ended.
        fcntl(&pair.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("a descriptor");
        let path = nix::unistd::ttyname(pair.slave.as_fd()).expect("its name");
        let mut command = Command::new(PROBE);
        command.arg("terminal").arg(&path).args(["/bin/sh", "-i"]);
        command.env("PS1", "").env("ENV", "").env("N", format!("{NETBOX} run")).env("PROBE", PROBE);
        command.env_remove("SUDO_UID").env_remove("SUDO_GID");
        let child = command.spawn().expect("a shell");
        drop(pair.slave);
        let mut shell = Self { terminal: File::from(pair.master), path, child, said: String::new(), seen: 0 };
        // What is typed is shown too: what is expected must not be in it.
        shell.line("echo up$((1+1))");
        shell.expect("up2");
        shell
    }

    fn type_in(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).expect("a shell that listens");
    }

    fn line(&mut self, text: &str) {
        self.type_in(text);
        self.type_in("\n");
    }

    /// Waits for `text` in what has not been looked at yet.
    fn expect(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.said[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).expect("a short time");
            let ready = poll(&mut [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)], timeout);
            assert!(ready == Ok(1), "{text:?} did not come; the terminal shows:\n{}", self.said);
            let mut bytes = [0; 4096];
            let length = self.terminal.read(&mut bytes).unwrap_or(0);
            assert!(length > 0, "the shell ended before {text:?}; the terminal shows:\n{}", self.said);
            self.said.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    }

    /// Ctrl-Z. It flushes what was typed, so nothing is until the shell has said that it is back.
    fn stop(&mut self) {
        self.type_in("\x1a");
        self.expect("Stopped");
    }

    /// Waits until `jobs` has a line that matches.
    fn expect_job(&mut self, pattern: &str) {
        // Not by a pipe: a shell's subshell has no jobs.
        self.line(&format!(
            "until jobs >/run/jobs; grep -Eq '{pattern}' /run/jobs; do sleep 0.02; done; rm /run/jobs; echo job$((3+4))"
        ));
        self.expect("job7");
    }

    /// The status of the last command, which the shell tells on a line of its own.
    fn expect_status(&mut self, status: i32) {
        self.line("echo status-$?-");
        self.expect(&format!("status-{status}-"));
    }

    fn end(mut self) {
        self.line("exit 0");
        let status = self.child.wait().expect("the shell's end");
        assert!(status.success(), "{status}; the terminal shows:\n{}", self.said);
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Where the test failed; it hangs up the terminal's session.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a box that it starts, and in one that lives.
fn in_every_way(test: impl Fn(&mut Shell, &str)) {
    let lab = Lab::new(Shape::OwnLan);
    for way in WAYS {
        let mut shell = Shell::start();
        test(&mut shell, &format!("$N {way} --"));
        shell.end();
        let arguments =
            [&["run", "--name", "t"][..], &[way][way.is_empty().into()..], &["--", "sh", "-c", MEMBER]];
        let in_box = lab.start_command(&mut lab.netbox(&arguments.concat()));
        let mut shell = Shell::start();
        test(&mut shell, "${N% run} exec t --");
        shell.end();
        in_box.end();
    }
    drop(lab);
}

/// R3: by the terminal.
fn ctrl_c_reaches_the_command_once() {
    in_every_way(|shell, netbox| {
        shell.line(&format!("{netbox} $PROBE signals SIGINT SIGQUIT"));
        shell.expect("ready");
        for _ in 0..3 {
            shell.type_in("\x03");
            shell.expect("SIGINT");
        }
        shell.type_in("\x1c");
        shell.expect("SIGQUIT");
        assert_eq!(shell.said.matches("SIGINT\r\n").count(), 3, "{}", shell.said);
        shell.stop();
        shell.line("kill -USR2 %1; fg");
        shell.expect("SIGUSR2");
        shell.expect_status(0);
    });
}

/// R2, R3.
fn ctrl_backslash_ends_the_command_as_it_would_bare() {
    in_every_way(|shell, netbox| {
        shell.line("ulimit -c 0");
        shell.line(&format!("{netbox} $PROBE sleep"));
        shell.expect("ready");
        shell.type_in("\x1c");
        shell.expect_status(131);
        shell.line(&format!("{netbox} $PROBE sleep"));
        shell.expect("ready");
        shell.type_in("\x03");
        shell.expect_status(130);
    });
}

/// R1: Ctrl-Z, `fg`, and the command reads from the terminal again.
fn a_command_can_be_stopped_and_taken_back() {
    in_every_way(|shell, netbox| {
        shell.line(&format!(
            "{netbox} sh -c 'echo be''gun; read a; echo got-$a; read a; echo got-$a; exit 5'"
        ));
        shell.expect("begun");
        for word in ["first", "second"] {
            shell.stop();
            shell.expect_job("Stopped");
            shell.line("fg");
            shell.line(word);
            shell.expect(&format!("got-{word}"));
        }
        shell.expect_status(5);
    });
}

/// R1: `bg`.
fn a_stopped_command_goes_on_in_the_background() {
    in_every_way(|shell, netbox| {
        shell.line(&format!("{netbox} $PROBE signals"));
        shell.expect("ready");
        shell.stop();
        shell.line("bg");
        shell.expect_job("Running");
        shell.line("kill -USR2 %1; wait %1");
        shell.expect("SIGUSR2");
        shell.expect_status(0);
    });
}

/// R1: as a bare one (SIGTTIN), and `fg` gives it the terminal.
fn a_command_in_the_background_that_reads_is_stopped() {
    in_every_way(|shell, netbox| {
        shell.line(&format!("{netbox} sh -c 'read word; echo got-$word' &"));
        shell.expect_job("Stopped");
        shell.line("fg");
        shell.line("hello");
        shell.expect("got-hello");
        shell.expect_status(0);
    });
}

/// R1, R3: the terminal is the command's: its size too, and the news of it.
fn a_new_size_reaches_the_command() {
    in_every_way(|shell, netbox| {
        shell.line(&format!("{netbox} sh -c '$PROBE signals SIGWINCH; stty size; exit 3'"));
        shell.expect("ready");
        let resized =
            Command::new("stty").arg("-F").arg(&shell.path).args(["rows", "33", "cols", "77"]).status();
        assert!(resized.expect("stty").success());
        shell.expect("SIGWINCH");
        shell.type_in("\x1c");
        shell.expect_status(131);
        shell.line(&format!("{netbox} stty size"));
        shell.expect("33 77");
    });
}

/// R1: the launcher is not stopped by what happens between a shell in the box and its jobs.
fn a_shell_in_the_box_has_its_own_job_control() {
    in_every_way(|shell, netbox| {
        shell.line(&format!("{netbox} sh -i"));
        shell.line("echo inner-$NETBOX_NAME-");
        shell.expect("inner-");
        shell.line("sh -c 'echo be''gun; read word; echo got-$word'");
        shell.expect("begun");
        shell.stop();
        shell.line("echo in${NETBOX_ID:+side}");
        shell.expect("inside");
        shell.line("fg");
        shell.line("hello");
        shell.expect("got-hello");
        shell.line("exit 8");
        shell.expect_status(8);
    });
}

/// R1, R2: the shell need not say `fg` to see it.
fn a_command_that_was_killed_while_stopped_is_seen_to_end() {
    in_every_way(|shell, netbox| {
        shell.line(&format!("{netbox} $PROBE sleep"));
        shell.expect("ready");
        shell.stop();
        if netbox.contains("exec") {
            let [command] = running(PROBE)[..] else { panic!("one further command") };
            send(command, Signal::SIGKILL);
            return shell.expect_job("(Done.|Exit )137");
        }
        // Its number out here is in `ps`.
        shell.line("kill -9 $(${N% run} ps --json | tr -d ' ,' | sed -n 's/\"box_pid\"://p')");
        shell.expect_job("(Done.|Exit )137");
    });
}

/// R1: whatever the command did with it last.
fn the_shell_has_its_terminal_back() {
    in_every_way(|shell, netbox| {
        for command in ["true", "sh -c 'kill -9 $$'", "sh -i -c 'exit 0'", "/nowhere"] {
            shell.line(&format!("{netbox} {command}"));
            shell.line("read word; echo got-$word");
            shell.line("mine");
            shell.expect("got-mine");
        }
    });
}

/// R3: what the terminal tells its session when it hangs up is not for a detached box.
fn a_detached_box_outlives_its_terminal() {
    let lab = Lab::new(Shape::OwnLan);
    let mut shell = Shell::start();
    shell.line("id=$($N -d -- $PROBE sleep); echo there-${#id}-");
    shell.expect("there-8-");
    // The terminal hangs up: SIGHUP ends the shell, and was sent to its whole session before.
    shell.terminal = File::open("/dev/null").expect("a device");
    shell.child.wait().expect("the shell");
    let listed = lab.listed();
    assert!(listed.len() == 1 && listed[0]["status"] == "running", "{listed:?}");
    let id = listed[0]["id"].as_str().expect("an id");
    let removed = lab.netbox(&["rm", "-f", id]).output().expect("netbox can be started");
    assert!(removed.status.success(), "{}", words(&removed));
}

/// I5: what is typed would be a command of the shell's that netbox was started by, which may be root's.
fn another_user_cannot_type_into_the_callers_terminal() {
    let Some(lab) = lab_with_a_user() else { return };
    let _member = lab.start(&["-u", "tester", "--name", "member"], &["sleep"]);
    let mut shell = Shell::start();
    for way in ["$N -u tester", "$N -u tester --allow-new-privs", "${N% run} exec member"] {
        shell.line(&format!("{way} -- $PROBE type"));
        shell.expect("typing: EPERM");
    }
    shell.end();
}
