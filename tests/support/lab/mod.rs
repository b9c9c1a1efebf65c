//! The test lab: a small internet in namespaces of its own, for tests that need a real kernel.
//!
//! ```text
//! OwnLan                                            SharedUplink
//! client ──── host ──────────── wan                 client ──┐
//! 192.0.2.10  192.0.2.1 (hc)    198.51.100.10       198.51.100.20
//!             198.51.100.1 (hw)                     host ────┴── wan's bridge, 198.51.100.10
//!                                                   198.51.100.1 (hw)
//! ```
//! Dual stack: 2001:db8:1::/64 and 2001:db8:2::/64 with the same last numbers. Nobody has a route to
//! the pool unless a test adds one, and the host's `ip_forward` is 0. On port 7 of wan are TCP and
//! UDP servers that answer with the address they were asked from.
//!
//! A test is `let lab = Lab::new(Shape::OwnLan); …`; when `lab` goes out of scope, the host's whole
//! state is compared with what it was, and no packet of the pool may have been seen outside.
//!
//! One test:        `cargo test --test live -- --exact egress::a_box_reaches_the_outside_by_tcp`
//! Look inside:     `NETBOX_LAB_SHELL=1 cargo test --test live -- --exact NAME` opens a shell on the
//!                  terminal, in the host's namespace, at the end or the failure of the test; there,
//!                  `nsenter --net=$NETBOX_LAB_WAN ip addr` (or `$NETBOX_LAB_CLIENT`).
//! Another build:   `NETBOX_LAB_PROGRAM=/usr/bin/netbox` is tested in place of the one just built.
//! As others:       works for root (who gets all its ids, so that tests can change users) and for
//!                  ordinary users. Without namespaces a test fails; it is never skipped.

mod boxes;
mod capture;
pub(crate) mod links;
pub(crate) mod name_server;
mod namespaces;
mod netlink;
pub(crate) mod nftables;
mod place;
pub(crate) mod probe;
mod second;
mod service;
mod snapshot;
mod stage;
mod waiting;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};

pub(crate) use boxes::{DetachedBox, RunningBox, outcome, send, words};
pub(crate) use capture::{Capture, Packet};
pub(crate) use place::{Place, read_sysctl, sysctl};
pub(crate) use probe::Outcome;
pub(crate) use second::{SECOND, SecondHost};
pub(crate) use service::Service;
pub(crate) use snapshot::{Snapshot, running};
pub(crate) use stage::{LIMIT, LiveTest, live_tests, main};
pub(crate) use waiting::{
    end_within, find_within, let_pass, settled, try_within, wait_for_end_of, wait_until, wait_within,
};

/// The program under test, as the lab mounts it.
pub(crate) const NETBOX: &str = "/run/lab/netbox";
/// The program that boxes run (`probe`).
pub(crate) const PROBE: &str = "/run/lab/probe";

const SHELL: &str = "NETBOX_LAB_SHELL";

/// The host's address on its uplink.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The host's address on the client's LAN; none in `SharedUplink`.
pub(crate) const HOST_LAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The outside.
pub(crate) const WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub(crate) const WAN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10);
pub(crate) const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
pub(crate) const HOST_LAN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The port of wan's servers.
pub(crate) const ECHO: u16 = 7;

/// Where ip-netns(8) has names.
pub(crate) const NAMES: &str = "/run/netns";

/// Leaves what `ip netns` leaves that was used before: the directory of names, a mount of its own.
pub(crate) fn use_names() {
    let none: Option<&str> = None;
    std::fs::create_dir(NAMES).expect("a directory");
    for (source, flags) in [(Some(NAMES), MsFlags::MS_BIND), (none, MsFlags::MS_SHARED)] {
        mount(source, NAMES, none, flags, none).expect("a mount");
    }
}

/// Where the neighbour is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// On a LAN of its own behind the host.
    OwnLan,
    /// On the uplink's own network, as with a laptop.
    SharedUplink,
}

/// The small internet. The test's own thread is in the host's namespace.
#[derive(Debug)]
pub(crate) struct Lab {
    shape: Shape,
    client: Place,
    wan: Place,
    host: Place,
    captures: Vec<(&'static str, Capture)>,
    /// wan's servers.
    pub(crate) wan_tcp: Service,
    pub(crate) wan_udp: Service,
    before: Snapshot,
    patience: Duration,
}

impl Lab {
    pub(crate) fn new(shape: Shape) -> Self {
        Self::before(shape, || {})
    }

    /// The same; `prepare` changes the host before it counts as untouched.
    pub(crate) fn before(shape: Shape, prepare: impl FnOnce()) -> Self {
        let (host, client, wan) = (Place::here(), Place::new(), Place::new());
        Place::defaults();
        match shape {
            Shape::OwnLan => own_lan(&client, &wan),
            Shape::SharedUplink => shared_uplink(&client, &wan),
        }
        links::route(Ipv4Addr::UNSPECIFIED.into(), 0, WAN.into());
        links::route(Ipv6Addr::UNSPECIFIED.into(), 0, WAN6.into());
        let echo = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), ECHO);
        let (wan_tcp, wan_udp) = (Service::tcp(&wan, echo), Service::udp(&wan, echo));
        let captures = vec![("wan", Capture::start(&wan)), ("client", Capture::start(&client))];
        prepare();
        // The first dump loads connection tracking, whose sysctls appear then.
        let _ = Snapshot::take();
        let before = settled_state();
        Self {
            shape,
            client,
            wan,
            host,
            captures,
            wan_tcp,
            wan_udp,
            before,
            patience: Duration::from_secs(2),
        }
    }

    /// Runs `work` in the neighbour's namespace.
    pub(crate) fn client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.client.run(work)
    }

    /// Runs `work` outside.
    pub(crate) fn wan<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.wan.run(work)
    }

    /// The places themselves, for servers and captures.
    pub(crate) fn host_place(&self) -> &Place {
        &self.host
    }

    pub(crate) fn client_place(&self) -> &Place {
        &self.client
    }

    pub(crate) fn wan_place(&self) -> &Place {
        &self.wan
    }

    /// The host's address as the client knows it.
    pub(crate) fn host_for_client(&self) -> Ipv4Addr {
        match self.shape {
            Shape::OwnLan => HOST_LAN,
            Shape::SharedUplink => HOST,
        }
    }

    /// The client's address.
    pub(crate) fn client_address(&self) -> Ipv4Addr {
        match self.shape {
            Shape::OwnLan => Ipv4Addr::new(192, 0, 2, 10),
            Shape::SharedUplink => Ipv4Addr::new(198, 51, 100, 20),
        }
    }

    /// Whether a packet like that has been seen at wan's end since the lab was made.
    pub(crate) fn seen_by_wan(&self, like: impl Fn(Packet) -> bool) -> bool {
        self.captures.iter().any(|(where_, capture)| *where_ == "wan" && capture.any(&like))
    }

    /// What the host differs in from the beginning; empty is clean.
    pub(crate) fn difference(&self) -> String {
        self.before.difference(&Snapshot::take())
    }

    /// Waits until the host is as it was, and fails if it is not within `limit`.
    pub(crate) fn assert_clean_within(&self, limit: Duration) {
        let mut difference = String::new();
        let clean = try_within(limit, || {
            difference = self.difference();
            difference.is_empty().then_some(())
        });
        assert!(clean.is_some(), "the host is not as it was {limit:?} later:\n{difference}");
    }

    /// Ends the lab without the comparison of the host's state: for tests of the lab itself.
    pub(crate) fn expect_difference(mut self, words: &str) {
        let difference = self.difference();
        assert!(difference.contains(words), "expected {words:?} in the difference:\n{difference}");
        self.before = Snapshot::take();
    }

    /// Stops the captures; an error names the packets that should not have been seen.
    pub(crate) fn stop_captures(&mut self) -> Result<(), String> {
        self.stop_captures_but(|_| false)
    }

    /// Stops the captures, whatever they have seen.
    pub(crate) fn end_captures(&mut self) {
        for (_, mut capture) in self.captures.drain(..) {
            let _ = capture.stop();
        }
    }

    /// [`Lab::stop_captures`] where packets from some addresses may have been seen.
    pub(crate) fn stop_captures_but(&mut self, may: impl Fn(IpAddr) -> bool) -> Result<(), String> {
        for (place, mut capture) in self.captures.drain(..) {
            let packets = capture.stop()?;
            let leaked: Vec<_> = packets
                .iter()
                .filter(|packet| packet.source().is_some_and(|from| in_pool(from) && !may(from)))
                .collect();
            if !leaked.is_empty() {
                return Err(format!(
                    "packets with an address of the pool as source were seen by {place}: {leaked:?}"
                ));
            }
        }
        Ok(())
    }

    fn shell(&self) {
        let Ok(terminal) = std::fs::File::options().read(true).write(true).open("/dev/tty") else { return };
        let stream = || Stdio::from(terminal.try_clone().expect("another descriptor"));
        let mut shell = Command::new("sh");
        shell.env("NETBOX_LAB_WAN", self.wan.path()).env("NETBOX_LAB_CLIENT", self.client.path());
        shell.arg("-i").stdin(stream()).stdout(stream()).stderr(stream());
        // The way it ends is the visitor's business.
        let _ = shell.status();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::env::var_os(SHELL).is_some() {
            self.shell();
        }
        if !thread::panicking() {
            self.assert_clean_within(self.patience);
            self.stop_captures().unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// Whether tests with programs that an administrator has (`nft`) are wanted; says so where not.
pub(crate) fn peers() -> bool {
    let on = std::env::var("NETBOX_PEERS").as_deref() == Ok("1");
    if !on {
        println!("switched off, NETBOX_PEERS is not 1");
    }
    on
}

/// Whether an address is from the range that pools are taken from; the lab has no other use for it.
pub(crate) fn in_pool(address: impl Into<IpAddr>) -> bool {
    match address.into() {
        IpAddr::V4(four) => four.octets()[0] == 10,
        IpAddr::V6(six) => six.is_unique_local(),
    }
}

fn own_lan(client: &Place, wan: &Place) {
    links::veth("hc", "c0", client.file());
    links::veth("hw", "w0", wan.file());
    let client6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
    client.run(|| attach("c0", (Ipv4Addr::new(192, 0, 2, 10), client6)));
    wan.run(|| {
        attach("w0", (WAN, WAN6));
        links::route(Ipv4Addr::new(192, 0, 2, 0).into(), 24, HOST.into());
        links::route(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0).into(), 64, HOST6.into());
    });
    attach("hc", (HOST_LAN, HOST_LAN6));
    attach("hw", (HOST, HOST6));
}

fn shared_uplink(client: &Place, wan: &Place) {
    wan.run(|| {
        links::bridge("br0");
        attach("br0", (WAN, WAN6));
        links::veth("p1", "c0", client.file());
    });
    links::veth("hw", "w0", wan.file());
    wan.run(|| {
        for port in ["w0", "p1"] {
            links::enslave(port, "br0");
            links::up(port);
        }
    });
    let client6 = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x20);
    client.run(|| attach("c0", (Ipv4Addr::new(198, 51, 100, 20), client6)));
    attach("hw", (HOST, HOST6));
}

fn attach(link: &str, (four, six): (Ipv4Addr, Ipv6Addr)) {
    links::up(link);
    links::address(link, IpAddr::V4(four), 24);
    links::address(link, IpAddr::V6(six), 64);
}

/// The state once it has stopped changing by itself: the kernel may take a second to notice that both
/// ends of a link are up, and only then gives it its link-local address.
fn settled_state() -> Snapshot {
    wait_until("both ends of every link are up", links::all_running);
    wait_until("every address can be used", links::no_address_is_tentative);
    settled(Duration::from_millis(5), LIMIT, Snapshot::take)
}
