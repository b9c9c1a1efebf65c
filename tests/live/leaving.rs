//! Nothing is left behind, however a box ends.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::{ECHO, HOST_LAN, Lab, NETBOX, RunningBox, Shape, WAN, live_tests, probe, processes, send};

live_tests![
    the_host_is_as_before_within_a_tenth_of_a_second,
    a_commands_strays_are_gone_when_netbox_returns,
    name_and_port_can_be_used_again_at_once,
    twenty_boxes_at_once_from_nothing,
    the_last_box_of_many_takes_the_gateway_with_it,
    a_killed_first_process_ends_the_run,
    a_killed_launcher_takes_its_box_with_it,
    a_killed_keeper_leaves_a_whole_box_or_none,
    a_kill_of_everything_is_swept_by_the_next_command,
];

const SERVER: [&str; 3] = ["listen", "tcp", "0.0.0.0:80"];

/// L1.
fn the_host_is_as_before_within_a_tenth_of_a_second() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&["-p", "8080:80", "-p", "127.0.0.1:9090:80"], &SERVER);
    assert!(lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN, 8080)))).reached());
    assert!(running.inside(|| probe::tcp(SocketAddr::from((WAN, ECHO)))).reached());
    running.end();
    lab.assert_clean_within(Duration::from_millis(100));
}

fn probes() -> Vec<String> {
    processes().into_iter().filter(|line| line.contains("probe")).collect()
}

/// L1: what the command left running in the background.
fn a_commands_strays_are_gone_when_netbox_returns() {
    let lab = Lab::new(Shape::OwnLan);
    let output = lab.run(&[], &["leave-a-child"]);
    assert_eq!(output.status.code(), Some(7), "{}", crate::lab::words(&output));
    assert_eq!(probes(), Vec::<String>::new());
}

/// L1: by a run that starts when the last has returned.
fn name_and_port_can_be_used_again_at_once() {
    let lab = Lab::new(Shape::OwnLan);
    for _ in 0..5 {
        let running = lab.start(&["--name", "web", "-p", "8080:80"], &SERVER);
        assert!(lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN, 8080)))).reached());
        running.end();
    }
}

fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// L1: each with an address of its own and a way out; all gone at the end.
fn twenty_boxes_at_once_from_nothing() {
    let lab = Lab::new(Shape::OwnLan);
    let boxes: Vec<RunningBox> = thread::scope(|scope| {
        let starts: Vec<_> = (0..20).map(|_| scope.spawn(|| lab.start(&[], &["sleep"]))).collect();
        starts.into_iter().map(|start| start.join().expect("a box")).collect()
    });
    let addresses: BTreeSet<Ipv4Addr> = boxes.iter().map(|running| running.address).collect();
    assert_eq!(addresses.len(), 20, "{addresses:?}");
    for running in &boxes {
        let outcome = running.inside(|| probe::udp(SocketAddr::from((WAN, ECHO))));
        assert!(outcome.reached(), "{}: {outcome}", running.address);
    }
    thread::scope(|scope| {
        for running in boxes {
            scope.spawn(|| running.end());
        }
    });
}

/// L1: and not an earlier one.
fn the_last_box_of_many_takes_the_gateway_with_it() {
    let lab = Lab::new(Shape::OwnLan);
    let (first, second) = (lab.start(&[], &["sleep"]), lab.start(&[], &["sleep"]));
    first.end();
    let outcome = second.inside(|| probe::tcp(SocketAddr::from((WAN, ECHO))));
    assert!(outcome.reached(), "the box that did not make the gateway: {outcome}");
}

/// R2, L1: 137.
fn a_killed_first_process_ends_the_run() {
    let lab = Lab::new(Shape::OwnLan);
    let mut running = lab.start(&["-p", "8080:80"], &SERVER);
    send(running.pid, Signal::SIGKILL);
    assert_eq!(running.wait().code(), Some(137));
}

/// L2: within a second.
fn a_killed_launcher_takes_its_box_with_it() {
    let lab = Lab::new(Shape::OwnLan);
    let mut running = lab.start(&["-p", "8080:80"], &SERVER);
    send(running.launcher(), Signal::SIGKILL);
    running.wait();
    wait_until("the box is dead", Duration::from_secs(1), || probes().is_empty());
    lab.assert_clean_within(Duration::from_secs(1));
}

/// The processes that are netbox, but for this one.
fn netbox_processes(except: Option<u32>) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("the processes").flatten();
    all.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let program = fs::read_link(entry.path().join("exe")).ok()?;
        (program.as_os_str() == NETBOX && Some(pid) != except).then_some(pid)
    })
    .collect()
}

/// L2: and nothing remains of either.
fn a_killed_keeper_leaves_a_whole_box_or_none() {
    let lab = Lab::new(Shape::OwnLan);
    let mut running = lab.start(&["-p", "8080:80"], &SERVER);
    let keepers = netbox_processes(Some(running.launcher()));
    assert!(!keepers.is_empty(), "no keeper beside the launcher");
    for keeper in keepers {
        send(keeper, Signal::SIGKILL);
    }
    thread::sleep(Duration::from_secs(1)); // the promise's own limit
    if probes().is_empty() {
        assert_eq!(running.wait().code(), Some(125));
    } else {
        let published = lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN, 8080))));
        assert!(published.reached(), "the box goes on without its port: {published}");
        assert!(
            std::net::TcpListener::bind("0.0.0.0:8080").is_err(),
            "the box goes on without holding its port"
        );
        let way_out = running.inside(|| probe::tcp(SocketAddr::from((WAN, ECHO))));
        assert!(way_out.reached(), "the box goes on without its way out: {way_out}");
        running.end();
    }
}

/// L2: all netbox processes at once; `gc` is a netbox command.
fn a_kill_of_everything_is_swept_by_the_next_command() {
    let lab = Lab::new(Shape::OwnLan);
    let mut running = lab.start(&["-p", "8080:80"], &SERVER);
    for pid in netbox_processes(None) {
        send(pid, Signal::SIGSTOP);
    }
    for pid in netbox_processes(None) {
        send(pid, Signal::SIGKILL);
    }
    running.wait();
    let swept = lab.netbox(&["gc"]).output().expect("netbox can be started");
    assert!(swept.status.success(), "{}", crate::lab::words(&swept));
    lab.assert_clean_within(Duration::from_secs(1));
}
