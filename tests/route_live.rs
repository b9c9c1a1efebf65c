//! The rtnetlink layer against a real kernel, in private namespaces: each test runs itself again as root
//! of a user namespace with a network and a mount namespace of its own. Nothing leaves them. They compare with what ip(8)
//! says, and so run where `NETBOX_PEERS` is 1.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the helpers of a test fail, and speak, as the test does"
)]

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netbox::host::holders::holder_of_port;
use netbox::host::observe;
use netbox::kernel::net_cookie::netns_cookie;
use netbox::kernel::route::link::{self, LinkChange, Veth};
use netbox::kernel::route::path::{self, RouteKind, RouteSpec};
use netbox::kernel::route::rule::RuleSpec;
use netbox::kernel::route::{PROTOCOL, Route, address, neighbour};
use netbox::kernel::sysctl;
use netbox::launch::{box_network, mounts};
use netbox::plan::mounts::Mount;
use netbox::plan::pool;
use netbox::plan::record::Attachment;
use netbox::plan::topology::{ETH_INDEX, Ipv6, Topology};
use netbox::plan::wiring::BoxLink;
use netbox::spec::port::Protocol;
use nix::sched::{CloneFlags, setns, unshare};

const HERE: [u8; 6] = [2, 0x6e, 0x62, 0, 0, 1];
const THERE: [u8; 6] = [2, 0x6e, 0x62, 0, 0, 2];
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const BOX: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 16));

/// Runs `body` in private namespaces, by running the test `name` again there.
fn private(name: &str, body: impl FnOnce()) {
    const OUTSIDE: &str = "NETBOX_TEST_OUTSIDE_NETNS";
    if std::env::var("NETBOX_PEERS").as_deref() != Ok("1") {
        println!("{name}: switched off, NETBOX_PEERS is not 1");
        return;
    }
    let here = fs::read_link("/proc/self/ns/net").unwrap();
    if let Some(outside) = std::env::var_os(OUTSIDE) {
        assert_ne!(here.as_os_str(), outside, "this is not a private network namespace");
        return body();
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(OUTSIDE, &here)
        .stdin(Stdio::null())
        .status()
        .expect("unshare(1) of util-linux is needed");
    assert!(status.success(), "{name} in private namespaces (can this user make any?): {status}");
}

/// Makes a network namespace that lives as long as the descriptor.
fn netns() -> OwnedFd {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    };
    thread::spawn(make).join().unwrap().into()
}

/// Runs `body` in a network namespace.
fn inside<T: Send>(netns: BorrowedFd<'_>, body: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        body()
    };
    thread::scope(|scope| scope.spawn(enter).join().unwrap())
}

/// What the ip(8) command prints, in the calling thread's namespace.
fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("ip(8) of iproute2 is needed");
    String::from_utf8(output.stdout).unwrap()
}

fn veth<'a>(name: &'a str, peer_netns: BorrowedFd<'a>) -> Veth<'a> {
    Veth {
        name,
        mac: HERE,
        mtu: 1400,
        peer_name: "eth0",
        peer_mac: THERE,
        peer_netns,
        indexes: None,
        bridge: None,
    }
}

const UP: LinkChange<'_> = LinkChange {
    up: Some(true),
    alias: None,
    addr_gen_mode_none: true,
    forwarding_v4: None,
    mtu: None,
    no_arp: false,
};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn a_veth_is_made_with_its_peer_in_another_namespace_and_set_up_in_one_go() {
    private("a_veth_is_made_with_its_peer_in_another_namespace_and_set_up_in_one_go", || {
        let other = netns();
        let mut route = Route::open().unwrap();
        let index = route.add_veth(&veth("nbtest", other.as_fd())).unwrap();
        assert_eq!(route.link_index("nbtest").unwrap(), index);

        let change = LinkChange { alias: Some("netbox abc"), forwarding_v4: Some(true), ..UP };
        let way = RouteSpec { destination: BOX.into(), dev: Some(index), ..RouteSpec::default() };
        route
            .pipeline(&[
                link::set(index, &change),
                address::add(index, GATEWAY, 32),
                path::add(&way),
                neighbour::set(index, BOX, THERE),
            ])
            .unwrap();
        let link = route.link_by_name("nbtest").unwrap().unwrap();
        assert_eq!((link.mtu, link.up, link.loopback), (1400, true, false));
        assert_eq!((link.alias.as_deref(), link.forwarding_v4), (Some("netbox abc"), true));
        assert_eq!(sysctl::read(&["ipv4", "conf", "nbtest", "forwarding"]).unwrap(), "1");
        assert!(route.addresses().unwrap().contains(&(index, GATEWAY.into())));
        let made = route.main_routes().unwrap();
        assert_eq!(made.len(), 1, "a /32 brings no route of its own: {made:?}");
        assert_eq!((made[0].destination, made[0].dev, made[0].protocol), (BOX.into(), Some(index), PROTOCOL));
        let expected = "198.51.100.16 dev nbtest lladdr 02:6e:62:00:00:02 PERMANENT";
        assert!(ip(&["neighbour", "show"]).contains(expected));

        inside(other.as_fd(), || {
            let mut route = Route::open().unwrap();
            let index = route.link_index("eth0").unwrap();
            let link = route.link_by_name("eth0").unwrap().unwrap();
            assert_eq!((link.mtu, link.up), (1400, false));
            route
                .pipeline(&[
                    link::set(index, &UP),
                    address::add(index, BOX, 32),
                    path::add(&RouteSpec {
                        via: Some(GATEWAY),
                        onlink: true,
                        dev: Some(index),
                        ..RouteSpec::default()
                    }),
                ])
                .unwrap();
            let facts = observe().unwrap();
            let uplink = facts.uplink.unwrap();
            assert_eq!((uplink.name.as_str(), uplink.mtu, uplink.address), ("eth0", 1400, Some(BOX)));
        });
        // An end that was left to itself has an IPv6 address by the time its peer is up as well.
        let alone = netns();
        route.add_veth(&veth("nbalone", alone.as_fd())).map(|own| route.set_link(own, &UP)).unwrap().unwrap();
        let itself = LinkChange { addr_gen_mode_none: false, ..UP };
        inside(alone.as_fd(), || {
            let mut route = Route::open().unwrap();
            let index = route.link_index("eth0").unwrap();
            route.set_link(index, &itself).unwrap();
            let deadline = Instant::now() + Duration::from_secs(5);
            while !ip(&["-6", "address", "show"]).contains("fe80::") {
                assert!(Instant::now() < deadline, "this test cannot see what it asserts the absence of");
            }
        });
        assert_eq!(ip(&["-6", "address", "show"]), "");

        // What is down again forwards no more, should it be asked to stop: 0 is not left out.
        route.set_link(index, &LinkChange { forwarding_v4: Some(false), ..LinkChange::default() }).unwrap();
        assert!(!route.link_by_name("nbtest").unwrap().unwrap().forwarding_v4);
    });
}

#[test]
fn a_link_can_be_removed_twice_and_its_name_not_be_taken_twice() {
    private("a_link_can_be_removed_twice_and_its_name_not_be_taken_twice", || {
        let other = netns();
        let mut route = Route::open().unwrap();
        let index = route.add_veth(&veth("nbtest", other.as_fd())).unwrap();
        let taken = route.add_veth(&veth("nbtest", other.as_fd())).unwrap_err();
        assert_eq!(taken.raw_os_error(), Some(libc::EEXIST));
        route.remove_link("nbtest").unwrap();
        route.remove_link("nbtest").unwrap();
        assert_eq!(route.delete_link(index).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert_eq!(route.link_by_name("nbtest").unwrap(), None);
    });
}

#[test]
fn routes_and_rules_are_added_once_and_can_be_removed_twice() {
    private("routes_and_rules_are_added_once_and_can_be_removed_twice", || {
        let other = netns();
        let mut route = Route::open().unwrap();
        let index = route.add_veth(&veth("nb0", other.as_fd())).unwrap();
        route.set_link(index, &UP).unwrap();
        // IPv6 puts a metric of its own where none was asked for (IP6_RT_PRIO_USER).
        for (pool, metric) in [(net("198.51.100.0/24"), 0), (net("2001:db8:5::/64"), 1024)] {
            let before = (route.routes().unwrap(), route.rules().unwrap());

            let way =
                RouteSpec { destination: pool, table: 0x6e62, dev: Some(index), ..RouteSpec::default() };
            let wall =
                RouteSpec { kind: RouteKind::Unreachable, dev: None, metric: Some(4096), ..way.clone() };
            for spec in [&way, &wall] {
                route.add_route(spec).unwrap();
                assert_eq!(route.add_route(spec).unwrap_err().raw_os_error(), Some(libc::EEXIST));
                route.add_route(&RouteSpec { replace: true, ..spec.clone() }).unwrap();
            }
            let made: Vec<_> =
                route.routes().unwrap().into_iter().filter(|it| it.protocol == PROTOCOL).collect();
            let kinds: Vec<_> = made.iter().map(|it| (it.kind, it.metric, it.table)).collect();
            assert_eq!(kinds, [(RouteKind::Unicast, metric, 0x6e62), (RouteKind::Unreachable, 4096, 0x6e62)]);

            let rules = [
                RuleSpec { priority: 10, destination: pool, table: 0x6e62, ..RuleSpec::default() },
                RuleSpec {
                    priority: 11,
                    destination: IpNet::new(pool.addr(), 0).unwrap().trunc(),
                    iif: Some("nb0".to_owned()),
                    fwmark: Some((0x80_0000, 0x80_0000)),
                    table: 254,
                },
            ];
            for rule in &rules {
                route.add_rule(rule).unwrap();
                assert_eq!(route.add_rule(rule).unwrap_err().raw_os_error(), Some(libc::EEXIST));
            }
            let ours = route.rules().unwrap().into_iter().filter(|rule| rule.protocol == PROTOCOL);
            assert_eq!(ours.map(|rule| rule.spec).collect::<Vec<_>>(), rules);

            // Another program's route of the same shape is not taken away with ours.
            let foreign = RouteSpec { protocol: 4, metric: Some(7), ..way.clone() };
            route.add_route(&foreign).unwrap();
            for _ in 0..2 {
                for spec in [&way, &wall, &RouteSpec { protocol: PROTOCOL, ..foreign.clone() }] {
                    route.remove_route(spec).unwrap();
                }
                for rule in &rules {
                    route.remove_rule(rule).unwrap();
                }
            }
            assert_eq!(route.routes().unwrap().iter().filter(|it| it.table == 0x6e62).count(), 1);
            route.delete_route(&foreign).unwrap();
            assert_eq!((route.routes().unwrap(), route.rules().unwrap()), before);
        }
    });
}

#[test]
fn the_first_refusal_of_several_requests_is_the_one_that_is_told() {
    private("the_first_refusal_of_several_requests_is_the_one_that_is_told", || {
        let mut route = Route::open().unwrap();
        let lost = RouteSpec { via: Some(GATEWAY), ..RouteSpec::default() };
        let refused = route
            .pipeline(&[
                link::set(1, &LinkChange { up: Some(true), ..LinkChange::default() }),
                path::add(&lost),
                address::add(4711, BOX, 32),
                link::set(1, &LinkChange::default()),
            ])
            .unwrap_err();
        assert_eq!((refused.index, refused.refusal.errno), (1, libc::ENETUNREACH));
        let told = netbox::error::Error::from(refused).to_string();
        assert_eq!(
            told,
            "ip route add default table 254: network is unreachable (Nexthop has invalid gateway)"
        );
        assert!(route.link_by_name("lo").unwrap().unwrap().up, "what came before it is done");
        // And nothing of it is left over in the socket.
        assert_eq!(route.link_by_name("nbnone").unwrap(), None);
        route.pipeline(&[]).unwrap();
    });
}

#[test]
fn a_sysctl_is_written_in_the_namespace_of_the_caller_only() {
    private("a_sysctl_is_written_in_the_namespace_of_the_caller_only", || {
        let other = netns();
        let range = ["ipv4", "ping_group_range"];
        let before = sysctl::read(&range).unwrap();
        assert_ne!(before, "0\t0");
        inside(other.as_fd(), || {
            sysctl::write(&range, "0 0").unwrap();
            assert_eq!(sysctl::read(&range).unwrap(), "0\t0");
        });
        assert_eq!(sysctl::read(&range).unwrap(), before);
        let gone = sysctl::write(&["ipv4", "conf", "nbnone", "forwarding"], "1").unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ENOENT));
        assert_eq!(sysctl::write(&range, "nonsense").unwrap_err().raw_os_error(), Some(libc::EINVAL));
    });
}

/// As where `net.core.devconf_inherit_init_net` is 1 and the host has IPv6 on some interfaces only.
#[test]
fn a_box_that_inherited_that_ipv6_is_off_has_it_all_the_same() {
    private("a_box_that_inherited_that_ipv6_is_off_has_it_all_the_same", || {
        let ipv6 = Ipv6::Pool("fd12::/64".parse().unwrap());
        let topology = Topology { pool: "198.51.100.0/24".parse().unwrap(), ipv6, number: 0, mtu: 1400 };
        let link = BoxLink::new(&Attachment::at_most(topology, 0, Vec::new()), 1400);
        let all_is_there = || {
            let addresses = ip(&["address", "show", "dev", "eth0"]);
            assert!(
                addresses.contains("198.51.100.16/32") && addresses.contains("fd12::10/128"),
                "{addresses}"
            );
            let routes = ip(&["-6", "route", "show", "table", "all"]);
            assert!(routes.contains("default via fd12::1 dev eth0"), "{routes}");
            assert!(routes.contains("local fd12::10 dev eth0"), "{routes}");
        };
        // The box of a user, and one of root, in which nobody may write to settings.
        for cover in [None, Some(Mount::ReadOnly("/proc/sys/net"))] {
            let gateway = netns();
            let mut route = Route::open().unwrap();
            let indexes = Some((ETH_INDEX, 1000));
            let other = Veth { peer_name: "nbtest", ..veth("eth0", gateway.as_fd()) };
            route.add_veth(&Veth { indexes, ..other }).unwrap();
            sysctl::write(&["ipv6", "conf", "eth0", "disable_ipv6"], "1").unwrap();
            cover.iter().try_for_each(mounts::make).unwrap();
            box_network::configure(std::slice::from_ref(&link), cover.as_ref()).unwrap();
            all_is_there();
            let written = sysctl::write(&["ipv6", "conf", "eth0", "accept_ra"], "0");
            assert_eq!(written.is_ok(), cover.is_none(), "{written:?}");
            if cover.is_none() {
                route.delete_link(ETH_INDEX).unwrap();
            }
        }
    });
}

#[test]
fn the_host_is_observed_and_gets_a_pool_that_is_nobodys() {
    private("the_host_is_observed_and_gets_a_pool_that_is_nobodys", || {
        let bare = observe().unwrap();
        assert_eq!((bare.uplink, bare.links.len()), (None, 1), "a host without uplink is legal");
        let (wan, vpn) = (netns(), netns());
        let mut route = Route::open().unwrap();
        for (name, netns, own) in [("wan0", &wan, "10.77.200.5/16"), ("vpn0", &vpn, "203.0.113.9/24")] {
            let index = route.add_veth(&veth(name, netns.as_fd())).unwrap();
            route.set_link(index, &UP).unwrap();
            route.add_address(index, net(own).addr(), net(own).prefix_len()).unwrap();
        }
        let (wan, vpn) = (route.link_index("wan0").unwrap(), route.link_index("vpn0").unwrap());
        for (dev, via, metric) in [(vpn, "203.0.113.1", 600), (wan, "10.77.0.1", 100)] {
            let via = Some(via.parse().unwrap());
            let default = RouteSpec { via, dev: Some(dev), metric: Some(metric), ..RouteSpec::default() };
            route.add_route(&default).unwrap();
        }
        let elsewhere = RouteSpec {
            destination: net("10.79.128.0/24"),
            dev: Some(vpn),
            table: 100,
            ..RouteSpec::default()
        };
        route.add_route(&elsewhere).unwrap();
        sysctl::write(&["ipv4", "conf", "vpn0", "forwarding"], "1").unwrap();

        let facts = observe().unwrap();
        let uplink = facts.uplink.as_ref().unwrap();
        assert_eq!((uplink.name.as_str(), uplink.index, uplink.mtu), ("wan0", wan, 1400));
        assert_eq!(uplink.address, Some(Ipv4Addr::new(10, 77, 200, 5).into()));
        assert!(facts.routes.contains(&net("10.79.128.0/24")) && facts.routes.contains(&net("10.77.0.0/16")));
        assert!(!facts.routes.contains(&net("10.77.200.5/32")), "the local table is not about others");
        assert!(
            !facts.forwarding.global && facts.forwarding.links["vpn0"] && !facts.forwarding.links["wan0"]
        );
        assert_eq!(IpNet::V4(pool::choose(&facts).unwrap()), net("10.83.128.0/18"));
    });
}

#[test]
fn the_holder_of_a_port_is_named() {
    private("the_holder_of_a_port_is_named", || {
        let mut route = Route::open().unwrap();
        route.set_link(1, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        let assert_named = |protocol, port| {
            let holder = holder_of_port(protocol, loopback(port)).unwrap();
            assert_eq!((holder.pid, holder.uid), (i32::try_from(std::process::id()).ok(), 0));
            assert_eq!(holder.to_string(), format!("{} (pid {})", own.trim_end(), std::process::id()));
        };
        for address in ["127.0.0.1:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            assert_named(Protocol::Tcp, port);
            assert_eq!(holder_of_port(Protocol::Udp, loopback(port)), None);
            drop(listener);
            assert_eq!(holder_of_port(Protocol::Tcp, loopback(port)), None);

            let socket = UdpSocket::bind(address).unwrap();
            let port = socket.local_addr().unwrap().port();
            assert_named(Protocol::Udp, port);
            assert_eq!(holder_of_port(Protocol::Tcp, loopback(port)), None);
        }
    });
}

#[test]
fn namespaces_are_told_apart_by_their_cookies() {
    private("namespaces_are_told_apart_by_their_cookies", || {
        let other = netns();
        let cookie = || netns_cookie(Route::open().unwrap().as_fd()).unwrap();
        let there = [inside(other.as_fd(), cookie), inside(other.as_fd(), cookie)];
        assert_eq!(there[0], there[1]);
        assert_ne!(there[0], cookie());
    });
}
