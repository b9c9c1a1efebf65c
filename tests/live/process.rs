//! The command behaves as if it had been started bare.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Output, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::lab::{Lab, NETBOX, PROBE, RunningBox, Shape, live_tests, words};
use crate::tracer::{Role, trace};

live_tests![
    nothing_is_executed_but_the_command,
    arguments_arrive_byte_for_byte,
    the_exit_status_is_the_commands,
    a_command_killed_by_a_signal_is_128_and_the_signal,
    a_command_killed_by_a_signal_without_a_name_is_no_failure,
    an_ignored_sigchld_does_not_keep_netbox_waiting,
    a_command_that_cannot_be_executed_is_126,
    a_command_that_is_not_there_is_127,
    wrong_usage_is_2,
    nothing_is_printed_but_what_the_command_prints,
    standard_input_arrives,
    only_the_standard_descriptors_are_passed_on,
    the_environment_is_kept_and_the_boxs_own_added,
    the_environment_can_be_changed,
    the_directory_is_kept_or_the_one_asked_for,
    a_signal_to_the_launcher_arrives_once,
    a_signal_to_the_process_group_arrives_once,
    a_terminated_command_ends_the_run_as_it_would_bare,
    standard_descriptors_that_were_closed_stay_closed,
    environment_entries_without_a_name_are_passed_on,
];

fn lab() -> Lab {
    Lab::new(Shape::OwnLan)
}

/// Without and with an init above the command.
const BOTH: [&[&str]; 2] = [&[], &["--unshare-pid"]];

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", words(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// R1: whatever they are, also what looks like an option, and what is no text.
fn arguments_arrive_byte_for_byte() {
    let lab = lab();
    let given: Vec<OsString> =
        [&b"--"[..], b"", b"-p", b"a b", b"new\nline", b"\xff\xfe", b"$HOME", b"--help", b"'\""]
            .iter()
            .map(|bytes| OsString::from_vec(bytes.to_vec()))
            .collect();
    let output = lab.run_command(&[], &["arguments"]).args(&given).output().expect("netbox can be started");
    let mut expected = given.join(OsStr::from_bytes(&[0])).into_vec();
    expected.push(0);
    assert_eq!(output.stdout, expected, "{}", words(&output));
}

/// R2: all of the byte.
fn the_exit_status_is_the_commands() {
    let lab = lab();
    for options in BOTH {
        for status in [0, 1, 2, 42, 124, 125, 126, 127, 128, 254, 255] {
            let output = lab.run(options, &["exit", &status.to_string()]);
            assert_eq!(output.status.code(), Some(status), "{}", words(&output));
        }
    }
}

/// R2: 128+N.
fn a_command_killed_by_a_signal_is_128_and_the_signal() {
    let lab = lab();
    for options in BOTH {
        for (name, status) in [("SIGTERM", 143), ("SIGKILL", 137), ("SIGUSR1", 138)] {
            let output = lab.run(options, &["raise", name]);
            assert_eq!(output.status.code(), Some(status), "{name}: {}", words(&output));
        }
    }
}

fn run_of(lab: &Lab, command: &str) -> Output {
    lab.netbox(&["run", "--", command]).output().expect("netbox can be started")
}

/// R2: found, but not a program.
fn a_command_that_cannot_be_executed_is_126() {
    let lab = lab();
    fs::write("/tmp/plain", "no program").expect("a file");
    let output = run_of(&lab, "/tmp/plain");
    assert_eq!(output.status.code(), Some(126), "{}", words(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/tmp/plain"), "{}", words(&output));
    fs::remove_file("/tmp/plain").expect("the file");
}

/// R2: neither by path nor by name.
fn a_command_that_is_not_there_is_127() {
    let lab = lab();
    for command in ["/tmp/nothing", "no-such-command-anywhere"] {
        let output = run_of(&lab, command);
        assert_eq!(output.status.code(), Some(127), "{}", words(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(command), "{}", words(&output));
    }
}

/// R2: on the command line.
fn wrong_usage_is_2() {
    let lab = lab();
    for wrong in [
        &["run"][..],
        &["run", "--no-such-option", "--", "true"],
        &["run", "-p", "80:0", "--", "true"],
        &["run", "-p", "x", "--", "true"],
        &["run", "--net", "none", "-p", "80:80", "--", "true"],
        &["no-such-command"],
    ] {
        let output = lab.netbox(wrong).output().expect("netbox can be started");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", words(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{wrong:?}: {}", words(&output));
    }
}

/// R3: netbox itself is silent.
fn nothing_is_printed_but_what_the_command_prints() {
    let lab = lab();
    let output = lab.run(&["-p", "8080:80"], &["arguments", "x"]);
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"x\0"[..], &b""[..]));
}

/// R1: untouched, to its end.
fn standard_input_arrives() {
    let lab = lab();
    let mut command = lab.run_command(&[], &["stdin"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("netbox can be started");
    child.stdin.take().expect("piped").write_all(b"all of\0 it\n").expect("to write");
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.stdout, b"all of\0 it\n", "{}", words(&output));
}

/// I5: not what the caller left open, be it a file, a directory or a socket.
fn only_the_standard_descriptors_are_passed_on() {
    let lab = lab();
    let file = File::open("/proc/self/status").expect("a file");
    let directory = File::open("/").expect("a directory");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let inherit = FcntlArg::F_SETFD(FdFlag::empty());
    fcntl(&file, inherit).expect("an inheritable descriptor");
    fcntl(&directory, FcntlArg::F_SETFD(FdFlag::empty())).expect("an inheritable descriptor");
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty())).expect("an inheritable descriptor");
    let said = text(&lab.run(&["-p", "8080:80"], &["descriptors"]));
    // The one that leads to the list itself is the listing's own.
    let lines = said.lines().filter(|line| !line.ends_with("/fd"));
    let mut numbers: Vec<&str> = lines.filter_map(|line| line.split(' ').next()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, ["0", "1", "2"], "{said}");
}

fn environment(output: &Output) -> Vec<(String, String)> {
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text(output).split_terminator('\0').filter_map(pair).collect()
}

/// R1: `NETBOX_ID`, `NETBOX_NAME`, `NETBOX_IPV4`, `NETBOX_GATEWAY`, and no other change.
fn the_environment_is_kept_and_the_boxs_own_added() {
    let lab = lab();
    let mut command = lab.run_command(&["--name", "web"], &["environment"]);
    command.env_clear().env("KEPT", "a = b").env("PATH", "/nowhere").env("LD_PRELOAD", "");
    let all = environment(&command.output().expect("netbox can be started"));
    let (own, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|(name, _)| name.starts_with("NETBOX_"));
    let expected = [("KEPT", "a = b"), ("LD_PRELOAD", ""), ("PATH", "/nowhere")];
    let mut kept: Vec<_> = kept.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    kept.sort_unstable();
    assert_eq!(kept, expected);
    let value = |name: &str| own.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value.as_str());
    assert_eq!(value("NETBOX_NAME"), "web");
    assert_eq!(value("NETBOX_ID").len(), 8, "{own:?}");
    for name in ["NETBOX_IPV4", "NETBOX_GATEWAY"] {
        assert!(value(name).starts_with("10."), "{name} in {own:?}");
    }
}

/// R1: `-e K=V`, `-e K`, `--clear-env`.
fn the_environment_can_be_changed() {
    let lab = lab();
    let options = ["--clear-env", "-e", "SET=here", "-e", "COPIED"];
    let mut command = lab.run_command(&options, &["environment"]);
    command.env_clear().envs([("PATH", "/bin"), ("HOME", "/"), ("COPIED", "too"), ("DROPPED", "x")]);
    let all = environment(&command.output().expect("netbox can be started"));
    let mut names: Vec<_> = all
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .filter(|line| !line.starts_with("NETBOX_"))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["COPIED=too", "HOME=/", "PATH=/bin", "SET=here"]);
}

/// R1: the caller's, or `-w`.
fn the_directory_is_kept_or_the_one_asked_for() {
    let lab = lab();
    let output =
        lab.run_command(&[], &["directory"]).current_dir("/run").output().expect("netbox can be started");
    assert_eq!(text(&output), "/run\n");
    assert_eq!(text(&lab.run(&["-w", "/tmp"], &["directory"])), "/tmp\n");
}

fn next_line(running: &mut RunningBox) -> String {
    let mut line = String::new();
    running.stdout.read_line(&mut line).expect("a line of the probe");
    line.trim().to_owned()
}

const COUNTED: [&str; 5] = ["signals", "SIGUSR1", "SIGHUP", "SIGINT", "SIGTERM"];
const SENT: [Signal; 4] = [Signal::SIGUSR1, Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

/// R3: to the process.
fn a_signal_to_the_launcher_arrives_once() {
    let lab = lab();
    for options in BOTH {
        let mut running = lab.start(options, &COUNTED);
        let mut seen = Vec::new();
        for signal in SENT {
            running.signal(signal);
            seen.push(next_line(&mut running));
        }
        running.signal(Signal::SIGUSR2);
        seen.push(next_line(&mut running));
        assert_eq!(seen, ["SIGUSR1", "SIGHUP", "SIGINT", "SIGTERM", "SIGUSR2"]);
        assert_eq!(running.wait().code(), Some(0));
    }
}

/// R3: to the process group, the command in it or not.
fn a_signal_to_the_process_group_arrives_once() {
    let lab = lab();
    let mut command = lab.run_command(&[], &COUNTED);
    command.process_group(0);
    let mut running = lab.start_command(&mut command);
    let group = Pid::from_raw(running.launcher().cast_signed());
    let mut seen = Vec::new();
    for signal in SENT {
        killpg(group, signal).expect("the launcher's group");
        seen.push(next_line(&mut running));
    }
    killpg(group, Signal::SIGUSR2).expect("the launcher's group");
    seen.push(next_line(&mut running));
    assert_eq!(seen, ["SIGUSR1", "SIGHUP", "SIGINT", "SIGTERM", "SIGUSR2"]);
    assert_eq!(running.wait().code(), Some(0));
}

/// R2, R3: SIGTERM ends a command that does not handle it: 143.
fn a_terminated_command_ends_the_run_as_it_would_bare() {
    let lab = lab();
    assert_eq!(lab.start(&[], &["sleep"]).end().code(), Some(143));
}

/// R1, C1: no helper program, on a host without other firewalls: the first box, its ports and its end included.
fn nothing_is_executed_but_the_command() {
    let lab = lab();
    let command = lab.run_command(&["-p", "8080:80"], &["exit", "0"]);
    let traced = trace(&command, None);
    assert_eq!(traced.status, 0);
    let executed = |role| {
        let is_exec = |number| number == libc::SYS_execve || number == libc::SYS_execveat;
        traced.calls.iter().filter(|call| call.role == role && is_exec(call.number)).count()
    };
    assert_eq!(executed(Role::Keeper), 0);
    assert_eq!(executed(Role::First), 1);
    // Its own, where the tracer sees that.
    assert!(executed(Role::Launcher) <= 1);
}

/// R2: real-time signals have numbers only.
fn a_command_killed_by_a_signal_without_a_name_is_no_failure() {
    let lab = lab();
    let output = lab.netbox(&["run", "--", "/bin/sh", "-c", "kill -40 $$"]).output().expect("netbox");
    assert_eq!(output.status.code(), Some(128 + 40), "{}", words(&output));
}

/// R2: with SIGCHLD ignored the kernel reaps children by itself, and tells nobody how they ended.
fn an_ignored_sigchld_does_not_keep_netbox_waiting() {
    let _lab = lab();
    let inner = format!("trap '' CHLD; exec {NETBOX} run -- {PROBE} exit 3");
    let output = std::process::Command::new("/bin/sh").args(["-c", &inner]).output().expect("a shell");
    assert_eq!(output.status.code(), Some(3), "{}", words(&output));
}

/// R1: each alone, and all three.
fn standard_descriptors_that_were_closed_stay_closed() {
    let _lab = lab();
    for options in BOTH.map(|options| options.join(" ")) {
        for (closed, numbers) in [("<&-", "0"), (">&-", "1"), ("2>&-", "2"), ("<&- >&- 2>&-", "0 1 2")] {
            // By the shell alone, which opens nothing for it.
            let look = format!("for n in {numbers}; do test ! -e /proc/self/fd/$n || exit 9; done; exit 5");
            let inner = format!("exec {NETBOX} run {options} -- /bin/sh -c '{look}' {closed}");
            let output =
                std::process::Command::new("/bin/sh").args(["-c", &inner]).output().expect("a shell");
            assert_eq!(output.status.code(), Some(5), "{options} {closed}: {}", words(&output));
        }
    }
}

/// R1: what no `getenv` finds is in the environment all the same, once.
fn environment_entries_without_a_name_are_passed_on() {
    let _lab = lab();
    let entries = ["no equals sign", "=x", "A=1", "A=2"];
    let mut command = std::process::Command::new(PROBE);
    command.arg("with-environment").args(entries).args(["--", NETBOX, "run", "--", "/bin/cat"]);
    let output = command.arg("/proc/self/environ").output().expect("netbox");
    let said = text(&output);
    let (own, kept): (Vec<_>, Vec<_>) =
        said.split_terminator('\0').partition(|entry| entry.starts_with("NETBOX_"));
    assert_eq!((kept, own.len()), (entries.to_vec(), 5), "{said:?}");
}
