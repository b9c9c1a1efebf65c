//! What members of a network cost each other, of 2 and of 200: one flow, a datagram, ARP and a new connection over its bridge, the
//! answer to a name, and the start of one more.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a benchmark is for people")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use support::bare::{bare_box, bare_network};
use support::host::{Host, OUTSIDE};
use support::place::Place;
use support::processes::{Resident, end, populate, settle};
use support::program::Program;
use support::report::Report;
use support::statistics::{Sample, median, ratios};
use support::traffic::{Way, interleaved};
use support::{FLOOR, Length, NETBOX, names};

const TRUE: &str = "/usr/bin/true";
/// A network's name, and its addresses but for the last byte.
const NETWORK: &str = "big";
const SUBNET: [u8; 3] = [10, 9, 0];
const PREFIX: u8 = 24;
/// Where a member listens, and where the outside does.
const PORT: u16 = 80;
const OUTSIDE_PORT: u16 = 5001;
/// Between two measured starts.
const REST: Duration = Duration::from_millis(30);

type Figures = Vec<(&'static str, f64)>;
/// Figures of each round, in microseconds: bare, netbox.
type Costs = [Vec<f64>; 2];

fn main() -> ExitCode {
    support::main(measure)
}

fn measure(length: Length, report: &mut Report) {
    names::host_asks(OUTSIDE);
    traffic(length, report);
    starts(length, report);
    report.note("bare", "two namespaces behind a bridge without rules; out: a veth pair with masquerade");
}

/// A host with a network that has no members.
fn host() -> Host {
    let host = Host::new();
    host.keep_networks();
    let subnet = format!("{}/{PREFIX}", address(0));
    Program::new(NETBOX, &["network", "create", NETWORK, "--subnet", &subnet]).run();
    host
}

/// That of member `number`, from 2 on.
fn address(number: usize) -> Ipv4Addr {
    let [a, b, c] = SUBNET;
    Ipv4Addr::new(a, b, c, u8::try_from(number).expect("a few hundred members"))
}

fn name(number: usize) -> String {
    format!("m{number}")
}

/// Starts members with these numbers on the host that the calling thread is on.
fn members(numbers: std::ops::Range<usize>) -> Vec<Resident> {
    populate(numbers, |number| {
        let net = format!("{NETWORK}:ip={}", address(number + 2));
        Program::netbox(&["--name", &name(number), "--net", &net], &[FLOOR, "--stay"])
    })
}

fn between<'a>(client: &'a Place, server: &'a Place, number: usize) -> Way<'a> {
    let listen = (Ipv4Addr::UNSPECIFIED, PORT).into();
    Way { client, server, listen, connect: (address(number + 2), PORT).into() }
}

fn out<'a>(client: &'a Place, host: &'a Host) -> Way<'a> {
    let server = SocketAddr::from((OUTSIDE, OUTSIDE_PORT));
    Way { client, server: host.outside(), listen: server, connect: server }
}

fn traffic(length: Length, report: &mut Report) {
    let bare_host = Host::new();
    let bare_out = bare_box(1, PORT);
    let bare_network = bare_network([address(2), address(3)], PREFIX);
    let [first, second] = &bare_network.members;
    let bare = between(first, second, 1);
    let host = host();
    let mut all = Vec::new();
    let mut costs: [(&'static str, Vec<(usize, Costs)>); 4] = [
        ("a datagram and its answer", Vec::new()),
        ("the same after ARP", Vec::new()),
        ("a new connection", Vec::new()),
        ("the answer to a member's name", Vec::new()),
    ];
    for count in length.pick([2, 200], [2, 50]) {
        all.extend(members(all.len()..count));
        let last = all.last().expect("two members at least");
        let places = (Place::of(all[0].command), Place::of(last.command));
        let way = between(&places.0, &places.1, count - 1);
        if count == 2 {
            flows(length, report, [&bare, &way, &out(&bare_out, &bare_host), &out(&places.0, &host)]);
        }
        let (rounds, times) = length.pick((9, 2000), (5, 500));
        let ways = [bare, way];
        let measured = [
            interleaved(rounds, &ways, |way| way.round_trip(times)),
            interleaved(rounds, &ways, |way| way.first_round_trip(times)),
            interleaved(rounds, &ways, |way| way.connection(times)),
            answers(rounds, times / 4, &places.0, all[0].command, &host, &name(count - 1)),
        ];
        for ((_, costs), measured) in costs.iter_mut().zip(measured) {
            costs.push((count, measured));
        }
    }
    for (name, costs) in &costs {
        cost_report(report, name, costs);
    }
    settle(all.len());
    end(&all);
    settle(0);
}

/// Of a name server outside for any name, and of the box's resolver for that of a member.
fn answers(rounds: usize, times: usize, inside: &Place, command: u32, host: &Host, member: &str) -> Costs {
    let resolver = names::server_of(command).filter(|resolver| *resolver != OUTSIDE);
    let resolver = SocketAddr::from((resolver.expect("a resolver of netbox's"), 53));
    let server = SocketAddr::from((OUTSIDE, 53));
    let mut costs = Costs::default();
    for _ in 0..rounds {
        let (direct, own) =
            names::answer_times(times, inside, host.outside(), server, resolver, Some(member));
        for (cost, time) in costs.iter_mut().zip([direct, own]) {
            cost.push(time * 1e3);
        }
    }
    costs
}

fn flows(length: Length, report: &mut Report, ways: [&Way<'_>; 4]) {
    let (rounds, warm_up, time) = length.pick((9, 100, 400), (5, 50, 100));
    let (warm_up, time) = (Duration::from_millis(warm_up), Duration::from_millis(time));
    let measured = interleaved(rounds, &ways.map(|way| *way), |way| way.flow(warm_up, time));
    let [bare, between, bare_out, out] = measured;
    let rows = [("between two members", bare, between), ("out of a member", bare_out, out)];
    let rows = rows.map(|(name, bare, netbox)| {
        let percent = median(&ratios(&netbox, &bare)) * 100.0;
        report.bar_at_least("C4", &format!("one flow {name}, of bare"), percent, 92.0, "%");
        let figures: Figures =
            vec![("bare_gbit_s", median(&bare)), ("netbox_gbit_s", median(&netbox)), ("percent", percent)];
        (name.to_owned(), figures)
    });
    report.section("one flow", rows.into());
}

fn cost_report(report: &mut Report, name: &'static str, costs: &[(usize, Costs)]) {
    let to_bare = |[bare, netbox]: &Costs| median(&ratios(netbox, bare));
    let few = costs.first().map_or(f64::NAN, |(_, costs)| to_bare(costs));
    let mut rows = Vec::new();
    for (row, (count, costs)) in costs.iter().enumerate() {
        let off = (to_bare(costs) / few - 1.0) * 100.0;
        if row > 0 {
            let what = format!("{name}, {count} members: to bare, off that of 2");
            report.bar("C2", &what, off.abs(), 10.0, "%");
        }
        let [bare, netbox] = costs;
        let figures: Figures = vec![
            ("bare_us", median(bare)),
            ("netbox_us", median(netbox)),
            ("to_bare", to_bare(costs)),
            ("off_2_percent", off),
        ];
        rows.push((format!("{count} members"), figures));
    }
    report.section(name, rows);
}

/// One more member, beside one and beside many, each on a host of its own, in turns with the floor.
fn starts(length: Length, report: &mut Report) {
    let counts = length.pick([1, 199], [1, 49]);
    let hosts = counts.map(|count| (host(), members(0..count)));
    let alive = counts.iter().sum();
    let mut floor = Program::floor(&[TRUE]);
    let mut netbox = Program::netbox(&["--net", NETWORK], &[TRUE]);
    let mut wake_up = Program::new(TRUE, &[]);
    let mut samples = counts.map(|_| [Sample::default(), Sample::default()]);
    for _ in 0..length.pick(100, 12) {
        for ((host, _), samples) in hosts.iter().zip(&mut samples) {
            host.enter();
            for (program, sample) in [&mut floor, &mut netbox].into_iter().zip(samples) {
                settle(alive);
                thread::sleep(REST);
                wake_up.run();
                sample.add(program.run());
            }
        }
    }
    let rows = counts.iter().zip(&samples).map(|(count, [floor, netbox])| {
        let (floor, netbox) = (floor.median(), netbox.median());
        let figures: Figures =
            vec![("floor_ms", floor), ("netbox_ms", netbox), ("difference", netbox - floor)];
        (format!("beside {count}"), figures)
    });
    let rows: Vec<_> = rows.collect();
    let [few, many] = [0, 1].map(|row: usize| rows[row].1[2].1);
    let what = format!("one more member beside {}: netbox less floor, off that beside 1", counts[1]);
    report.bar("C2", &what, (many / few - 1.0).abs() * 100.0, 20.0, "%");
    report.section("one more member, `true`", rows);
    settle(alive);
    hosts.iter().for_each(|(_, members)| end(members));
    settle(0);
}
