//! Looking at boxes from outside: `inspect`, `ps`, `port ls`, `pids`, `identify`.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::lab::{
    ECHO, Lab, NETBOX, Place, RunningBox, Shape, WAN, find_within, live_tests, probe, running, words,
};

live_tests![
    a_box_is_inspected_as_the_kernel_has_it,
    a_box_without_a_link_has_nulls_in_its_place,
    a_part_of_an_inspection_is_printed_by_its_pointer,
    boxes_are_listed_as_far_as_they_fit,
    ports_are_listed_for_one_box_and_for_all,
    the_processes_of_a_box_are_its_own_and_those_that_entered_it,
    a_box_with_the_hosts_network_has_its_descendants,
    a_process_is_known_by_its_box,
];

/// What netbox prints, which goes well.
fn said(lab: &Lab, arguments: &[&str]) -> String {
    let output = tried(lab, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", words(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn tried(lab: &Lab, arguments: &[&str]) -> Output {
    lab.netbox(arguments).output().expect("netbox can be started")
}

fn inspected(lab: &Lab, name: &str) -> Value {
    let mut all: Value = serde_json::from_str(&said(lab, &["inspect", name])).expect("JSON");
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    all[0].take()
}

/// The inode of a namespace of a process.
fn inode(pid: u32, kind: &str) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).expect("the process lives").ino()
}

fn a_box_is_inspected_as_the_kernel_has_it() {
    let lab = Lab::new(Shape::OwnLan);
    let options = ["--name", "web", "-p", "8080:80", "--mtu", "1400", "--mac", "02:00:5e:10:00:01"];
    let in_box = lab.start(&options, &["listen", "tcp", "0.0.0.0:80"]);
    let other = lab.start(&[], &["sleep"]);
    let seen = inspected(&lab, "web");
    assert_eq!(seen["pids"]["launcher"], in_box.launcher());
    assert_eq!(seen["pids"]["command"], in_box.pid);
    for kind in ["net", "mnt", "pid", "uts", "ipc", "user"] {
        assert_eq!(seen["namespaces"][kind], inode(in_box.pid, kind), "{kind}");
    }
    assert_eq!(seen["addresses"]["ipv4"], in_box.address.to_string());
    assert_eq!(seen["addresses"]["ipv6"], in_box.address6.expect("an address").to_string());
    assert_eq!((&seen["mtu"], &seen["mac"]), (&1400.into(), &"02:00:5e:10:00:01".into()));
    assert_eq!(seen["ports"].as_array().map(Vec::len), Some(2), "{seen}");

    let index =
        |path: String| -> u64 { fs::read_to_string(path).expect("sysfs").trim().parse().expect("a number") };
    let (host, gateway, inside) =
        (&seen["interfaces"]["host"], &seen["interfaces"]["gateway"], &seen["interfaces"]["box"]);
    let name = host["name"].as_str().expect("a name");
    assert_eq!(host["index"], index(format!("/sys/class/net/{name}/ifindex")));
    assert_eq!(host["peer_index"], index(format!("/sys/class/net/{name}/iflink")));
    let of_box = |file: &str| index(format!("/proc/{}/root/sys/class/net/eth0/{file}", in_box.pid));
    assert_eq!(
        (&inside["index"], &inside["peer_index"]),
        (&of_box("ifindex").into(), &of_box("iflink").into())
    );
    assert_eq!((&gateway["index"], &gateway["peer_index"]), (&inside["peer_index"], &inside["index"]));
    assert_eq!(gateway["name"], format!("nb{}", seen["id"].as_str().expect("an id")));

    assert!(in_box.inside(|| probe::udp(SocketAddr::from((WAN, ECHO)))).reached());
    let after = inspected(&lab, "web");
    for counter in ["packets_in", "packets_out", "bytes_in", "bytes_out"] {
        let count = |of: &Value| of["counters"][counter].as_u64().expect("a number");
        assert!(count(&after) > count(&seen), "{counter}: {after}");
    }
    drop((in_box, other));
}

fn a_box_without_a_link_has_nulls_in_its_place() {
    let lab = Lab::new(Shape::OwnLan);
    for net in ["none", "host"] {
        let in_box = lab.start(&["--name", net, "--net", net], &["sleep"]);
        let seen = inspected(&lab, net);
        assert_eq!((&seen["net"], &seen["pids"]["command"]), (&net.into(), &in_box.pid.into()));
        assert_eq!(seen["namespaces"]["net"], inode(in_box.pid, "net"));
        for pointer in ["/interfaces/host", "/interfaces/box", "/addresses/ipv4", "/mtu", "/counters"] {
            assert_eq!(seen.pointer(pointer), Some(&Value::Null), "{net} {pointer}");
        }
    }
}

/// R2: and what is not there is an error.
fn a_part_of_an_inspection_is_printed_by_its_pointer() {
    let lab = Lab::new(Shape::OwnLan);
    let (web, db) = (lab.start(&["--name", "web"], &["sleep"]), lab.start(&["--name", "db"], &["sleep"]));
    let part = |pointer: &str| said(&lab, &["inspect", "--format", pointer, "web", "db"]);
    assert_eq!(part("/0/addresses/ipv4"), format!("{}\n", web.address));
    assert_eq!(part("/1/name"), "db\n");
    assert_eq!(part("/1/pids/command"), format!("{}\n", db.pid));
    assert_eq!(part("/0/ports"), "[]\n");
    for (arguments, cause) in [
        (&["inspect", "--format", "/2/name", "web", "db"][..], "nothing at /2/name"),
        (&["inspect", "web", "nobody"], "no box nobody"),
    ] {
        let output = tried(&lab, arguments);
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(125), &b""[..]), "{}", words(&output));
        assert!(words(&output).contains(cause), "{}", words(&output));
    }
    drop((web, db));
}

fn boxes_are_listed_as_far_as_they_fit() {
    let lab = Lab::new(Shape::OwnLan);
    let web = lab.start(&["--name", "web-1"], &["sleep"]);
    let db = lab.start(&["--name", "db-1", "--net", "none"], &["sleep"]);
    let id = |name: &str| said(&lab, &["inspect", "--format", "/0/id", name]);
    let (web_id, db_id) = (id("web-1"), id("db-1"));
    let listed = |filters: &[&str]| said(&lab, &[&["ps", "-q"], filters].concat());
    assert_eq!(listed(&[]), format!("{web_id}{db_id}"));
    assert_eq!(listed(&["--filter", "name=eb"]), web_id);
    assert_eq!(listed(&["--filter", "net=none"]), db_id);
    assert_eq!(listed(&["--filter", &format!("id={}", web_id.trim()), "--filter", "net=none"]), "");
    let table = said(&lab, &["ps", "--filter", "name=db"]);
    assert!(table.contains("db-1") && !table.contains("web-1"), "{table}");
    drop((web, db));
}

fn ports_are_listed_for_one_box_and_for_all() {
    let lab = Lab::new(Shape::OwnLan);
    let options = ["--name", "web", "-p", "8080:80", "-p", "192.0.2.1:5353:53/udp"];
    let web = lab.start(&options, &["sleep"]);
    let db = lab.start(&["--name", "db", "-p", "127.0.0.1:5432:5432"], &["sleep"]);
    let of_web = "53/udp -> 192.0.2.1:5353\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n";
    assert_eq!(said(&lab, &["port", "ls", "web"]), of_web);
    // docker port web 80
    assert_eq!(said(&lab, &["port", "ls", "web", "80"]), "0.0.0.0:8080\n[::]:8080\n");
    assert_eq!(said(&lab, &["port", "ls", "web", "53/udp"]), "192.0.2.1:5353\n");
    for port in ["53", "80/udp", "8080"] {
        let output = tried(&lab, &["port", "ls", "web", port]);
        assert_eq!(output.status.code(), Some(125), "{port}: {}", words(&output));
        assert!(words(&output).contains("of box web is not published"), "{}", words(&output));
    }
    let all: String = of_web.lines().map(|line| format!("web {line}\n")).collect();
    assert_eq!(said(&lab, &["port", "ls"]), all + "db 5432/tcp -> 127.0.0.1:5432\n");
    let json: Value = serde_json::from_str(&said(&lab, &["port", "ls", "--json", "db"])).expect("JSON");
    assert_eq!(
        json,
        serde_json::json!([{
            "id": inspected(&lab, "db")["id"], "name": "db", "protocol": "tcp",
            "host_address": "127.0.0.1", "host_port": 5432, "box_port": 5432,
        }])
    );
    drop((web, db));
}

/// A command with children, one of them an orphan in a session of its own.
const FAMILY: &str = "sleep 1000 & (setsid sleep 1000 &) ; echo ready $$ -; wait";

/// A box with [`FAMILY`].
fn family(lab: &Lab, options: &[&str]) -> RunningBox {
    lab.start_command(
        &mut lab.netbox(&[&["run", "--name", "web"], options, &["--", "/bin/sh", "-c", FAMILY]].concat()),
    )
}

fn pids(lab: &Lab) -> BTreeSet<u32> {
    said(lab, &["pids", "web"]).lines().map(|line| line.parse().expect("a number")).collect()
}

/// Every process with this inode.
fn with_inode(kind: &str, wanted: u64) -> BTreeSet<u32> {
    let all = fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid| fs::metadata(format!("/proc/{pid}/ns/{kind}")).is_ok_and(|file| file.ino() == wanted))
        .collect()
}

/// The processes that are the box's, once all of its family is there.
fn grown(lab: &Lab, number: usize) -> BTreeSet<u32> {
    let what = || format!("{number} processes: {:?}", pids(lab));
    find_within(Duration::from_secs(5), what, || Some(pids(lab)).filter(|found| found.len() >= number))
}

fn the_processes_of_a_box_are_its_own_and_those_that_entered_it() {
    let lab = Lab::new(Shape::OwnLan);
    for (options, number) in [(&["-p", "127.0.0.1:8080:80"][..], 3), (&["--net", "none", "--unshare-pid"], 4)]
    {
        let in_box = family(&lab, options);
        // A helper beside it, the relay.
        let _ = probe::tcp(SocketAddr::from(([127, 0, 0, 1], 8080)));
        let net = inspected(&lab, "web")["namespaces"]["net"].as_u64().expect("an inode");
        let own = grown(&lab, number);
        assert_eq!((own.len(), &own), (number, &with_inode("net", net)), "{options:?}");
        let keeper = inspected(&lab, "web")["pids"]["keeper"].as_u64().expect("a number");
        let place = Place::of(*own.first().expect("a process"));
        let mut visitor = place.run(|| Command::new("/bin/sleep").arg("1000").spawn().expect("sleep(1)"));
        let with_visitor = pids(&lab);
        let json: Vec<u32> = serde_json::from_str(&said(&lab, &["pids", "--json", "web"])).expect("JSON");
        visitor.kill().and_then(|()| visitor.wait()).expect("to end it");
        let expected: BTreeSet<_> = own.iter().copied().chain([visitor.id()]).collect();
        assert_eq!(with_visitor, expected);
        assert_eq!(json, expected.into_iter().collect::<Vec<_>>());
        assert!(!own.contains(&in_box.launcher()) && !own.contains(&u32::try_from(keeper).expect("a pid")));
        in_box.end();
    }
    let output = tried(&lab, &["pids", "web"]);
    assert_eq!(output.status.code(), Some(125), "{}", words(&output));
}

/// And with mounts of its own those that are among them.
fn a_box_with_the_hosts_network_has_its_descendants() {
    let lab = Lab::new(Shape::OwnLan);
    let in_box = family(&lab, &["--net", "host"]);
    let own = grown(&lab, 3);
    assert!(own.len() == 3 && own.contains(&in_box.pid) && !own.contains(&in_box.launcher()), "{own:?}");
    for pid in own {
        assert_eq!(said(&lab, &["identify", &pid.to_string()]), "web\n");
    }
    in_box.end();
    let in_box = family(&lab, &["--net", "host", "--unshare-mount"]);
    assert_eq!(grown(&lab, 3), with_inode("mnt", inode(in_box.pid, "mnt")));
    in_box.end();
}

fn a_process_is_known_by_its_box() {
    let lab = Lab::new(Shape::OwnLan);
    let in_box = family(&lab, &["-p", "127.0.0.1:8080:80"]);
    let other = lab.start(&["--name", "db"], &["sleep"]);
    let _ = probe::tcp(SocketAddr::from(([127, 0, 0, 1], 8080)));
    for pid in grown(&lab, 3) {
        assert_eq!(said(&lab, &["identify", &pid.to_string()]), "web\n");
    }
    assert_eq!(said(&lab, &["identify", &other.pid.to_string()]), "db\n");
    // The launcher, the keeper and its helpers are in none, and neither is this test.
    let netboxes = running(NETBOX);
    assert!(netboxes.len() >= 5, "{netboxes:?}");
    for pid in netboxes.into_iter().chain([1, std::process::id()]) {
        assert_eq!(said(&lab, &["identify", &pid.to_string()]), "", "{pid}");
    }
    assert_eq!(said(&lab, &["identify"]), "");
    // In the box the host's boxes are those of another network namespace.
    assert_eq!(in_box.inside(|| said(&lab, &["identify"])), "web\n");
    let pid = in_box.pid.to_string();
    in_box.end();
    let output = tried(&lab, &["identify", &pid]);
    assert_eq!(output.status.code(), Some(125), "{}", words(&output));
    assert!(words(&output).contains(&format!("no process {pid}")), "{}", words(&output));
    drop(other);
}
