//! Boxes and ip-netns(8): `--export-netns`, `--net netns:…`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use crate::lab::{
    Lab, NAMES, NETBOX, Place, RunningBox, Shape, WAN, live_tests, running, send, use_names, words,
};

live_tests![
    a_box_is_visible_under_its_name_for_as_long_as_it_lives,
    a_name_asked_for_is_the_boxs,
    a_name_that_is_taken_is_refused_and_left_alone,
    a_name_is_gone_however_the_box_ends,
    what_somebody_else_put_in_its_place_is_left_alone,
    a_box_apart_keeps_no_other_alive,
    ip_netns_works_with_a_box,
    a_command_runs_in_a_namespace_that_is_there_and_changes_nothing,
    a_box_in_a_namespace_that_is_there_ends_as_any_other,
    files_of_a_namespace_are_put_over_those_of_the_host,
    what_is_no_network_namespace_is_refused,
];

const NO_DATA: Option<&str> = None;

/// A host on which `ip netns` was used before: it leaves the directory, a mount of its own.
fn lab() -> Lab {
    Lab::before(Shape::OwnLan, use_names)
}

fn names() -> Vec<String> {
    let all = fs::read_dir(NAMES).expect("the names").flatten();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn is_network_of(name: &str, in_box: &RunningBox) -> bool {
    let of = |path: String| fs::metadata(path).map(|found| (found.dev(), found.ino())).expect("a namespace");
    of(format!("{NAMES}/{name}")) == of(format!("/proc/{}/ns/net", in_box.pid))
}

fn failed(output: &Output, because: &str) {
    assert_eq!(output.status.code(), Some(125), "{}", words(output));
    assert!(words(output).contains(because), "{}", words(output));
}

/// L1: gone when netbox returns.
fn a_box_is_visible_under_its_name_for_as_long_as_it_lives() {
    let lab = lab();
    for net in ["nat", "none"] {
        let in_box = lab.start(&["--name", "web", "--net", net, "--export-netns"], &["sleep"]);
        assert_eq!(names(), ["web"]);
        assert!(is_network_of("web", &in_box));
        in_box.end();
        assert_eq!(names(), Vec::<String>::new());
    }
    // The link is gone as soon as that of any other box.
    lab.assert_clean_within(Duration::from_secs(1));
}

/// Its id where it has no name and none is asked for.
fn a_name_asked_for_is_the_boxs() {
    let lab = lab();
    let one = lab.start(&["--name", "web", "--export-netns=a b"], &["sleep"]);
    assert!(is_network_of("a b", &one));
    let other = lab.start(&["--export-netns"], &["sleep"]);
    let id = names().into_iter().find(|name| name != "a b").expect("another name");
    assert!(id.len() == 8 && is_network_of(&id, &other), "{id}");
    one.end();
    other.end();
}

/// L3: be it a file, a namespace or another box.
fn a_name_that_is_taken_is_refused_and_left_alone() {
    let lab = lab();
    fs::write(format!("{NAMES}/web"), "").expect("a file");
    failed(&lab.run(&["--export-netns=web"], &["exit", "0"]), "/run/netns/web is there already");
    // Known only when the box has its id.
    failed(&lab.run(&["--name", "web", "--export-netns"], &["exit", "0"]), "/run/netns/web is there already");
    assert_eq!(names(), ["web"]);
    fs::remove_file(format!("{NAMES}/web")).expect("to remove it");
    let in_box = lab.start(&["--name", "web", "--export-netns"], &["sleep"]);
    failed(&lab.run(&["--export-netns=web"], &["exit", "0"]), "/run/netns/web is there already");
    assert!(is_network_of("web", &in_box));
    in_box.end();
}

/// L2: a killed launcher, a killed keeper, and everything at once.
fn a_name_is_gone_however_the_box_ends() {
    let lab = lab();
    let start = || lab.start(&["--name", "web", "--export-netns"], &["sleep"]);
    let keeper_of = |in_box: &RunningBox| {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", in_box.launcher()));
        children.expect("its children").trim().parse().expect("one child")
    };
    let mut without_launcher = start();
    send(without_launcher.launcher(), Signal::SIGKILL);
    without_launcher.wait();
    lab.assert_clean_within(Duration::from_secs(1));
    let mut without_keeper = start();
    send(keeper_of(&without_keeper), Signal::SIGKILL);
    assert_eq!(without_keeper.wait().code(), Some(125));
    assert_eq!(names(), Vec::<String>::new());
    let mut without_both = start();
    for pid in running(NETBOX) {
        send(pid, Signal::SIGSTOP);
    }
    for pid in running(NETBOX) {
        send(pid, Signal::SIGKILL);
    }
    without_both.wait();
    assert_eq!(names(), ["web"]);
    assert!(lab.netbox(&["gc"]).status().expect("netbox").success());
    assert_eq!(names(), Vec::<String>::new());
    lab.assert_clean_within(Duration::from_secs(1));
}

/// L3: after `ip netns delete`, and when the box was killed with all of netbox.
fn what_somebody_else_put_in_its_place_is_left_alone() {
    let lab = lab();
    let path = format!("{NAMES}/web");
    for killed in [false, true] {
        let mut in_box = lab.start(&["--name", "web", "--export-netns"], &["sleep"]);
        umount2(path.as_str(), MntFlags::MNT_DETACH).expect("to unmount it");
        fs::remove_file(&path).expect("to remove it");
        let other = Place::new();
        fs::write(&path, "").expect("a file");
        mount(Some(other.path().as_str()), path.as_str(), NO_DATA, MsFlags::MS_BIND, NO_DATA)
            .expect("a mount");
        let before = fs::metadata(&path).expect("a namespace").ino();
        if killed {
            let all = running(NETBOX);
            all.iter().for_each(|pid| send(*pid, Signal::SIGSTOP));
            all.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
            in_box.wait();
            assert!(lab.netbox(&["gc"]).status().expect("netbox").success());
        } else {
            in_box.end();
        }
        assert_eq!(fs::metadata(&path).expect("it is left alone").ino(), before);
        umount2(path.as_str(), MntFlags::empty()).expect("to unmount it");
        fs::remove_file(&path).expect("to remove it");
        // A file of somebody else's.
        fs::write(&path, "").expect("a file");
        fs::remove_file(&path).expect("to remove it");
    }
}

/// L1: whose copy of the host's mounts nobody changes any more.
fn a_box_apart_keeps_no_other_alive() {
    let lab = lab();
    let exported = lab.start(&["--name", "web", "--export-netns"], &["sleep"]);
    let kept = |in_box: &RunningBox| {
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", in_box.pid)).expect("its mounts");
        mounts.lines().filter(|line| line.contains(" /run/netns/web ")).count()
    };
    let apart = lab.start(&["--unshare-mount"], &["sleep"]);
    let other = lab.start(&[], &["sleep"]);
    assert_eq!((kept(&apart), kept(&other)), (0, 1));
    exported.end();
    assert_eq!((kept(&apart), kept(&other)), (0, 0));
    apart.end();
    other.end();
}

/// With the real program, where it is.
fn ip_netns_works_with_a_box() {
    if std::env::var("NETBOX_PEERS").as_deref() != Ok("1") {
        println!("not tested: NETBOX_PEERS is not 1");
        return;
    }
    let lab = Lab::before(Shape::OwnLan, || {});
    let in_box = lab.start(&["--name", "web", "--export-netns"], &["sleep"]);
    let ip = |words: &[&str]| {
        let output = Command::new("ip").args(words).output().expect("ip(8) is needed");
        assert!(output.status.success(), "{words:?}: {}", crate::lab::words(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(ip(&["netns", "list"]).starts_with("web"));
    let address = in_box.address.to_string();
    assert!(ip(&["netns", "exec", "web", "ip", "-4", "address"]).contains(&address));
    assert!(ip(&["-n", "web", "route", "get", &WAN.to_string()]).contains("eth0"));
    assert_eq!(ip(&["netns", "identify", &in_box.pid.to_string()]).trim(), "web");
    assert_eq!(ip(&["netns", "pids", "web"]).trim(), in_box.pid.to_string());
    // What ip adds beside it is not netbox's.
    ip(&["netns", "add", "other"]);
    in_box.end();
    assert_eq!(ip(&["netns", "list"]).trim(), "other");
    ip(&["netns", "delete", "other"]);
    // As ip leaves it.
    umount2(NAMES, MntFlags::empty()).expect("one mount of its own");
    fs::remove_dir(NAMES).expect("an empty directory");
    drop(lab);
}

/// The namespace of the lab's neighbour, with a name for the host.
fn lab_with_blue() -> Lab {
    let lab = lab();
    let path = format!("{NAMES}/blue");
    fs::write(&path, "").expect("a file");
    mount(Some(lab.client_place().path().as_str()), path.as_str(), NO_DATA, MsFlags::MS_BIND, NO_DATA)
        .expect("a mount");
    lab
}

fn end(lab: Lab) {
    let path = format!("{NAMES}/blue");
    umount2(path.as_str(), MntFlags::empty()).expect("nobody holds it");
    fs::remove_file(&path).expect("to remove it");
    drop(lab);
}

/// What netbox sets in a network of its own, and what else a network has.
fn state_of(place: &Place) -> String {
    const FILES: [&str; 7] = [
        "/proc/thread-self/net/route",
        "/proc/thread-self/net/if_inet6",
        "/proc/thread-self/net/fib_trie",
        "/proc/sys/net/ipv4/ping_group_range",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/net/ipv6/conf/default/accept_ra",
    ];
    place.run(|| {
        let links = crate::lab::links::names().join(" ");
        FILES.map(|path| fs::read_to_string(path).unwrap_or_default()).concat() + &links
    })
}

/// I5, R2: by name and by path, with the privileges, mounts and status of any box.
fn a_command_runs_in_a_namespace_that_is_there_and_changes_nothing() {
    let lab = lab_with_blue();
    let before = state_of(lab.client_place());
    let own = lab.start(&["-p", "8080:80"], &["listen", "tcp", "0.0.0.0:80"]);
    let at = format!("{}:8080", lab.host_for_client());
    for net in ["netns:blue", "netns:/run/netns/blue", &format!("netns:{}", lab.client_place().path())] {
        let outcome = crate::lab::outcome(&lab.run(&["--net", net], &["tcp", &at]));
        assert_eq!(outcome.seen_as(), Some(lab.client_address().into()), "{net}: {outcome}");
        let run =
            |words: &[&str]| String::from_utf8_lossy(&lab.run(&["--net", net], words).stdout).into_owned();
        let rights = |status: &str| -> Vec<String> {
            let is_one = |line: &&str| ["Uid", "Cap", "NoNewPrivs"].iter().any(|name| line.starts_with(name));
            status.lines().filter(is_one).map(str::to_owned).collect()
        };
        let plain = String::from_utf8_lossy(&lab.run(&[], &["status"]).stdout).into_owned();
        assert_eq!(rights(&run(&["status"])), rights(&plain));
        assert_eq!(lab.run(&["--net", net], &["exit", "42"]).status.code(), Some(42));
        let listed =
            lab.netbox(&["run", "--net", net, "--", "ls", "/sys/class/net"]).output().expect("netbox");
        let mut links = lab.client(crate::lab::links::names);
        links.sort_unstable();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), links);
    }
    own.end();
    assert_eq!(state_of(lab.client_place()), before);
    end(lab);
}

/// L1, L2: and `netbox exec` joins it.
fn a_box_in_a_namespace_that_is_there_ends_as_any_other() {
    let lab = lab_with_blue();
    let mut in_box = lab.start(&["--name", "b", "--net", "netns:blue"], &["sleep"]);
    assert_eq!(in_box.address, lab.client_address());
    let exec = lab.netbox(&["exec", "b", "--", "readlink", "/proc/self/ns/net"]).output().expect("netbox");
    let link = fs::read_link(format!("/proc/{}/ns/net", in_box.pid)).expect("its network");
    assert_eq!(String::from_utf8_lossy(&exec.stdout).trim(), link.to_string_lossy());
    let listed = lab.netbox(&["ps", "--json"]).output().expect("netbox");
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!((&listed[0]["net"], &listed[0]["ipv4"]), (&"netns:blue".into(), &serde_json::Value::Null));
    send(in_box.launcher(), Signal::SIGKILL);
    in_box.wait();
    end(lab);
}

/// As `ip netns exec` does it, in the box's own mounts alone.
fn files_of_a_namespace_are_put_over_those_of_the_host() {
    let lab = crate::names::lab_with(|| {
        fs::create_dir_all("/etc/netns/blue").expect("a directory");
        fs::write("/etc/resolv.conf", "nameserver 192.0.2.53\n").expect("a file");
        fs::write("/etc/netns/blue/resolv.conf", "nameserver 198.51.100.53\n").expect("a file");
        fs::write("/etc/netns/blue/nowhere.conf", "").expect("a file");
        use_names();
    });
    let path = format!("{NAMES}/blue");
    fs::write(&path, "").expect("a file");
    mount(Some(lab.client_place().path().as_str()), path.as_str(), NO_DATA, MsFlags::MS_BIND, NO_DATA)
        .expect("a mount");
    let output = lab.run(&["--net", "netns:blue"], &["cat", "/etc/resolv.conf"]);
    assert_eq!(output.stdout, b"nameserver 198.51.100.53\n", "{}", words(&output));
    assert!(words(&output).contains("warning: there is no /etc/nowhere.conf"), "{}", words(&output));
    // By a path it has no name.
    let output = lab.run(&["--net", "netns:/run/netns/blue"], &["cat", "/etc/resolv.conf"]);
    assert_eq!(output.stdout, b"nameserver 192.0.2.53\n", "{}", words(&output));
    assert_eq!(fs::read("/etc/resolv.conf").expect("the host's"), b"nameserver 192.0.2.53\n");
    end(lab);
}

/// Before anything is changed; what it is is looked at before it is opened.
fn what_is_no_network_namespace_is_refused() {
    let lab = lab_with_blue();
    let refused = |net: &str| lab.run(&["--net", &format!("netns:{net}")], &["exit", "0"]);
    failed(&refused("green"), "/run/netns/green");
    for path in ["/etc/passwd", "/proc/self/ns/mnt", "/dev/null"] {
        failed(&refused(path), "it is no network namespace");
    }
    failed(&refused("/nowhere/at/all"), "no such file");
    let fifo = "/run/lab/fifo";
    nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    failed(&refused(fifo), "it is no network namespace");
    fs::remove_file(fifo).expect("to remove it");
    failed(
        &lab.run(&["--net", "netns:blue", "--cap-add", "NET_ADMIN"], &["exit", "0"]),
        "cannot give the box these capabilities",
    );
    let wrong = lab.run(&["--net", "netns:blue", "-p", "80"], &["exit", "0"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", words(&wrong));
    end(lab);
}
