//! Commands that follow boxes: `netbox stats` and `netbox monitor`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::{
    ECHO, Lab, NETBOX, Shape, WAN, end_within, live_tests, probe, running, send, wait_until, words,
};

live_tests![
    the_traffic_of_each_box_is_told,
    traffic_is_told_every_second_until_the_box_has_ended,
    what_happens_to_boxes_is_told_as_it_happens,
    the_end_of_a_box_is_told_when_everything_was_killed,
    what_happens_is_told_in_json,
    ports_that_change_are_told_in_order,
    who_follows_ends_when_nobody_reads,
];

/// A netbox command that goes on, and what it says.
struct Follower {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Follower {
    fn start(lab: &Lab, arguments: &[&str]) -> Self {
        let mut child = lab.netbox(arguments).stdout(Stdio::piped()).spawn().expect("netbox can be started");
        let said = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, said }
    }

    /// A monitor that has looked at what there is, and waits.
    fn monitor(lab: &Lab, arguments: &[&str]) -> Self {
        let follower = Self::start(lab, &[&["monitor"], arguments].concat());
        let pid = follower.child.id();
        let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let watches = || (3..8).any(|fd| of(&format!("fdinfo/{fd}")).contains("inotify wd:"));
        let sleeps = || of("stat").rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'));
        wait_until("it watches, and waits", || watches() && sleeps());
        follower
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// A line without its first words.
    fn line_after(&mut self, words: usize) -> String {
        self.line().split_ascii_whitespace().skip(words).collect::<Vec<_>>().join(" ")
    }

    fn wait(&mut self) -> ExitStatus {
        end_within(Duration::from_secs(5), &mut self.child).expect("an end")
    }

    fn end(mut self) {
        send(self.child.id(), Signal::SIGTERM);
        self.child.wait().expect("our child");
    }
}

fn id_of(lab: &Lab, name: &str) -> String {
    let output = lab.netbox(&["inspect", "--format", "/0/id", name]).output().expect("netbox");
    assert!(output.status.success(), "{}", words(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn the_traffic_of_each_box_is_told() {
    let lab = Lab::new(Shape::OwnLan);
    let web = lab.start(&["--name", "web"], &["sleep"]);
    let idle = lab.start(&["--name", "idle", "--no-ipv6"], &["sleep"]);
    let none = lab.start(&["--name", "none", "--net", "none"], &["sleep"]);
    for _ in 0..2 {
        assert!(web.inside(|| probe::udp(SocketAddr::from((WAN, ECHO)))).reached());
    }
    let output = lab.netbox(&["stats", "--no-stream", "--json"]).output().expect("netbox");
    assert!(output.status.success(), "{}", words(&output));
    let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let row = |place: usize| &rows[place];
    assert_eq!(
        [row(0), row(1), row(2)].map(|row| row["name"].as_str().expect("a name")),
        ["web", "idle", "none"]
    );
    let count = |row: &Value, counter: &str| row["counters"][counter].as_u64().expect("a number");
    // Two questions and two answers, each of 9 bytes and more with headers of 42.
    assert!(count(row(0), "packets_out") >= 2 && count(row(0), "packets_in") >= 2, "{rows}");
    assert!(count(row(0), "bytes_out") >= 2 * 51, "{rows}");
    assert_eq!((&row(0)["connections"], &row(1)["connections"]), (&2.into(), &0.into()), "{rows}");
    assert!(count(row(1), "packets_out") < count(row(0), "packets_out"), "{rows}");
    assert!(row(2)["counters"].is_null() && row(2)["connections"].is_null(), "{rows}");

    let output = lab.netbox(&["stats", "--no-stream", "web"]).output().expect("netbox");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.lines().count() == 2 && text.contains("CONNECTIONS") && text.contains(" web "), "{text}");
    drop((web, idle, none));
}

fn traffic_is_told_every_second_until_the_box_has_ended() {
    let lab = Lab::new(Shape::OwnLan);
    let web = lab.start(&["--name", "web"], &["sleep"]);
    let other = lab.start(&[], &["sleep"]);
    let mut stats = Follower::start(&lab, &["stats", "--json", "web"]);
    let packets = |line: &str| -> u64 {
        let rows: Value = serde_json::from_str(line).expect("JSON");
        rows[0]["counters"]["packets_out"].as_u64().unwrap_or_else(|| panic!("{line}"))
    };
    let first = packets(&stats.line());
    assert!(web.inside(|| probe::udp(SocketAddr::from((WAN, ECHO)))).reached());
    let began = Instant::now();
    // One set may have been on its way.
    let _ = stats.line();
    assert!(packets(&stats.line()) > first);
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    web.end();
    assert!(stats.wait().success());
    other.end();
    let output = lab.netbox(&["stats", "web"]).output().expect("netbox");
    assert_eq!(output.status.code(), Some(125), "{}", words(&output));
}

/// Also when the state directory goes with the last box and comes again.
fn what_happens_to_boxes_is_told_as_it_happens() {
    let lab = Lab::new(Shape::OwnLan);
    let mut monitor = Follower::monitor(&lab, &[]);
    for _ in 0..2 {
        let web = lab.start(&["--name", "web", "-p", "192.0.2.1:8080:80"], &["sleep"]);
        let id = id_of(&lab, "web");
        assert_eq!(monitor.line_after(1), format!("start {id} web"));
        assert_eq!(monitor.line_after(1), format!("port {id} web added 192.0.2.1:8080->80/tcp"));
        let db = lab.start(&["--net", "none"], &["sleep"]);
        let line = monitor.line();
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        assert!(words.len() == 4 && words[1] == "start" && words[2] == words[3], "{line}");
        assert!(words[0].len() == 24 && words[0].ends_with('Z'), "{line}");
        web.end();
        assert_eq!(monitor.line_after(1), format!("end {id} web"));
        db.end();
        assert_eq!(monitor.line_after(1), format!("end {0} {0}", words[2]));
        wait_until("the state directory is gone", || {
            fs::read_dir("/run/netbox/0").map_or(0, Iterator::count) == 0
        });
    }
    // What is there already does not happen.
    monitor.end();
    let web = lab.start(&["--name", "web"], &["sleep"]);
    let id = id_of(&lab, "web");
    let mut monitor = Follower::monitor(&lab, &[]);
    web.end();
    assert_eq!(monitor.line_after(1), format!("end {id} web"));
    monitor.end();
}

/// L2: though nobody is there to clear up.
fn the_end_of_a_box_is_told_when_everything_was_killed() {
    let lab = Lab::new(Shape::OwnLan);
    let mut monitor = Follower::monitor(&lab, &[]);
    let mut web = lab.start(&["--name", "web"], &["sleep"]);
    assert!(monitor.line_after(1).starts_with("start "));
    let mut processes = running(NETBOX);
    processes.retain(|pid| *pid != monitor.child.id());
    processes.iter().for_each(|pid| send(*pid, Signal::SIGSTOP));
    processes.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
    web.wait();
    assert!(monitor.line_after(1).starts_with("end "));
    assert!(lab.netbox(&["gc"]).status().expect("netbox").success());
    let next = lab.start(&["--name", "next"], &["sleep"]);
    // And it is told once.
    let line = monitor.line_after(1);
    assert!(line.starts_with("start ") && line.ends_with(" next"), "{line}");
    next.end();
    monitor.end();
}

fn what_happens_is_told_in_json() {
    let lab = Lab::new(Shape::OwnLan);
    let mut monitor = Follower::monitor(&lab, &["--json"]);
    let web = lab.start(&["--name", "web", "-p", "127.0.0.1:8080:80"], &["sleep"]);
    let id = id_of(&lab, "web");
    web.end();
    let mut told = Vec::new();
    for _ in 0..3 {
        let mut event: Value = serde_json::from_str(&monitor.line()).expect("an object");
        let time = event.as_object_mut().and_then(|event| event.remove("time")).expect("a time");
        assert!(time.as_str().is_some_and(|time| time.ends_with('Z')), "{time}");
        told.push(event);
    }
    assert_eq!(
        Value::Array(told),
        serde_json::json!([
            {"event": "start", "id": id, "name": "web"},
            {"event": "port", "change": "added", "id": id, "name": "web", "protocol": "tcp",
             "host_address": "127.0.0.1", "host_port": 8080, "box_port": 80},
            {"event": "end", "id": id, "name": "web"},
        ])
    );
    monitor.end();
}

/// `netbox port add` and `rm`: each port once, when it can be reached or cannot any more, in the order in which they were asked for.
fn ports_that_change_are_told_in_order() {
    let lab = Lab::new(Shape::OwnLan);
    let mut monitor = Follower::monitor(&lab, &["--json"]);
    let web = lab.start(&["--name", "web", "-p", "127.0.0.1:8080:80"], &["sleep"]);
    let id = id_of(&lab, "web");
    let port = |change: &str, protocol: &str, host_port: u16, box_port: u16| {
        serde_json::json!({"event": "port", "change": change, "id": id, "name": "web", "protocol": protocol,
            "host_address": "127.0.0.1", "host_port": host_port, "box_port": box_port})
    };
    let mut told = || {
        let mut event: Value = serde_json::from_str(&monitor.line()).expect("an object");
        event.as_object_mut().and_then(|event| event.remove("time")).expect("a time");
        event
    };
    assert_eq!(told()["event"], "start");
    assert_eq!(told(), port("added", "tcp", 8080, 80));
    for (words, expected) in [
        (&["add", "web", "127.0.0.1:8081:81"][..], vec![port("added", "tcp", 8081, 81)]),
        (
            &["add", "web", "127.0.0.1:5300-5301:53-54/udp"],
            vec![port("added", "udp", 5300, 53), port("added", "udp", 5301, 54)],
        ),
        (&["rm", "web", "8080:80"], vec![port("removed", "tcp", 8080, 80)]),
        (&["add", "web", "127.0.0.1:8080:82"], vec![port("added", "tcp", 8080, 82)]),
        (&["rm", "web", "5300:53/udp", "8081:81"], {
            vec![port("removed", "tcp", 8081, 81), port("removed", "udp", 5300, 53)]
        }),
    ] {
        let output = lab.netbox(&[&["port"], words].concat()).output().expect("netbox");
        assert!(output.status.success(), "{words:?}: {}", crate::lab::words(&output));
        let mut events: Vec<_> = expected.iter().map(|_| told()).collect();
        // Of one command they come in any order.
        events.sort_by_key(|event| event["protocol"].to_string() + &event["host_port"].to_string());
        assert_eq!(events, expected, "{words:?}");
    }
    // What is refused has not happened.
    let refused = lab.netbox(&["port", "rm", "web", "9999:99"]).output().expect("netbox");
    assert_eq!(refused.status.code(), Some(125), "{}", words(&refused));
    web.end();
    assert_eq!(told()["event"], "end", "its ports go with it, without a word about them");
    monitor.end();
}

/// R3: without a word.
fn who_follows_ends_when_nobody_reads() {
    let lab = Lab::new(Shape::OwnLan);
    let web = lab.start(&["--name", "web"], &["sleep"]);
    for arguments in [&["monitor"][..], &["stats"]] {
        let mut command = lab.netbox(arguments);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("netbox can be started");
        drop(child.stdout.take());
        assert!(end_within(Duration::from_secs(5), &mut child).is_some(), "{arguments:?} goes on");
        let output = child.wait_with_output().expect("what it said");
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {}", words(&output));
    }
    web.end();
}
