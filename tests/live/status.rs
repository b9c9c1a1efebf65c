//! `--json-status-fd`.

use std::fs;
use std::process::{Command, Output, Stdio};

use nix::sys::stat::Mode;

use crate::lab::{Lab, NETBOX, PROBE, Shape, live_tests, words};

live_tests![
    a_start_and_an_end_are_told_in_json,
    a_start_with_thousands_of_ports_is_told,
    a_command_that_cannot_be_started_has_an_end_only,
    a_reader_that_is_gone_or_full_changes_nothing,
    a_descriptor_that_cannot_be_written_is_an_error,
];

const FILE: &str = "/run/lab/status";

/// `netbox run` of a shell that has opened descriptor 7 in this way.
fn run(redirection: &str, rest: &str) -> Output {
    let script = format!("exec 7{redirection}; exec {NETBOX} run --json-status-fd 7 {rest}");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]).stdin(Stdio::null()).env_remove("SUDO_UID").output().expect("a shell")
}

fn told() -> Vec<serde_json::Value> {
    let text = fs::read_to_string(FILE).expect("the status");
    fs::remove_file(FILE).expect("the status");
    text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

/// With the fields of `ps --json`. The command does not inherit the descriptor.
fn a_start_and_an_end_are_told_in_json() {
    let _lab = Lab::new(Shape::OwnLan);
    for options in ["", "--unshare-pid"] {
        let rest =
            format!("{options} --name web -p 8080:80 -- /bin/sh -c 'test ! -e /proc/self/fd/7 && exit 3'");
        let output = run(&format!(">{FILE}"), &rest);
        assert_eq!(output.status.code(), Some(3), "{}", words(&output));
        let [start, end] = &told()[..] else { panic!("two lines") };
        assert_eq!(
            (&start["event"], &start["name"], &start["net"]),
            (&"started".into(), &"web".into(), &"nat".into())
        );
        assert_eq!(start["ports"][0]["host_port"], 8080);
        for field in ["id", "pid", "box_pid", "privilege", "command", "started", "ipv4", "ipv6"] {
            assert!(start.get(field).is_some(), "{field} in {start}");
        }
        assert_eq!(end, &serde_json::json!({"event": "exited", "status": 3}));
    }
}

/// They are longer than a message between netbox's processes.
fn a_start_with_thousands_of_ports_is_told() {
    let _lab = Lab::new(Shape::OwnLan);
    let output = run(&format!(">{FILE}"), &format!("-p 20000-21999:20000-21999 -- {PROBE} exit 3"));
    assert_eq!(output.status.code(), Some(3), "{}", words(&output));
    let [start, _end] = &told()[..] else { panic!("two lines") };
    assert_eq!(start["ports"].as_array().map(Vec::len), Some(4000));
}

/// R2.
fn a_command_that_cannot_be_started_has_an_end_only() {
    let _lab = Lab::new(Shape::OwnLan);
    let output = run(&format!(">{FILE}"), "-- /nowhere");
    assert_eq!(output.status.code(), Some(127), "{}", words(&output));
    assert_eq!(told(), [serde_json::json!({"event": "exited", "status": 127})]);
}

/// R3: nor does the command get a SIGPIPE that it did not earn.
fn a_reader_that_is_gone_or_full_changes_nothing() {
    let _lab = Lab::new(Shape::OwnLan);
    let pipe = "/run/lab/pipe";
    nix::unistd::mkfifo(pipe, Mode::S_IRWXU).expect("a pipe");
    let command = format!("-- {PROBE} exit 4");
    // Opened for both, then for writing only: no reader is left.
    let output = run(&format!("<>{pipe} 8>{pipe} 7>&8 8>&-"), &command);
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(4), &b""[..]), "{}", words(&output));
    // 64 KiB is what a pipe holds (pipe(7)).
    let full = format!("<>{pipe}; dd if=/dev/zero of={pipe} bs=4096 count=16 2>/dev/null");
    let output = run(&full, &command);
    assert_eq!(output.status.code(), Some(4), "{}", words(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--json-status-fd"), "{}", words(&output));
    fs::remove_file(pipe).expect("the pipe");
}

/// Before anything is changed.
fn a_descriptor_that_cannot_be_written_is_an_error() {
    let _lab = Lab::new(Shape::OwnLan);
    for redirection in ["</dev/null", ">&-"] {
        let output = run(redirection, "-- true");
        assert_eq!(output.status.code(), Some(125), "{redirection}: {}", words(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains("descriptor 7"), "{}", words(&output));
    }
}
