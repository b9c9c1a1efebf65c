//! How fast one flow is and what a new connection costs, against a bare veth pair with masquerade.
//!
//! netbox and the bare box have a host each, made alike, so that the bare one's packets see none of netbox's rules.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a benchmark is for people")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use support::bare::bare_box;
use support::host::{HOST, Host, OUTSIDE};
use support::place::Place;
use support::processes::{Resident, end, populate, settle};
use support::program::Program;
use support::report::Report;
use support::statistics::{median, ratios};
use support::traffic::{Way, interleaved};
use support::{FLOOR, Length, names};

/// The first host port of the first box, and how many each box has.
const FIRST_PORT: u16 = 20_000;
const PORTS_EACH: u16 = 10;
/// The box's port behind its first host port.
const BOX_PORT: u16 = 80;
/// Where the outside listens.
const SERVER_PORT: u16 = 5001;

type Figures = Vec<(&'static str, f64)>;

fn main() -> ExitCode {
    support::main(measure)
}

fn measure(length: Length, report: &mut Report) {
    names::host_asks(OUTSIDE);
    let bare_host = Host::new();
    let bare = Site::new(&bare_host, bare_box(FIRST_PORT, BOX_PORT), FIRST_PORT);
    let host = Host::new();
    let mut residents = Vec::new();
    let mut connections = Vec::new();
    for alive in length.pick([1, 100, 1000], [1, 10, 100]) {
        let more = populate(residents.len()..alive, |number| {
            let ports = format!("{}-{}:80-89", port(number), port(number) + PORTS_EACH - 1);
            Program::netbox(&["-p", &ports], &[FLOOR, "--stay"])
        });
        residents.extend(more);
        let last = residents.last().expect("at least one box");
        let netbox = Site::new(&host, Place::of(last.command), port(alive - 1));
        if alive == 1 {
            flows(length, report, &bare, &netbox);
            answers(length, report, &netbox, names::server_of(last.command));
        }
        connections.push((alive, connection_costs(length, &bare, &netbox)));
    }
    connection_report(report, &connections);
    end_all(&residents);
    report.note("bare", "a veth pair, masquerade and one dnat rule, on a host of its own made like netbox's");
    report.note("flows", "TCP, 128 KiB written and read at once, one at a time; both ends in this program");
}

/// The first host port of box `number`.
fn port(number: usize) -> u16 {
    FIRST_PORT + u16::try_from(number).expect("a thousand boxes") * PORTS_EACH
}

fn end_all(residents: &[Resident]) {
    settle(residents.len());
    end(residents);
    settle(0);
}

/// A box, what is around it, and where it is reached.
#[derive(Debug)]
struct Site<'a> {
    host: Place,
    outside: &'a Place,
    inside: Place,
    published: u16,
}

impl<'a> Site<'a> {
    /// On the host that the calling thread is in.
    fn new(host: &'a Host, inside: Place, published: u16) -> Self {
        Self { host: Place::here(), outside: host.outside(), inside, published }
    }

    fn out(&self) -> Way<'_> {
        let server = SocketAddr::from((OUTSIDE, SERVER_PORT));
        Way { client: &self.inside, server: self.outside, listen: server, connect: server }
    }

    fn by_uplink(&self) -> Way<'_> {
        Way { client: self.outside, connect: (HOST, self.published).into(), ..self.way_in() }
    }

    fn by_loopback(&self) -> Way<'_> {
        Way { connect: (Ipv4Addr::LOCALHOST, self.published).into(), ..self.way_in() }
    }

    fn way_in(&self) -> Way<'_> {
        let listen = (Ipv4Addr::UNSPECIFIED, BOX_PORT).into();
        Way { client: &self.host, server: &self.inside, listen, connect: listen }
    }
}

/// One flow at a time: out, in, and in through the loopback relay, whose floor is the bare box's flow in.
fn flows(length: Length, report: &mut Report, bare: &Site<'_>, netbox: &Site<'_>) {
    let (rounds, warm_up, time) = length.pick((9, 100, 400), (5, 50, 100));
    let (warm_up, time) = (Duration::from_millis(warm_up), Duration::from_millis(time));
    let ways = [bare.out(), netbox.out(), bare.by_uplink(), netbox.by_uplink(), netbox.by_loopback()];
    let measured = interleaved(rounds, &ways, |way| way.flow(warm_up, time));
    let [bare_out, out, bare_in, into, loopback] = measured;
    let rows = [
        ("out", &out, &bare_out, 92.0),
        ("in, to a published port", &into, &bare_in, 92.0),
        ("in, by 127.0.0.1 and the relay", &loopback, &bare_in, 50.0),
    ]
    .map(|(name, netbox, bare, limit)| {
        let percent = median(&ratios(netbox, bare)) * 100.0;
        report.bar_at_least("C4", &format!("one flow {name}, of bare"), percent, limit, "%");
        let figures: Figures =
            vec![("bare_gbit_s", median(bare)), ("netbox_gbit_s", median(netbox)), ("percent", percent)];
        (name.to_owned(), figures)
    });
    report.section("one flow", rows.into());
}

/// A question for a name, to the box's resolver and to the server that this asks.
fn answers(length: Length, report: &mut Report, netbox: &Site<'_>, resolver: Option<Ipv4Addr>) {
    let Some(resolver) = resolver.filter(|resolver| *resolver != OUTSIDE) else {
        report.note("names", "not measured: the box has no resolver of netbox's");
        return;
    };
    let (server, resolver) = (SocketAddr::from((OUTSIDE, 53)), SocketAddr::from((resolver, 53)));
    let (direct, resolved) =
        names::answer_times(length.pick(2000, 300), &netbox.inside, netbox.outside, server, resolver, None);
    let figures = vec![("server_ms", direct), ("resolver_ms", resolved), ("difference", resolved - direct)];
    report.section("an answer", vec![("to a question for a name".to_owned(), figures)]);
    report.bar("C4", "an answer by the resolver over one by its server", resolved - direct, 0.3, "ms");
}

/// Bare out, netbox out, bare in, netbox in: microseconds, a figure for each round.
type Costs = [Vec<f64>; 4];

fn connection_costs(length: Length, bare: &Site<'_>, netbox: &Site<'_>) -> Costs {
    let (rounds, count) = length.pick((9, 2000), (5, 500));
    let ways = [bare.out(), netbox.out(), bare.by_uplink(), netbox.by_uplink()];
    interleaved(rounds, &ways, |way| way.connection(count))
}

fn connection_report(report: &mut Report, costs: &[(usize, Costs)]) {
    let mut rows = Vec::new();
    for (name, place) in [("out", 0), ("in", 2)] {
        let to_bare = |costs: &Costs| median(&ratios(&costs[place + 1], &costs[place]));
        let alone = costs.first().map_or(f64::NAN, |(_, costs)| to_bare(costs));
        for (row, (alive, costs)) in costs.iter().enumerate() {
            let off = (to_bare(costs) / alone - 1.0) * 100.0;
            if row > 0 {
                let what = format!("a connection {name}, {alive} boxes: to bare, off that at 1");
                report.bar("C2", &what, off.abs(), 10.0, "%");
            }
            let figures: Figures = vec![
                ("bare_us", median(&costs[place])),
                ("netbox_us", median(&costs[place + 1])),
                ("to_bare", to_bare(costs)),
                ("off_1_percent", off),
            ];
            rows.push((format!("{name}, {alive} boxes, {PORTS_EACH} ports each"), figures));
        }
    }
    report.section("a new connection", rows);
}
