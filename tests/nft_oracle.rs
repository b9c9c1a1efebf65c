//! What our netlink writes is what the real `nft` makes of the same ruleset's text.
//!
//! Every test runs in private user and network namespaces: it starts itself once more, for that one test,
//! by `unshare`(1), as root and as an ordinary user alike. A machine that forbids those fails the tests.
//! Those that want `nft` run where `NETBOX_PEERS` is 1.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by a panic, and shows its figures"
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Instant;

use netbox::kernel::conntrack::{Conntrack, Selector};
use netbox::kernel::nft::{Batch, Nft};
use netbox::plan::ruleset::{self, Element, Family, PublishedPort, Table};
use netbox::plan::topology::{Ipv6, Topology};
use serde_json::Value;

const INSIDE: &str = "NETBOX_TEST_INSIDE";
const EEXIST: i32 = 17;
const ENOENT: i32 = 2;
const BOX: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 16);
const BOX6: Ipv6Addr = Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 0, 0, 0, 0, 0x10);

/// Whether this is the process inside. If it is not, runs the test `name` there and fails as it does.
fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let output = Command::new("timeout")
        .args(["60", "unshare", "--user", "--map-root-user", "--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("timeout(1) and unshare(1) are needed");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed in its namespaces: {}\n{out}{err}", output.status);
    assert!(out.contains("1 passed"), "{name} did not run in its namespaces\n{out}{err}");
    for (_, figure) in out.lines().filter_map(|line| line.split_once("figure:")) {
        println!("{name}:{figure}");
    }
    false
}

/// Whether tests against other programs are switched on.
fn peers(name: &str) -> bool {
    let on = std::env::var("NETBOX_PEERS").is_ok_and(|value| value == "1");
    if !on {
        println!("{name}: switched off, NETBOX_PEERS is not 1");
    }
    on
}

fn topology() -> Topology {
    let ipv6 = Ipv6::Pool("fd12:3456:789a::/64".parse().unwrap());
    Topology { pool: "100.64.0.0/18".parse().unwrap(), ipv6, number: 7, mtu: 1500 }
}

fn port(host_address: Option<Ipv4Addr>, protocol: u8, host_port: u16, box_port: u16) -> PublishedPort {
    let host_address = host_address.map(IpAddr::V4);
    PublishedPort { host_address, protocol, host_port, target: SocketAddr::from((BOX, box_port)) }
}

fn port6(host_address: Option<&str>, protocol: u8, host_port: u16, box_port: u16) -> PublishedPort {
    let host_address = host_address.map(|address| address.parse().unwrap());
    PublishedPort { host_address, protocol, host_port, target: SocketAddr::from((BOX6, box_port)) }
}

fn ports() -> Vec<PublishedPort> {
    let address = Ipv4Addr::new(192, 0, 2, 1);
    let mut ports = vec![
        port(None, 6, 8080, 80),
        port(Some(address), 17, 53, 5353),
        port(Some(address), 132, 9, 9),
        port6(None, 6, 8080, 80),
        port6(Some("2001:db8::1"), 17, 53, 5353),
        port6(Some("2001:db8::1"), 132, 9, 9),
    ];
    // Ranges, each of them one element.
    for number in 9000..9100 {
        ports.extend([port(None, 6, number, number), port(Some(address), 17, number, number)]);
        ports.extend([port6(None, 17, number, number), port6(Some("2001:db8::1"), 6, number, number)]);
    }
    ports
}

fn host_elements() -> Vec<Element> {
    let mut elements =
        vec![ruleset::switched("eth0"), ruleset::switched("wlp0s20f3"), ruleset::switched6("wlp0s20f3")];
    elements.extend(ruleset::translations(&ports()));
    elements.extend(routed());
    elements.extend(ruleset::leaves_as(BOX.into(), Ipv4Addr::new(192, 0, 2, 1).into()));
    elements.extend(ruleset::leaves_as(BOX6.into(), "2001:db8::1".parse().unwrap()));
    elements
}

fn gateway_elements() -> Vec<Element> {
    let mut elements = vec![
        ruleset::boxes4("nb0123456789abc", BOX),
        ruleset::boxes6("nb0123456789abc", BOX6),
        ruleset::host_address(Ipv4Addr::new(192, 0, 2, 1).into()),
        ruleset::host_address("2001:db8::1".parse().unwrap()),
        ruleset::asks(BOX, "169.254.64.16".parse().unwrap()),
        ruleset::internal("br01234567"),
    ];
    elements.extend(routed());
    elements.extend(ruleset::known_outside_as("10.9.0.7".parse().unwrap(), BOX.into()).unwrap());
    elements.extend(ruleset::known_outside_as("fd09::7".parse().unwrap(), BOX6.into()).unwrap());
    elements.extend(ruleset::translations(&ports()));
    elements.extend(ruleset::admissions(&ports()));
    elements
}

fn routed() -> Vec<Element> {
    let net = |text: &str| text.parse().unwrap();
    let own = net("10.1.10.0/24");
    let others =
        ["10.1.0.0/16", "10.3.0.7/32", "172.16.0.0/12"].map(|other| ruleset::reached_by(own, net(other)));
    [ruleset::routed_subnet(own)].into_iter().chain(others).collect()
}

fn bridge_elements() -> Vec<Element> {
    let mac = [2, 0, 0, 0, 0, 7];
    let mut elements = ruleset::port("nb01234567", mac, Ipv4Addr::new(10, 9, 0, 7), 12);
    elements.extend(ruleset::port6("nb01234567", 0x8001, "fd09::7".parse().unwrap(), Some(mac)));
    elements
}

fn filled(tables: &[Table], elements: &[Element]) -> Batch {
    let mut batch = Batch::new();
    for table in tables {
        batch.create_table(table);
    }
    let of_bridges = tables.iter().any(|table| table.family == Family::Bridge);
    for element in elements {
        batch.add_element(if of_bridges { Family::Bridge } else { Family::Inet }, "netbox", element);
    }
    batch
}

/// Runs a shell script, in a network namespace of its own if `fresh`, and returns what it printed.
fn shell(fresh: bool, script: &str, input: &str) -> String {
    let mut command = Command::new(if fresh { "unshare" } else { "env" });
    command.args(if fresh { ["--net", "sh"] } else { ["--", "sh"] }).args(["-ec", script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

const LINK: &str = "ip link add nb7 type veth peer name peer0;";
const LIST: &str = "nft list ruleset; nft -j list ruleset";

fn same_as_nft(tables: &[Table], elements: &[Element]) {
    let text = ruleset::to_text(tables, elements);
    let theirs = shell(true, &format!("{LINK} nft -f -; {LIST}"), &text);
    shell(false, LINK, "");
    Nft::open().unwrap().commit(filled(tables, elements)).unwrap();
    let ours = shell(false, LIST, "");
    assert!(ours.contains("chain"), "nft listed no rules:\n{ours}");
    same_lines(&ours, &theirs);
    if elements.is_empty() {
        same_lines(&text, &shell(false, "nft list ruleset", ""));
    }
}

/// That the ruleset's JSON makes the same of an empty namespace as netlink does.
///
/// In four steps, for what nft 1.0.6 does not read from JSON: a table's comment, what a timeout's policy is, a map to
/// concatenated values, and that a set is dynamic, which it sees only from rules that come with it.
fn same_from_json(tables: &[Table], elements: &[Element]) {
    let part = |sets: bool| {
        let mut document = ruleset::to_json(tables, elements).unwrap();
        document["nftables"].as_array_mut().unwrap().retain(|object| {
            let object = &object["add"];
            let early = object.get("table").or(object.get("set")).is_some();
            early == sets
                && !object["map"]["map"].is_array()
                && !object["set"]["name"].as_str().is_some_and(|name| name.starts_with("conns"))
        });
        document
    };
    let bare =
        |table: &Table| Table { sets: Vec::new(), maps: Vec::new(), chains: Vec::new(), ..table.clone() };
    let named = ruleset::to_text(&tables.iter().map(bare).collect::<Vec<_>>(), &[]);
    let with_maps = |table: &Table| {
        let dynamic = table.sets.iter().copied().filter(|set| set.dynamic).collect();
        Table { timeouts: Vec::new(), sets: dynamic, maps: table.maps.clone(), ..bare(table) }
    };
    let maps = ruleset::to_text(&tables.iter().map(with_maps).collect::<Vec<_>>(), &[]);
    let early = part(true);
    let script = format!(
        "{LINK} nft -f - <<'END'\n{named}END\nnft -j -f - <<'END'\n{early}\nEND\n\
         nft -f - <<'END'\n{maps}END\nnft -j -f -; {LIST}"
    );
    let theirs = shell(true, &script, &part(false).to_string());
    shell(false, LINK, "");
    Nft::open().unwrap().commit(filled(tables, elements)).unwrap();
    let ours = shell(false, LIST, "");
    assert!(ours.contains("chain"), "nft listed no rules:\n{ours}");
    same_lines(&ours, &theirs);
    same_rules(&ruleset::to_json(tables, elements).unwrap(), &shell(false, "nft -j list ruleset", ""));
}

/// That the document has the rules and timeouts as nft lists them.
fn same_rules(document: &Value, listed: &str) {
    let listed: Value = serde_json::from_str(listed).unwrap();
    let rules = |document: &Value| -> BTreeMap<[String; 3], Vec<Value>> {
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for object in document["nftables"].as_array().unwrap() {
            let Some(rule) = object.get("add").unwrap_or(object).get("rule") else { continue };
            let chain = ["family", "table", "chain"].map(|name| rule[name].as_str().unwrap().to_owned());
            found.entry(chain).or_default().push(rule["expr"].clone());
        }
        found
    };
    let (ours, theirs) = (rules(document), rules(&listed));
    assert!(!ours.is_empty());
    assert_eq!(ours, theirs);
    let timeouts = |document: &Value| -> Vec<Value> {
        let objects = document["nftables"].as_array().unwrap().iter();
        let mut found: Vec<_> = objects
            .filter_map(|object| object.get("add").unwrap_or(object).get("ct timeout").cloned())
            .collect();
        for timeout in &mut found {
            timeout.as_object_mut().unwrap().remove("handle");
        }
        found
    };
    assert_eq!(timeouts(document), timeouts(&listed));
}

/// Compares line by line, without blank lines and handles, which count in the order of creation.
fn same_lines(ours: &str, theirs: &str) {
    let lines = |text: &str| -> Vec<String> {
        text.split(['\n', '}'])
            .map(|line| {
                line.split(", \"handle\": ")
                    .map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()))
                    .collect()
            })
            .filter(|line: &String| !line.trim().is_empty())
            .collect()
    };
    let (ours, theirs) = (lines(ours), lines(theirs));
    let different = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
    assert_eq!(different, None);
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn the_hosts_rules_are_what_nft_makes_of_their_text() {
    let name = "the_hosts_rules_are_what_nft_makes_of_their_text";
    if peers(name) && inside(name) {
        same_as_nft(&ruleset::host(&topology(), 8192), &host_elements());
    }
}

#[test]
fn the_gateways_rules_are_what_nft_makes_of_their_text() {
    let name = "the_gateways_rules_are_what_nft_makes_of_their_text";
    if peers(name) && inside(name) {
        same_as_nft(&ruleset::gateway(&topology(), 8192), &gateway_elements());
    }
}

#[test]
fn the_bridges_rules_are_what_nft_makes_of_their_text() {
    let name = "the_bridges_rules_are_what_nft_makes_of_their_text";
    if peers(name) && inside(name) {
        same_as_nft(&ruleset::bridge(), &bridge_elements());
    }
}

#[test]
fn the_rules_without_ipv6_are_what_nft_makes_of_their_text() {
    let name = "the_rules_without_ipv6_are_what_nft_makes_of_their_text";
    if peers(name) && inside(name) {
        same_as_nft(&ruleset::host(&Topology { ipv6: Ipv6::Closed, ..topology() }, 8192), &[]);
    }
}

#[test]
fn the_hosts_rules_are_what_nft_makes_of_their_json() {
    let name = "the_hosts_rules_are_what_nft_makes_of_their_json";
    if peers(name) && inside(name) {
        same_from_json(&ruleset::host(&topology(), 8192), &host_elements());
    }
}

#[test]
fn the_gateways_rules_are_what_nft_makes_of_their_json() {
    let name = "the_gateways_rules_are_what_nft_makes_of_their_json";
    if peers(name) && inside(name) {
        same_from_json(&ruleset::gateway(&topology(), 8192), &gateway_elements());
    }
}

#[test]
fn the_bridges_rules_are_what_nft_makes_of_their_json() {
    let name = "the_bridges_rules_are_what_nft_makes_of_their_json";
    if peers(name) && inside(name) {
        same_from_json(&ruleset::bridge(), &bridge_elements());
    }
}

#[test]
fn the_text_is_as_nft_prints_it() {
    let name = "the_text_is_as_nft_prints_it";
    if peers(name) && inside(name) {
        let mut tables = ruleset::host(&topology(), 8192);
        same_as_nft(&tables, &[]);
        let mut batch = Batch::new();
        for table in tables.drain(..) {
            batch.delete_table(table.family, table.name);
        }
        Nft::open().unwrap().commit(batch).unwrap();
        assert_eq!(shell(false, "nft list ruleset; ip link del nb7", ""), "");
        same_as_nft(&ruleset::gateway(&topology(), 8192), &[]);
    }
}

#[test]
fn a_batch_is_done_whole_or_not_at_all() {
    if !inside("a_batch_is_done_whole_or_not_at_all") {
        return;
    }
    let mut nft = Nft::open().unwrap();
    let tables = ruleset::gateway(&topology(), 8192);
    let [good, taken] =
        [port(None, 6, 1, 1), port(None, 6, 2, 2)].map(|port| ruleset::translations(&[port]).remove(0));

    // A table and an element that is there twice: not even the table.
    let error = nft.commit(filled(&tables, &[good.clone(), taken.clone(), taken.clone()])).unwrap_err();
    assert_eq!(error.errno(), EEXIST);
    assert_eq!(error.step(), "add element t4w { tcp . 2 : 100.64.0.16 . 2 }");
    assert_eq!(nft.table_is_ours(Family::Inet, "netbox").unwrap(), None);

    // A good element and a taken one: the good one is still free afterwards.
    nft.commit(filled(&tables, std::slice::from_ref(&taken))).unwrap();
    assert_eq!(nft.table_is_ours(Family::Inet, "netbox").unwrap(), Some(true));
    let error = nft.commit(filled(&[], &[good.clone(), taken.clone()])).unwrap_err();
    assert_eq!((error.errno(), error.step()), (EEXIST, "add element t4w { tcp . 2 : 100.64.0.16 . 2 }"));
    nft.commit(filled(&[], std::slice::from_ref(&good))).unwrap();

    // The same socket serves after failures; a table that is there is one.
    let error = nft.commit(filled(&tables, &[])).unwrap_err();
    assert_eq!((error.errno(), error.step()), (EEXIST, "create table netbox"));
}

#[test]
fn deleting_what_is_absent_is_no_error() {
    if !inside("deleting_what_is_absent_is_no_error") {
        return;
    }
    let mut nft = Nft::open().unwrap();
    let element = ruleset::translations(&[port(None, 17, 5, 5)]).remove(0);
    for portable in [false, true] {
        let words = |batch: Batch| if portable { batch.portable() } else { batch };
        let mut commit = |batch: Batch| nft.commit(words(batch));
        commit(filled(&ruleset::gateway(&topology(), 8192), &[])).unwrap();
        let delete = || {
            let mut batch = Batch::new();
            batch.delete_element(Family::Inet, "netbox", &element);
            batch
        };
        commit(delete()).unwrap();
        commit(filled(&[], std::slice::from_ref(&element))).unwrap();
        commit(delete()).unwrap();
        commit(filled(&[], std::slice::from_ref(&element))).unwrap();
        let mut again = Batch::new();
        again.put_element(Family::Inet, "netbox", &element);
        commit(again).unwrap();
        for _ in 0..2 {
            let mut batch = Batch::new();
            batch.delete_table(Family::Inet, "netbox");
            commit(batch).unwrap();
        }
        assert_eq!(commit(delete()).unwrap_err().errno(), ENOENT);
        assert_eq!(nft.table_is_ours(Family::Inet, "netbox").unwrap(), None);
    }
}

#[test]
fn rules_are_replaced_in_one_batch() {
    if !inside("rules_are_replaced_in_one_batch") {
        return;
    }
    let mut nft = Nft::open().unwrap();
    let (tables, elements) = (ruleset::host(&topology(), 8192), host_elements());
    shell(false, LINK, "");
    // From nothing, from all, and from one table of the two: as after somebody's flush.
    for (round, portable) in [false, false, true, false, true].into_iter().enumerate() {
        let mut batch = Batch::new();
        for table in &tables {
            batch.delete_table(table.family, table.name).create_table(table);
        }
        for element in &elements {
            batch.add_element(Family::Inet, "netbox", element);
        }
        nft.commit(if portable { batch.portable() } else { batch }).unwrap();
        assert_eq!(nft.table_is_ours(Family::Netdev, "netbox").unwrap(), Some(true));
        let taken = nft.commit(filled(&[], &elements[..1])).unwrap_err();
        assert_eq!((taken.errno(), taken.step()), (EEXIST, "add element switched { \"eth0\" }"));
        if round == 2 {
            let mut batch = Batch::new();
            batch.delete_table(Family::Netdev, "netbox");
            nft.commit(batch).unwrap();
            assert_eq!(nft.table_is_ours(Family::Netdev, "netbox").unwrap(), None);
        }
    }
}

#[test]
fn another_programs_table_is_not_ours() {
    let name = "another_programs_table_is_not_ours";
    if peers(name) && inside(name) {
        shell(false, "nft add table inet netbox", "");
        assert_eq!(Nft::open().unwrap().table_is_ours(Family::Inet, "netbox").unwrap(), Some(false));
        shell(false, "nft -f -", "flush ruleset\ntable inet netbox {\ncomment \"netbox 2\"\n}\n");
        assert_eq!(Nft::open().unwrap().table_is_ours(Family::Inet, "netbox").unwrap(), Some(false));
    }
}

#[test]
fn thousands_of_ports_fit_into_one_batch() {
    if !inside("thousands_of_ports_fit_into_one_batch") {
        return;
    }
    let one_by_one = |number| {
        let port = [port(None, 6, number, number)];
        ruleset::translations(&port).into_iter().chain(ruleset::admissions(&port))
    };
    let mut nft = Nft::open().unwrap();
    nft.commit(filled(&ruleset::gateway(&topology(), 8192), &[])).unwrap();
    let elements: Vec<_> = (1..=1000).flat_map(one_by_one).collect();
    let start = Instant::now();
    nft.commit(filled(&[], &elements)).unwrap();
    println!("figure: 1000 ports ({} elements) in one batch: {:?}", elements.len(), start.elapsed());
    let twice: Vec<_> = elements[..1500].iter().chain(&elements[1998..]).cloned().collect();
    assert_eq!(nft.commit(filled(&[], &twice)).unwrap_err().errno(), EEXIST);
    let more: Vec<_> = (1001..=3000).flat_map(one_by_one).collect();
    nft.commit(filled(&[], &more)).unwrap();
    let error = nft.commit(filled(&[], &[more[2].clone()])).unwrap_err();
    assert_eq!(error.step(), "add element t4w { tcp . 1002 : 100.64.0.16 . 1002 }");
}

#[test]
fn connections_are_forgotten_by_address_and_by_port() {
    let name = "connections_are_forgotten_by_address_and_by_port";
    if !inside(name) {
        return;
    }
    // The rules make the kernel track; the connections are to the loopback addresses.
    let six = ["fd12::5", "fd12::9"];
    shell(
        false,
        &format!("ip link set lo up; {}", six.map(|a| format!("ip addr add {a} dev lo nodad;")).concat()),
        "",
    );
    Nft::open().unwrap().commit(filled(&ruleset::gateway(&topology(), 8192), &[])).unwrap();
    let mut conntrack = Conntrack::open().unwrap();
    let (from, to) = (Ipv4Addr::new(127, 0, 0, 5), Ipv4Addr::new(127, 0, 0, 9));
    let [by_source, by_reply] = [from, to].map(|address| Selector::Address(address.into()));
    let [from6, to6] = six.map(|address| address.parse::<Ipv6Addr>().unwrap());
    let [by_source6, by_reply6] = [from6, to6].map(|address| Selector::Address(address.into()));
    let by_port = Selector::Port { ipv6: false, protocol: 17, port: 4000 };
    let another = [
        Selector::Address(Ipv4Addr::new(127, 0, 0, 6).into()),
        Selector::Port { ipv6: false, protocol: 6, port: 4000 },
    ];
    // More selectors than it asks the kernel to filter by.
    let many: Vec<_> = (3995..=4005).map(|port| Selector::Port { ipv6: false, protocol: 17, port }).collect();

    conntrack.flush(&[by_source, by_port]).unwrap();
    let both = [by_source, by_port];
    let both6 = [by_source, by_source6];
    let (four, six) = ((IpAddr::V4(from), IpAddr::V4(to)), (IpAddr::V6(from6), IpAddr::V6(to6)));
    for ((from, to), selectors) in [
        (four, &[by_source][..]),
        (four, &[by_reply]),
        (four, &[by_port]),
        (four, &many),
        (four, &both),
        (six, &[by_source6]),
        (six, &[by_reply6]),
        (six, &both6),
    ] {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.send_to(b"tracked", (to, 4000)).unwrap();
        conntrack.flush(&another).unwrap();
        conntrack.flush_one_by_one(&another).unwrap();
        assert_eq!(conntrack.count().unwrap(), 1, "{selectors:?}");
        conntrack.flush(selectors).unwrap();
        assert_eq!(conntrack.count().unwrap(), 0, "{selectors:?}");
        socket.send_to(b"tracked", (to, 4000)).unwrap();
        conntrack.flush_one_by_one(selectors).unwrap();
        assert_eq!(conntrack.count().unwrap(), 0, "{selectors:?}");
    }
    let start = Instant::now();
    for _ in 0..100 {
        conntrack.flush(&[by_source, by_port]).unwrap();
    }
    println!("figure: flush of an empty table: {:?}", start.elapsed() / 100);
}

/// As it is where the kernel has no timeouts of single connections.
#[test]
fn a_refused_timeout_is_told_and_the_rules_do_without() {
    if !inside("a_refused_timeout_is_told_and_the_rules_do_without") {
        return;
    }
    let whole = ruleset::host(&topology(), 8192);
    let refused = |mut table: Table| {
        // Longer than any name may be.
        table.timeouts.iter_mut().for_each(|timeout| timeout.name = "x".repeat(300).leak());
        table
    };
    shell(false, LINK, "");
    let mut nft = Nft::open().unwrap();
    let tables: Vec<_> = whole.iter().cloned().map(refused).collect();
    let error = nft.commit(filled(&tables, &[])).unwrap_err();
    assert!(error.lacks_timeouts(), "{error}");
    let tables: Vec<_> = whole.iter().cloned().map(Table::without_timeouts).collect();
    nft.commit(filled(&tables, &[])).unwrap();
    // Whoever looks whether the rules are intact does not miss them.
    assert!(whole.iter().all(|table| nft.has_chains_of(table).unwrap()));
    let again = nft.commit(filled(&tables, &[])).unwrap_err();
    assert!(!again.lacks_timeouts(), "{again}");
}
