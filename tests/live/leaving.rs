//! Nothing is left behind, however a box ends.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use crate::lab::{
    ECHO, HOST_LAN, Lab, NETBOX, PROBE, RunningBox, Shape, WAN, live_tests, probe, running, send, wait_within,
};

live_tests![
    the_host_is_as_before_within_a_tenth_of_a_second,
    a_commands_strays_are_gone_when_netbox_returns,
    daemons_and_stopped_processes_are_gone_when_netbox_returns,
    name_and_port_can_be_used_again_at_once,
    a_hundred_boxes_at_once_from_nothing,
    a_hundred_boxes_of_which_a_third_is_killed,
    the_last_box_of_many_takes_the_gateway_with_it,
    a_run_in_another_network_namespace_touches_nothing_of_this_one,
    a_killed_first_process_ends_the_run,
    a_killed_launcher_takes_its_box_with_it,
    a_killed_keeper_leaves_a_whole_box_or_none,
    a_kill_of_everything_is_swept_by_the_next_command,
    a_state_directory_without_room_is_an_error_and_goes,
    a_machine_without_run_is_an_error,
];

const SERVER: [&str; 3] = ["listen", "tcp", "0.0.0.0:80"];

/// L1. The kernel frees a network namespace when all processors have come by (rcu_barrier), which other tests keep busy:
/// of ten boxes one must be so quick.
fn the_host_is_as_before_within_a_tenth_of_a_second() {
    let lab = Lab::new(Shape::OwnLan);
    let leaves_nothing_soon = || {
        let in_box = lab.start(&["-p", "8080:80", "-p", "127.0.0.1:9090:80"], &SERVER);
        assert!(lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN, 8080)))).reached());
        assert!(in_box.inside(|| probe::tcp(SocketAddr::from((WAN, ECHO)))).reached());
        in_box.end();
        let ended = Instant::now();
        lab.assert_clean_within(Duration::from_secs(10));
        ended.elapsed() <= Duration::from_millis(100)
    };
    assert!((0..10).any(|_| leaves_nothing_soon()));
    let left = || std::fs::read_dir("/run/netbox/0").expect("the user's directory").count();
    wait_within(Duration::from_secs(2), "the host's state directory goes too", || left() == 0);
}

/// L1: what the command left running in the background.
fn a_commands_strays_are_gone_when_netbox_returns() {
    let lab = Lab::new(Shape::OwnLan);
    let output = lab.run(&[], &["leave-a-child"]);
    assert_eq!(output.status.code(), Some(7), "{}", crate::lab::words(&output));
    assert_eq!(running(PROBE), Vec::<u32>::new());
}

/// L1: in sessions of their own, ignoring what can be ignored, orphaned, stopped.
fn daemons_and_stopped_processes_are_gone_when_netbox_returns() {
    let lab = Lab::new(Shape::OwnLan);
    let script = "(setsid /bin/sh -c 'trap \"\" TERM HUP INT; exec sleep 1000' &) >/dev/null 2>&1; \
                  sleep 1000 & kill -STOP $!; (trap '' TERM HUP; sleep 1000) & exit 7";
    for options in [&[][..], &["--unshare-pid"], &["--net", "host"], &["--net", "host", "--unshare-pid"]] {
        let arguments = [&["run"], options, &["--", "/bin/sh", "-c", script]].concat();
        let output = lab.netbox(&arguments).stdout(std::process::Stdio::null()).output().expect("netbox");
        assert_eq!(output.status.code(), Some(7), "{}", crate::lab::words(&output));
        // The keeper may still be there, and has the script among its arguments; or it has just died.
        let left = lab.difference();
        let is_keeper = |line: &str| line.contains(NETBOX) || line.contains("Z (zombie)");
        let stray = left.lines().find(|line| line.contains(" process: ") && !is_keeper(line));
        assert_eq!(stray, None, "{options:?}");
    }
}

/// L1: by a run that starts when the last has returned.
fn name_and_port_can_be_used_again_at_once() {
    let lab = Lab::new(Shape::OwnLan);
    for _ in 0..5 {
        let in_box = lab.start(&["--name", "web", "-p", "8080:80"], &SERVER);
        assert!(lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN, 8080)))).reached());
        in_box.end();
    }
}

fn a_hundred(lab: &Lab) -> Vec<RunningBox> {
    let boxes: Vec<RunningBox> = thread::scope(|scope| {
        let starts: Vec<_> = (0..100).map(|_| scope.spawn(|| lab.start(&[], &["sleep"]))).collect();
        starts.into_iter().map(|start| start.join().expect("a box")).collect()
    });
    let addresses: BTreeSet<Ipv4Addr> = boxes.iter().map(|in_box| in_box.address).collect();
    assert_eq!(addresses.len(), 100, "{addresses:?}");
    boxes
}

fn assert_each_has_a_way_out(boxes: &[RunningBox]) {
    for in_box in boxes {
        let outcome = in_box.inside(|| probe::udp(SocketAddr::from((WAN, ECHO))));
        assert!(outcome.reached(), "{}: {outcome}", in_box.address);
    }
}

fn end_at_once(boxes: Vec<RunningBox>) {
    thread::scope(|scope| {
        for in_box in boxes {
            scope.spawn(|| in_box.end());
        }
    });
}

/// L1, C2: each with an address of its own and a way out; all gone at the end, and the gateway with them.
fn a_hundred_boxes_at_once_from_nothing() {
    let lab = Lab::new(Shape::OwnLan);
    let boxes = a_hundred(&lab);
    assert_each_has_a_way_out(&boxes);
    end_at_once(boxes);
}

/// L2: launchers, keepers and first processes, while the others live and end. Those that are left lose nothing.
fn a_hundred_boxes_of_which_a_third_is_killed() {
    let lab = Lab::new(Shape::OwnLan);
    let mut boxes = a_hundred(&lab);
    let mut victims = Vec::new();
    for place in (0..33).map(|n| n * 2) {
        // Every third from what is left, in an order that is always the same.
        let victim = boxes.swap_remove(place * 7 % boxes.len());
        victims.push((victim, place / 2));
    }
    thread::scope(|scope| {
        let killing = scope.spawn(|| {
            for (victim, number) in &victims {
                let pid = match number % 3 {
                    0 => victim.launcher(),
                    1 => parent_of(victim.pid),
                    _ => victim.pid,
                };
                send(pid, Signal::SIGKILL);
            }
        });
        assert_each_has_a_way_out(&boxes);
        killing.join().expect("the kills");
    });
    for (victim, _) in &mut victims {
        victim.wait();
    }
    assert_each_has_a_way_out(&boxes);
    end_at_once(boxes);
}

/// The parent of a process: a keeper is its command's.
fn parent_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let after_name = stat.rsplit(") ").next().expect("proc_pid_stat(5)");
    after_name.split(' ').nth(1).and_then(|ppid| ppid.parse().ok()).expect("its parent")
}

/// L1: and not an earlier one.
fn the_last_box_of_many_takes_the_gateway_with_it() {
    let lab = Lab::new(Shape::OwnLan);
    let (first, second) = (lab.start(&[], &["sleep"]), lab.start(&[], &["sleep"]));
    first.end();
    let outcome = second.inside(|| probe::tcp(SocketAddr::from((WAN, ECHO))));
    assert!(outcome.reached(), "the box that did not make the gateway: {outcome}");
}

/// L3: though both find the same /run.
fn a_run_in_another_network_namespace_touches_nothing_of_this_one() {
    let lab = Lab::new(Shape::OwnLan);
    let in_box = lab.start(&["-p", "8080:80"], &SERVER);
    for arguments in [&["run", "-p", "8080:80", "--", PROBE, "exit", "0"][..], &["gc"]] {
        let output = lab.client(|| lab.netbox(arguments).output().expect("netbox"));
        assert!(output.status.success(), "{}", crate::lab::words(&output));
    }
    let outcome = in_box.inside(|| probe::tcp(SocketAddr::from((WAN, ECHO))));
    assert!(outcome.reached(), "the box of the other namespace: {outcome}");
    assert!(lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN, 8080)))).reached());
}

/// R2, L1: 137.
fn a_killed_first_process_ends_the_run() {
    let lab = Lab::new(Shape::OwnLan);
    let mut in_box = lab.start(&["-p", "8080:80"], &SERVER);
    send(in_box.pid, Signal::SIGKILL);
    assert_eq!(in_box.wait().code(), Some(137));
}

/// L2: within a second.
fn a_killed_launcher_takes_its_box_with_it() {
    let lab = Lab::new(Shape::OwnLan);
    let mut in_box = lab.start(&["-p", "8080:80"], &SERVER);
    send(in_box.launcher(), Signal::SIGKILL);
    in_box.wait();
    wait_within(Duration::from_secs(1), "the box is dead", || running(PROBE).is_empty());
    lab.assert_clean_within(Duration::from_secs(1));
}

/// L2: and nothing remains of either.
fn a_killed_keeper_leaves_a_whole_box_or_none() {
    let lab = Lab::new(Shape::OwnLan);
    let mut in_box = lab.start(&["-p", "8080:80"], &SERVER);
    let mut keepers = running(NETBOX);
    keepers.retain(|pid| *pid != in_box.launcher());
    assert!(!keepers.is_empty(), "no keeper beside the launcher");
    for keeper in keepers {
        send(keeper, Signal::SIGKILL);
    }
    // The promise's own limit: after it, a box that is there goes on.
    let has_ended = !in_box.goes_on_for(Duration::from_secs(1));
    if has_ended {
        assert_eq!(running(PROBE), [0; 0], "netbox has ended");
        assert_eq!(in_box.wait().code(), Some(125));
    } else {
        let published = lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN, 8080))));
        assert!(published.reached(), "the box goes on without its port: {published}");
        assert!(
            std::net::TcpListener::bind("0.0.0.0:8080").is_err(),
            "the box goes on without holding its port"
        );
        let way_out = in_box.inside(|| probe::tcp(SocketAddr::from((WAN, ECHO))));
        assert!(way_out.reached(), "the box goes on without its way out: {way_out}");
        in_box.end();
    }
}

/// L2: all netbox processes at once; `gc` is a netbox command.
fn a_kill_of_everything_is_swept_by_the_next_command() {
    let lab = Lab::new(Shape::OwnLan);
    let mut in_box = lab.start(&["-p", "8080:80"], &SERVER);
    for pid in running(NETBOX) {
        send(pid, Signal::SIGSTOP);
    }
    for pid in running(NETBOX) {
        send(pid, Signal::SIGKILL);
    }
    in_box.wait();
    let swept = lab.netbox(&["gc"]).output().expect("netbox can be started");
    assert!(swept.status.success(), "{}", crate::lab::words(&swept));
    lab.assert_clean_within(Duration::from_secs(1));
}

const NO_DATA: Option<&str> = None;

/// R2, L1: a /run that is full, at whatever step.
fn a_state_directory_without_room_is_an_error_and_goes() {
    let lab = Lab::new(Shape::OwnLan);
    std::fs::create_dir_all("/run/netbox").expect("a directory");
    let statuses = (1..12).map(|pages| {
        let size = format!("size={}k,mode=755", pages * 4);
        mount(Some("tmpfs"), "/run/netbox", Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .expect("a small file system");
        let output = lab.run(&[], &["exit", "0"]);
        let said = crate::lab::words(&output);
        let end = Instant::now() + Duration::from_secs(3);
        let left = || std::fs::read_dir("/run/netbox/0").map_or(0, Iterator::count);
        while left() > 0 {
            assert!(Instant::now() < end, "{size}: something is left; {said}");
        }
        while umount2("/run/netbox", MntFlags::empty()).is_err() {
            assert!(Instant::now() < end, "{size}: somebody is left; {said}");
        }
        output.status.code().unwrap_or_else(|| panic!("{size}: {said}"))
    });
    let statuses: Vec<_> = statuses.collect();
    let fit = statuses.iter().take_while(|status| **status == 125).count();
    assert!(fit > 0 && statuses[fit..].iter().all(|status| *status == 0), "{statuses:?}");
}

/// R2, L2: said at once, with no process left that tries again.
fn a_machine_without_run_is_an_error() {
    let lab = Lab::new(Shape::OwnLan);
    let root = "/run/lab/root";
    std::fs::create_dir(root).expect("a directory");
    mount(Some("tmpfs"), root, Some("tmpfs"), MsFlags::empty(), NO_DATA).expect("a root");
    for part in ["proc", "dev"] {
        let (there, here) = (format!("/{part}"), format!("{root}/{part}"));
        std::fs::create_dir(&here).expect("a directory");
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(there.as_str()), here.as_str(), NO_DATA, bind, NO_DATA).expect("to mount it");
    }
    std::fs::copy(NETBOX, format!("{root}/netbox")).expect("to copy netbox");
    let mut command = std::process::Command::new("chroot");
    command.args([root, "/netbox", "run", "--net", "none", "--", "/netbox", "--version"]);
    command.stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("chroot(8) is needed");
    let ended = || child.try_wait().expect("to look").is_some();
    wait_within(Duration::from_secs(5), "netbox gives up", ended);
    let output = child.wait_with_output().expect("what it said");
    assert_eq!(output.status.code(), Some(125), "{}", crate::lab::words(&output));
    assert!(crate::lab::words(&output).contains("cannot make /run/netbox"), "{}", crate::lab::words(&output));
    assert_eq!(running(&format!("{root}/netbox")), Vec::<u32>::new());
    umount2(root, MntFlags::MNT_DETACH).expect("to unmount it");
    std::fs::remove_dir(root).expect("to remove it");
    drop(lab);
}
