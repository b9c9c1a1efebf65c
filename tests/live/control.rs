//! The control socket of a box: what others have in it ends with it, and who waits for it is told how it ended.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use netbox::apply::registry;
use netbox::boxes::control::{self, Connection};
use netbox::boxes::find::find;
use netbox::kernel::channel::Channel;
use netbox::kernel::{call_watch, listener, process};
use netbox::launch::control::message::{Answer, Request};
use netbox::spec::{BoxId, BoxRef};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::lab::{Lab, PROBE, Shape, end_within, live_tests, send, wait_until, words};

live_tests![
    what_others_have_in_a_box_ends_with_it,
    what_is_left_by_one_that_was_killed_is_killed_and_the_box_lives,
    who_takes_leave_leaves_the_box_alone,
    nobody_names_a_process_that_is_not_the_boxs,
    a_watch_over_calls_is_one_and_for_a_box_that_publishes_all,
    a_later_netbox_is_told_that_the_keeper_is_older,
    who_finds_no_room_is_told_so,
    clients_that_say_nothing_or_garbage_or_do_not_read_disturb_nobody,
    who_waits_for_a_box_ends_as_it_did,
    many_wait_and_one_that_is_killed_takes_nobody_along,
    several_boxes_are_waited_for_and_the_last_one_counts,
    a_box_that_is_killed_or_loses_its_keeper_is_waited_for,
    what_cannot_be_waited_for_is_an_error,
];

fn reference(name: &str) -> BoxRef {
    BoxRef::parse(name).expect("a name")
}

fn connect(name: &str) -> Connection {
    control::connect(&find(&reference(name)).expect("a living box")).expect("its keeper")
}

/// Connects without saying anything.
fn stranger(name: &str) -> Channel {
    let found = find(&reference(name)).expect("a living box");
    let id = BoxId::parse(&found.record.id).expect("an id");
    let directory = registry::directory_of(found.state().root(), &id).expect("its directory");
    listener::connect(directory.as_fd(), "control", Duration::from_secs(1)).expect("its keeper")
}

fn pidfd(pid: u32) -> OwnedFd {
    process::open(pid).expect("a process")
}

/// A process of the test's in the mount namespace of a box.
struct Guest(Child);

impl Guest {
    fn of(name: &str) -> Self {
        // Its own number may be that of a pid namespace of its own.
        let pid = find(&reference(name)).expect("a living box").record.box_pid;
        let mut child = Command::new(PROBE)
            .args(["in-mounts", &pid.to_string(), "sleep"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a probe");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert!(line.starts_with("ready "), "{line:?}");
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().expect("our child").is_none()
    }

    fn assert_killed_soon(mut self) {
        use std::os::unix::process::ExitStatusExt;
        let status = end_within(Duration::from_secs(5), &mut self.0).expect("it lives on");
        assert_eq!(status.signal(), Some(9));
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have been reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn register(connection: &Connection, command: &Guest) {
    let own = pidfd(std::process::id());
    let command = pidfd(command.pid());
    connection.register(own.as_fd(), command.as_fd(), None, own.as_fd()).expect("to be registered");
}

/// L1: the command that was registered, and what else is in the box's mounts, is gone when netbox returns.
fn what_others_have_in_a_box_ends_with_it() {
    let lab = Lab::new(Shape::OwnLan);
    for options in [&["--name", "web"][..], &["--name", "web", "--unshare-pid"]] {
        let mut one = lab.start(options, &["sleep"]);
        let connection = connect("web");
        let (command, child) = (Guest::of("web"), Guest::of("web"));
        register(&connection, &command);
        one.signal(Signal::SIGTERM);
        assert_eq!(connection.hear(), Ok(Some(Answer::Over)));
        // This one does not hang up, as if it were stopped: the box ends all the same.
        one.wait();
        assert_eq!(connection.hear(), Ok(None));
        command.assert_killed_soon();
        child.assert_killed_soon();
    }
}

/// L2.
fn what_is_left_by_one_that_was_killed_is_killed_and_the_box_lives() {
    let lab = Lab::new(Shape::OwnLan);
    let one = lab.start(&["--name", "web"], &["sleep"]);
    let (first, second) = (connect("web"), connect("web"));
    let (command, child, other) = (Guest::of("web"), Guest::of("web"), Guest::of("web"));
    // An agent of its own: what descends from another one is not the first's.
    let agent = pidfd(other.pid());
    first
        .register(agent.as_fd(), pidfd(command.pid()).as_fd(), None, agent.as_fd())
        .expect("to be registered");
    second
        .register(agent.as_fd(), pidfd(other.pid()).as_fd(), None, agent.as_fd())
        .expect("to be registered");
    drop(first);
    command.assert_killed_soon();
    child.assert_killed_soon();
    let mut other = other;
    assert!(other.lives());
    assert!(one.inside(|| true), "the box lives");
    drop(second);
    other.assert_killed_soon();
    assert_eq!(one.end().code(), Some(143));
}

/// What a command leaves on purpose is its agent's business.
fn who_takes_leave_leaves_the_box_alone() {
    let lab = Lab::new(Shape::OwnLan);
    let one = lab.start(&["--name", "web"], &["sleep"]);
    let connection = connect("web");
    let (mut command, mut child) = (Guest::of("web"), Guest::of("web"));
    register(&connection, &command);
    connection.say(Request::Goodbye, &[]).expect("to say it");
    assert_eq!(connection.hear(), Ok(None));
    assert!(command.lives() && child.lives());
    assert_eq!(one.end().code(), Some(143));
    command.assert_killed_soon();
    child.assert_killed_soon();
}

/// The keeper kills what is registered: it must be the box's.
fn nobody_names_a_process_that_is_not_the_boxs() {
    let lab = Lab::new(Shape::OwnLan);
    let one = lab.start(&["--name", "web"], &["sleep"]);
    let own = pidfd(std::process::id());
    let error = connect("web").register(own.as_fd(), own.as_fd(), None, own.as_fd()).expect_err("a refusal");
    assert!(error.to_string().ends_with("is not in the box"), "{error}");
    let connection = connect("web");
    connection.say(Request::Exec, &[own.as_fd()]).expect("to say it");
    let error = connection.hear().expect_err("a refusal");
    assert_eq!(error.to_string(), "a command in the box comes with two process descriptors");
    assert_eq!(one.end().code(), Some(143));
}

/// A keeper that took any descriptor for a watch would be kept awake by it, and calls that are watched by nobody fail.
fn a_watch_over_calls_is_one_and_for_a_box_that_publishes_all() {
    let lab = Lab::new(Shape::OwnLan);
    let install = || {
        prctl::set_no_new_privs().expect("no new privileges");
        call_watch::install(&[libc::SYS_acct]).expect("a watch")
    };
    // On a thread of its own, which the filter stays on.
    let watch = std::thread::spawn(install).join().expect("a watch");
    for (options, calls, expected) in [
        (&["--name", "web"][..], watch.as_fd(), Some("nobody watches what listens in the box")),
        (&["--name", "web", "-P"], pidfd(std::process::id()).as_fd(), Some("it is no watch over calls")),
        (&["--name", "web", "-P"], watch.as_fd(), None),
    ] {
        let one = lab.start(options, &["sleep"]);
        let (connection, guest) = (connect("web"), Guest::of("web"));
        let (own, command) = (pidfd(std::process::id()), pidfd(guest.pid()));
        let error = connection.register(own.as_fd(), command.as_fd(), Some(calls), own.as_fd()).err();
        let told = error.as_ref().map(ToString::to_string).unwrap_or_default();
        assert_eq!(error.is_some(), expected.is_some(), "{told}");
        assert!(told.ends_with(expected.unwrap_or_default()), "{told}");
        assert_eq!(one.end().code(), Some(143));
        if expected.is_none() {
            guest.assert_killed_soon();
        }
    }
}

/// One that was started before netbox was replaced.
fn a_later_netbox_is_told_that_the_keeper_is_older() {
    let lab = Lab::new(Shape::OwnLan);
    let _one = lab.start(&["--name", "web"], &["sleep"]);
    drop(connect("web"));
    let later = stranger("web");
    later.send(&serde_json::json!({"protocol": 77, "request": {"Dance": 3}}), &[]).expect("to say it");
    let answer: Answer = later.receive().expect("an answer").expect("an answer").message;
    let Answer::Unknown { protocol, version } = answer else { panic!("{answer:?}") };
    assert_eq!((protocol, version.as_str()), (1, env!("CARGO_PKG_VERSION")));
}

/// The keeper has one thread.
fn clients_that_say_nothing_or_garbage_or_do_not_read_disturb_nobody() {
    let lab = Lab::new(Shape::OwnLan);
    let one = lab.start(&["--name", "web", "-p", "8080:80"], &["listen", "tcp", "0.0.0.0:80"]);
    drop(connect("web"));
    let descriptors = || {
        let keeper = find(&reference("web")).expect("a living box").record.keeper_pid;
        std::fs::read_dir(format!("/proc/{keeper}/fd")).expect("the keeper").count()
    };
    let before = descriptors();
    let silent: Vec<_> = (0..200).map(|_| stranger("web")).collect();
    for text in
        ["", "null", "{\"protocol\":1,\"request\":\"Nothing\"}", "{\"protocol\":1,\"request\":\"Ended\"}"]
    {
        let client = stranger("web");
        let raw: Result<serde_json::Value, _> = serde_json::from_str(text);
        client.send(&raw.unwrap_or_default(), &[client.as_fd(), client.as_fd()]).expect("to send");
        assert!(client.receive::<Answer>().expect("an end").is_none(), "{text}");
    }
    let deaf = stranger("web");
    // Until it is closed.
    let foreign = serde_json::json!({"protocol": 2});
    assert!((0..1_000_000).any(|_| deaf.send(&foreign, &[]).is_err()));
    // Whoever asks for something is served.
    let waiting: Vec<_> = (0..3).map(|_| connect("web")).collect();
    for one in &waiting {
        one.say(Request::Wait, &[]).expect("to say it");
    }
    drop((silent, deaf));
    wait_until("the descriptors are closed", || descriptors() <= before + waiting.len());
    assert_eq!(one.end().code(), Some(143));
    for one in &waiting {
        assert_eq!(one.hear(), Ok(Some(Answer::Ended(143))));
    }
}

/// So many at a time, and who comes then is told why it is not served.
fn who_finds_no_room_is_told_so() {
    let lab = Lab::new(Shape::OwnLan);
    let one = lab.start(&["--name", "web"], &["sleep"]);
    let wait = || {
        let connection = connect("web");
        // Before the keeper hears it, another may have its place.
        let _ = connection.say(Request::Wait, &[]);
        connection
    };
    let mut waiting: Vec<_> = (0..256).map(|_| wait()).collect();
    let enter = || lab.netbox(&["exec", "web", "--", "true"]).output().expect("netbox");
    let expected = "netbox: too many netbox commands are connected to the box\n\
                    hint: try again when one of them has ended\n";
    wait_until("there is no room", || {
        let output = enter();
        if output.status.success() {
            waiting.push(wait());
            return false;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((said.as_ref(), output.status.code()), (expected, Some(125)));
        true
    });
    drop(waiting);
    wait_until("there is room again", || enter().status.success());
    assert_eq!(one.end().code(), Some(143));
}

/// `netbox wait`, started; it has asked the keepers when this returns.
fn waiting(lab: &Lab, names: &[&str]) -> Child {
    let mut command = lab.netbox(&[&["wait"], names].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("netbox can be started");
    // It has as many connections as there are boxes, and sleeps in recvmsg(2).
    let path = format!("/proc/{}/wchan", child.id());
    wait_until("netbox wait waits", || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.contains("unix") || text.contains("skb"))
    });
    child
}

fn end_of(child: Child) -> Output {
    child.wait_with_output().expect("our child")
}

fn assert_ended(child: Child, status: i32) {
    let output = end_of(child);
    assert_eq!(output.status.code(), Some(status), "{}", words(&output));
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{}", words(&output));
}

/// R2.
fn who_waits_for_a_box_ends_as_it_did() {
    let lab = Lab::new(Shape::OwnLan);
    for (options, signal, status) in [
        (&["--name", "web"][..], Some(Signal::SIGINT), 130),
        (&["--name", "web", "--net", "none"], Some(Signal::SIGTERM), 143),
        (&["--name", "web", "--net", "host"], Some(Signal::SIGTERM), 143),
        (&["--name", "web", "--timeout", "300ms"], None, 124),
    ] {
        let mut one = lab.start(options, &["sleep"]);
        let child = waiting(&lab, &["web"]);
        signal.into_iter().for_each(|signal| one.signal(signal));
        assert_ended(child, status);
        assert_eq!(one.wait().code(), Some(status));
    }
    // Its own status, of a box that is asked at once: it has lived for no tenth of a second.
    let mut one = lab.start(&["--name", "web"], &["signals"]);
    let id = find(&reference("web")).expect("a living box").record.id;
    let child = waiting(&lab, &[&id]);
    one.signal(Signal::SIGUSR2);
    assert_ended(child, 0);
    assert!(one.wait().success());
}

/// Each has its own connection.
fn many_wait_and_one_that_is_killed_takes_nobody_along() {
    let lab = Lab::new(Shape::OwnLan);
    let one = lab.start(&["--name", "web"], &["sleep"]);
    let all: Vec<_> = (0..4).map(|_| waiting(&lab, &["web"])).collect();
    let mut killed = waiting(&lab, &["web"]);
    killed.kill().expect("our child");
    killed.wait().expect("our child");
    one.end();
    all.into_iter().for_each(|child| assert_ended(child, 143));
}

/// Whichever ends first.
fn several_boxes_are_waited_for_and_the_last_one_counts() {
    let lab = Lab::new(Shape::OwnLan);
    let (a, mut b) = (lab.start(&["--name", "a"], &["sleep"]), lab.start(&["--name", "b"], &["sleep"]));
    let (both, other) = (waiting(&lab, &["a", "b"]), waiting(&lab, &["b", "a"]));
    b.signal(Signal::SIGINT);
    b.wait();
    let mut other = other;
    assert!(other.try_wait().expect("our child").is_none(), "it waits for a");
    assert_eq!(a.end().code(), Some(143));
    assert_ended(both, 130);
    assert_ended(other, 143);
}

/// L2.
fn a_box_that_is_killed_or_loses_its_keeper_is_waited_for() {
    let lab = Lab::new(Shape::OwnLan);
    let mut one = lab.start(&["--name", "web"], &["sleep"]);
    let child = waiting(&lab, &["web"]);
    one.signal(Signal::SIGKILL);
    one.wait();
    assert_ended(child, 137);
    lab.assert_clean_within(Duration::from_secs(5));

    let mut one = lab.start(&["--name", "web"], &["sleep"]);
    let child = waiting(&lab, &["web"]);
    let keeper = find(&reference("web")).expect("a living box").record.keeper_pid;
    send(keeper.cast_unsigned(), Signal::SIGKILL);
    assert_eq!(one.wait().code(), Some(125));
    let output = end_of(child);
    assert_eq!(output.status.code(), Some(125), "{}", words(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot tell how box web ended: its keeper was killed"), "{said}");
}

/// Before any box is waited for.
fn what_cannot_be_waited_for_is_an_error() {
    let lab = Lab::new(Shape::OwnLan);
    let one = lab.start(&["--name", "web"], &["sleep"]);
    let output =
        end_of(lab.netbox(&["wait", "web", "nobody"]).stderr(Stdio::piped()).spawn().expect("netbox"));
    assert_eq!(output.status.code(), Some(125), "{}", words(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no box nobody"), "{}", words(&output));
    for wrong in [&["wait"][..], &["wait", "a/b"], &["wait", "--help=3"]] {
        assert_eq!(lab.netbox(wrong).stderr(Stdio::null()).status().expect("netbox").code(), Some(2));
    }
    // One whose keeper does not answer in time.
    let keeper = find(&reference("web")).expect("a living box").record.keeper_pid.cast_unsigned();
    send(keeper, Signal::SIGSTOP);
    let child = waiting(&lab, &["web"]);
    send(keeper, Signal::SIGCONT);
    one.end();
    assert_ended(child, 143);
}
