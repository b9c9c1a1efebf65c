//! `netbox stop` and `netbox kill`: boxes that are ended from outside.

use std::fs;
use std::io::BufRead;
use std::net::TcpListener;
use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::{Lab, PROBE, RunningBox, Shape, live_tests, running, send, wait_until, words};

live_tests![
    a_stopped_box_is_gone_for_everybody,
    a_box_that_does_not_listen_is_killed_in_time,
    several_boxes_are_stopped_at_the_same_time,
    all_boxes_are_stopped,
    a_command_that_is_stopped_by_a_signal_ends_when_it_is_asked_to,
    a_stopped_keeper_does_not_keep_a_box,
    a_signal_is_sent_to_the_command_once,
    a_killed_box_is_gone_for_everybody,
    one_that_is_not_there_does_not_keep_the_others,
];

const SERVER: [&str; 3] = ["listen", "tcp", "0.0.0.0:80"];
/// Takes SIGTERM without ending.
const DEAF: [&str; 3] = ["signals", "SIGTERM", "SIGUSR1"];

fn netbox(lab: &Lab, arguments: &[&str]) -> Output {
    lab.netbox(arguments).output().expect("netbox can be started")
}

/// What it prints when all goes well.
fn said(lab: &Lab, arguments: &[&str]) -> String {
    let output = netbox(lab, arguments);
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {}", words(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What the command says of a signal.
fn next_line(in_box: &mut RunningBox) -> String {
    let mut line = String::new();
    in_box.stdout.read_line(&mut line).expect("what the command says");
    line.trim().to_owned()
}

fn assert_gone(lab: &Lab, in_box: &mut RunningBox, status: i32) {
    assert_eq!(running(PROBE), Vec::<u32>::new(), "the command lives");
    drop(TcpListener::bind("0.0.0.0:8080").expect("the port is free"));
    assert_eq!(said(lab, &["ps", "-q"]), "");
    assert_eq!(in_box.wait().code(), Some(status));
}

/// L1: when the command returns.
fn a_stopped_box_is_gone_for_everybody() {
    let lab = Lab::new(Shape::OwnLan);
    for options in
        [&["--name", "web", "-p", "8080:80"][..], &["--name", "web", "-p", "8080:80", "--unshare-pid"]]
    {
        let mut in_box = lab.start(options, &SERVER);
        assert_eq!(said(&lab, &["stop", "web"]), "web\n");
        assert_gone(&lab, &mut in_box, 143);
    }
}

/// L1, and not before: it was asked first.
fn a_box_that_does_not_listen_is_killed_in_time() {
    let lab = Lab::new(Shape::OwnLan);
    for options in
        [&["--name", "web", "-p", "8080:80"][..], &["--name", "web", "-p", "8080:80", "--unshare-pid"]]
    {
        let mut in_box = lab.start(options, &DEAF);
        let began = Instant::now();
        assert_eq!(said(&lab, &["stop", "-t", "300ms", "web"]), "web\n");
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
        assert_eq!(next_line(&mut in_box), "SIGTERM");
        assert_gone(&lab, &mut in_box, 137);
    }
}

fn several_boxes_are_stopped_at_the_same_time() {
    let lab = Lab::new(Shape::OwnLan);
    let names = ["a", "b", "c", "d", "e"];
    let mut boxes = names.map(|name| lab.start(&["--name", name, "--net", "none"], &DEAF));
    let began = Instant::now();
    let told = said(&lab, &["stop", "--time=2", "a", "b", "c", "d", "e"]);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(6), "{took:?}");
    let mut told: Vec<_> = told.lines().collect();
    told.sort_unstable();
    assert_eq!(told, names);
    boxes.iter_mut().for_each(|in_box| assert_eq!(in_box.wait().code(), Some(137)));
}

fn all_boxes_are_stopped() {
    let lab = Lab::new(Shape::OwnLan);
    assert_eq!(said(&lab, &["stop", "--all"]), "");
    let start = |options: &[&str]| lab.start(options, &["sleep"]);
    let mut boxes = vec![start(&["--net", "none"])];
    let id = said(&lab, &["ps", "-q"]);
    boxes.extend([start(&["--name", "web"]), start(&["--net", "host"])]);
    // Named as another's id is.
    boxes.push(start(&["--name", id.trim()]));
    let told = said(&lab, &["stop", "--all"]);
    assert!(told.lines().count() == 4 && told.lines().any(|line| line == "web"), "{told:?}");
    assert_eq!(said(&lab, &["ps", "-q"]), "");
    boxes.iter_mut().for_each(|in_box| assert_eq!(in_box.wait().code(), Some(143)));
}

fn state_of(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).expect("proc_pid_stat(5)")
}

/// R3: and one that is continued goes on with its launcher.
fn a_command_that_is_stopped_by_a_signal_ends_when_it_is_asked_to() {
    let lab = Lab::new(Shape::OwnLan);
    let mut in_box = lab.start(&["--name", "web", "-p", "8080:80"], &SERVER);
    let both = [in_box.launcher(), in_box.pid];
    let stop = || {
        assert_eq!(said(&lab, &["kill", "-s", "STOP", "web"]), "web\n");
        wait_until("both are stopped", || both.map(state_of) == ['T', 'T']);
    };
    stop();
    assert_eq!(said(&lab, &["kill", "--signal=SIGCONT", "web"]), "web\n");
    wait_until("both go on", || !both.map(state_of).contains(&'T'));
    stop();
    assert_eq!(said(&lab, &["stop", "--time=1h", "web"]), "web\n");
    assert_gone(&lab, &mut in_box, 143);
}

/// L1.
fn a_stopped_keeper_does_not_keep_a_box() {
    let lab = Lab::new(Shape::OwnLan);
    let endings = [&["stop", "--time=1h", "web"][..], &["kill", "web"], &["rm", "-f", "web"]];
    for (ending, status) in endings.into_iter().zip([143, 137, 137]) {
        let mut in_box = lab.start(&["--name", "web", "-p", "8080:80"], &SERVER);
        let keeper = said(&lab, &["inspect", "--format=/0/pids/keeper", "web"]);
        let keeper = keeper.trim().parse().expect("a process");
        send(keeper, Signal::SIGSTOP);
        wait_until("it is stopped", || state_of(keeper) == 'T');
        said(&lab, ending);
        assert_gone(&lab, &mut in_box, status);
    }
}

/// R3.
fn a_signal_is_sent_to_the_command_once() {
    let lab = Lab::new(Shape::OwnLan);
    for options in [&["--name", "web"][..], &["--name", "web", "--unshare-pid"]] {
        let mut in_box = lab.start(options, &DEAF);
        for (signal, shown) in [("TERM", "SIGTERM"), ("sigusr1", "SIGUSR1"), ("12", "SIGUSR2")] {
            assert_eq!(said(&lab, &["kill", "-s", signal, "web"]), "web\n");
            assert_eq!(next_line(&mut in_box), shown);
        }
        assert_eq!(in_box.wait().code(), Some(0));
        assert_eq!(next_line(&mut in_box), "");
    }
}

/// L1: without a signal it is SIGKILL.
fn a_killed_box_is_gone_for_everybody() {
    let lab = Lab::new(Shape::OwnLan);
    let mut in_box = lab.start(&["--name", "web", "-p", "8080:80"], &SERVER);
    assert_eq!(said(&lab, &["kill", "web"]), "web\n");
    assert_gone(&lab, &mut in_box, 137);
}

/// R2: 125, naming it.
fn one_that_is_not_there_does_not_keep_the_others() {
    let lab = Lab::new(Shape::OwnLan);
    for (arguments, status) in
        [(&["stop", "nobody", "web"][..], 143), (&["kill", "nobody", "web", "noone"], 137)]
    {
        let mut in_box = lab.start(&["--name", "web", "-p", "8080:80"], &SERVER);
        let output = netbox(&lab, arguments);
        assert_eq!(
            (output.status.code(), &output.stdout[..]),
            (Some(125), &b"web\n"[..]),
            "{}",
            words(&output)
        );
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let missing = arguments.iter().filter(|word| word.starts_with("no"));
        assert!(missing.into_iter().all(|name| told.contains(&format!("no box {name}"))), "{told}");
        assert_gone(&lab, &mut in_box, status);
    }
}
