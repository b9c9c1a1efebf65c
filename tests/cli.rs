//! What is typed, and what netbox takes it for.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what is wrong by failing")]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use netbox::cli::{self, Stop};
use netbox::spec::request::{LogsRequest, RmRequest};
use netbox::spec::{
    BoxRef, EnvSetting, ExecRequest, Export, Filters, GroupRef, HostPort, JsonPointer, Net, NetnsName,
    PortCommand, Request, RunRequest, SearchDomain, SignalNumber, Unshare, UserRef, Which,
};

fn parse(args: &[&str]) -> Result<Request, Stop> {
    cli::parse(["netbox"].iter().chain(args).map(OsString::from))
}

fn run(args: &[&str]) -> RunRequest {
    match parse(&[&["run"], args].concat()) {
        Ok(Request::Run(request)) => *request,
        other => panic!("{args:?}: {other:?}"),
    }
}

/// The first line of what is said about a wrong command line.
fn wrong(args: &[&str]) -> String {
    let stop = parse(args).expect_err(&format!("{args:?}"));
    assert_eq!((stop.status, stop.to_stdout), (2, false), "{args:?}");
    assert!(stop.text.starts_with("netbox: ") && stop.text.ends_with('\n'), "{:?}", stop.text);
    stop.text.lines().next().unwrap().to_owned()
}

#[test]
fn a_bare_run() {
    let expected = RunRequest { command: vec!["true".into()], ..Default::default() };
    assert_eq!(run(&["true"]), expected);
    assert_eq!(run(&["--", "true"]), expected);
    assert_eq!(expected.net, Net::Nat);
}

#[test]
fn every_option_of_run() {
    let request = run(&[
        "-p",
        "8080:80",
        "--publish",
        "127.0.0.1::443",
        "-p=9000:90",
        "--network",
        "nat",
        "--mtu",
        "1400",
        "--dns",
        "192.0.2.53",
        "--dns=fe80::1%eth0",
        "--dns-search",
        "a.test",
        "--dns-search=b.test",
        "--add-host",
        "db:192.0.2.7",
        "--add-host=v6=[::1]",
        "--name",
        "web",
        "-u",
        "alice:50",
        "-w",
        "/srv",
        "-e",
        "A=1",
        "--env=B",
        "-eC=",
        "--clear-env",
        "--hostname",
        "web.example.org",
        "--unshare-mount",
        "--unshare-pid",
        "--unshare-uts",
        "--unshare-ipc",
        "--cap-add",
        "net_admin",
        "--cap-add=CAP_NET_RAW",
        "--cap-drop",
        "all",
        "--allow-new-privs",
        "--timeout",
        "1h30m",
        "--keep-fd",
        "3",
        "--keep-fd=0",
        "--json-status-fd",
        "4",
        "--mac",
        "02-00-5E-10-00-01",
        "--ip",
        "10.99.0.16",
        "--ip6=fd00::10",
        "--pool",
        "10.99.0.0/24",
        "--snat",
        "2001:db8::1",
        "--dry-run",
        "--json",
        "--verbose",
        "--verbose",
        "--",
        "nginx",
        "-g",
        "daemon off;",
    ]);
    let ports: Vec<_> = request.publish.iter().map(ToString::to_string).collect();
    assert_eq!(ports, [":8080:80/tcp", ":9000:90/tcp", "127.0.0.1::443/tcp"]);
    assert_eq!(request.publish[2].host, HostPort::Ephemeral);
    assert_eq!(request.net, Net::Nat);
    assert_eq!(request.mtu, Some(1400));
    assert_eq!((request.mac, request.no_ipv6), (Some([2, 0, 0x5e, 0x10, 0, 1]), false));
    let shown = [
        request.ip.unwrap().to_string(),
        request.ip6.unwrap().to_string(),
        request.pool.unwrap().to_string(),
    ];
    assert_eq!(shown, ["10.99.0.16", "fd00::10", "10.99.0.0/24"]);
    assert_eq!(request.snat.unwrap().to_string(), "2001:db8::1");
    assert!(run(&["--no-ipv6", "ls"]).no_ipv6);
    let opened = run(&["--host-port", "5432", "--host-port=123:1123/udp", "--host-port", "5432/tcp", "ls"]);
    let opened: Vec<_> = opened.host_ports.iter().map(ToString::to_string).collect();
    assert_eq!(opened, ["5432:5432/tcp", "123:1123/udp"]);
    let shown: Vec<_> = request.dns.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["192.0.2.53", "fe80::1%eth0"]);
    let domains: Vec<_> = request.dns_search.iter().flatten().map(SearchDomain::as_str).collect();
    assert_eq!(domains, ["a.test", "b.test"]);
    let hosts: Vec<_> =
        request.add_host.iter().map(|host| format!("{} {}", host.address, host.name)).collect();
    assert_eq!(hosts, ["192.0.2.7 db", "::1 v6"]);
    assert_eq!(run(&["--dns-search", ".", "ls"]).dns_search, Some(Vec::new()));
    assert_eq!(request.name.unwrap().as_str(), "web");
    let user = request.user.unwrap();
    assert_eq!((user.user, user.group), (UserRef::Name("alice".into()), Some(GroupRef::Id(50))));
    assert_eq!(request.workdir.unwrap(), OsStr::new("/srv"));
    assert_eq!(
        request.env,
        [
            EnvSetting::Set("A".into(), "1".into()),
            EnvSetting::Copy("B".into()),
            EnvSetting::Set("C".into(), "".into())
        ]
    );
    assert!(request.clear_env && request.dry_run && request.json && !request.quiet);
    assert_eq!(request.hostname.unwrap().as_str(), "web.example.org");
    assert_eq!(request.unshare, Unshare { mount: true, pid: true, uts: true, ipc: true });
    assert_eq!(request.cap_add.to_string(), "CAP_NET_ADMIN, CAP_NET_RAW");
    assert!(request.cap_drop.all && request.allow_new_privs);
    assert_eq!(request.timeout, Some(Duration::from_secs(5400)));
    assert_eq!((request.keep_fds, request.json_status_fd), (vec![3, 0], Some(4)));
    assert_eq!(request.verbose, 2);
    assert_eq!(request.command, ["nginx", "-g", "daemon off;"]);
    assert!(run(&["-q", "ls"]).quiet);
    assert_eq!(run(&["--net", "none", "ls"]).net, Net::None);
    assert_eq!(run(&["--net=host", "ls"]).net, Net::Host);
}

#[test]
fn what_follows_the_command_is_the_commands() {
    for command in [
        &["ls", "-la"][..],
        &["ls", "--help"],
        &["ls", "--version"],
        &["ls", "-p", "80", "--net", "none", "--bogus"],
        &["ls", "--", "-x", "--"],
        &["ls", "", " ", "\n"],
        &["run"],
        &["help"],
        &["sh", "-c", "exit 3"],
        &[""],
        &["", "x"],
        &["git", "-C", "/", "--", "log", "--", "a=b"],
    ] {
        assert_eq!(run(command).command, command);
        assert_eq!(run(&[&["-p", "80", "--"], command].concat()).command, command);
    }
    for command in [&["-x", "--help"][..], &["--"], &["--", "ls"], &["-p", "80"]] {
        assert_eq!(run(&[&["--"], command].concat()).command, command);
    }
}

#[test]
fn the_commands_bytes_are_kept() {
    let odd = OsStr::from_bytes(b"\xff\xfe=\x80").to_owned();
    let args = ["netbox", "run", "-e"].map(OsString::from).into_iter();
    let args = args.chain([odd.clone(), "-w".into(), odd.clone(), odd.clone(), odd.clone()]);
    let Ok(Request::Run(request)) = cli::parse(args) else { panic!() };
    assert_eq!(request.command, [odd.clone(), odd.clone()]);
    assert_eq!(request.workdir.unwrap(), odd);
    let EnvSetting::Set(name, value) = &request.env[0] else { panic!() };
    assert_eq!((name.as_bytes(), value.as_bytes()), (&b"\xff\xfe"[..], &b"\x80"[..]));
}

#[test]
fn what_dockers_fingers_type() {
    let expected = run(&["ls"]);
    for args in [
        &["--rm", "ls"][..],
        &["-it", "ls"],
        &["-i", "-t", "ls"],
        &["-ti", "--rm", "ls"],
        &["--interactive", "--tty", "ls"],
        &["-it", "-i", "--rm", "--rm", "--", "ls"],
    ] {
        assert_eq!(run(args), expected, "{args:?}");
    }
}

#[test]
fn the_other_commands() {
    let rm = |force, all, boxes: &[&str]| {
        let boxes = boxes.iter().map(|name| BoxRef::parse(name).unwrap()).collect();
        Ok(Request::Rm(RmRequest { force, all, boxes }))
    };
    assert_eq!(parse(&["rm", "-f", "web", "abc"]), rm(true, false, &["web", "abc"]));
    assert_eq!(parse(&["rm", "--all"]), rm(false, true, &[]));
    let logs = |follow, tail, timestamps| {
        Ok(Request::Logs(LogsRequest { of: BoxRef::parse("web").unwrap(), follow, tail, timestamps }))
    };
    assert_eq!(parse(&["logs", "web"]), logs(false, None, false));
    assert_eq!(parse(&["logs", "-ft", "--tail", "0", "web"]), logs(true, Some(0), true));
    assert_eq!(parse(&["logs", "-n20", "web"]), logs(false, Some(20), false));
    assert_eq!(parse(&["logs", "--tail=all", "web", "-f"]), logs(true, None, false));
    let ps = |json, quiet, texts: &[&str]| {
        let mut filters = Filters::default();
        texts.iter().for_each(|text| filters.add(text).unwrap());
        Ok(Request::Ps { all: false, json, quiet, filters })
    };
    assert_eq!(parse(&["ps"]), ps(false, false, &[]));
    let all = Request::Ps { all: true, json: true, quiet: false, filters: Filters::default() };
    assert_eq!(parse(&["ps", "-a", "--json"]), Ok(all));
    assert_eq!(parse(&["ps", "--json"]), ps(true, false, &[]));
    let both = ["ps", "-q", "--filter", "name=web", "--filter=net=nat"];
    assert_eq!(parse(&both), ps(false, true, &["name=web", "net=nat"]));
    assert_eq!(parse(&["ps", "-qf", "status=exited"]), ps(false, true, &["status=exited"]));
    assert_eq!(parse(&["gc"]), Ok(Request::Gc));
    let command = vec!["ip".into(), "-d".into(), "addr".into()];
    assert_eq!(parse(&["gateway", "ip", "-d", "addr"]), Ok(Request::Gateway { command: command.clone() }));
    assert_eq!(parse(&["gateway", "--", "ip", "-d", "addr"]), Ok(Request::Gateway { command }));
}

fn of(name: &str) -> BoxRef {
    BoxRef::parse(name).unwrap()
}

#[test]
fn the_commands_that_look_at_boxes() {
    let pointer = |text| Some(JsonPointer::parse(text).unwrap());
    for (args, boxes, pointer) in [
        (&["inspect", "web"][..], vec![of("web")], None),
        (&["inspect", "--format", "/0/id", "a", "b"], vec![of("a"), of("b")], pointer("/0/id")),
        (&["inspect", "web", "--format="], vec![of("web")], pointer("")),
    ] {
        assert_eq!(parse(args), Ok(Request::Inspect { boxes, pointer }), "{args:?}");
    }
    let inside = |text: &str| Some(text.parse().unwrap());
    for (args, of, port, json) in [
        (&["port", "ls"][..], None, None, false),
        (&["port", "ls", "web", "--json"], Some(of("web")), None, true),
        (&["port", "ls", "web", "80"], Some(of("web")), inside("80/tcp"), false),
        (&["port", "ls", "--json", "web", "53/udp"], Some(of("web")), inside("53/UDP"), true),
    ] {
        assert_eq!(parse(args), Ok(Request::Port(PortCommand::List { of, port, json })), "{args:?}");
    }
    let ten = Duration::from_secs(10);
    for (args, which, time) in [
        (&["stop", "web", "db"][..], Which::Named(vec![of("web"), of("db")]), ten),
        (&["stop", "-t", "0", "web"], Which::Named(vec![of("web")]), Duration::ZERO),
        (&["stop", "--all", "--time=500ms"], Which::All, Duration::from_millis(500)),
    ] {
        assert_eq!(parse(args), Ok(Request::Stop { which, time }), "{args:?}");
    }
    for (args, signal) in [
        (&["kill", "web"][..], "9"),
        (&["kill", "-s", "HUP", "web"], "1"),
        (&["kill", "web", "--signal=term"], "15"),
    ] {
        let signal = SignalNumber::parse(signal).unwrap();
        assert_eq!(parse(args), Ok(Request::Kill { boxes: vec![of("web")], signal }), "{args:?}");
    }
    for (args, boxes, stream, json) in [
        (&["stats"][..], vec![], true, false),
        (&["stats", "--no-stream", "web", "db", "--json"], vec![of("web"), of("db")], false, true),
    ] {
        assert_eq!(parse(args), Ok(Request::Stats { boxes, stream, json }), "{args:?}");
    }
    assert_eq!(parse(&["monitor"]), Ok(Request::Monitor { json: false }));
    assert_eq!(parse(&["monitor", "--json"]), Ok(Request::Monitor { json: true }));
    assert_eq!(parse(&["pids", "web", "--json"]), Ok(Request::Pids { of: of("web"), json: true }));
    assert_eq!(parse(&["identify"]), Ok(Request::Identify { pid: None }));
    assert_eq!(parse(&["identify", "4121"]), Ok(Request::Identify { pid: Some(4121) }));
    for (args, words) in [
        (&["pids"][..], &["pids needs the name"][..]),
        (&["pids", "a", "b"], &["'b'"]),
        (&["identify", "web"], &["invalid process number \"web\""]),
        (&["identify", "-1"], &["invalid process number \"-1\""]),
        (&["identify", "0"], &["invalid process number"]),
        (&["stop"], &["stop needs the name"]),
        (&["stop", "--all", "web"], &["--all and BOX"]),
        (&["stop", "-t", "-1", "web"], &["\"-1\"", "-t/--time"]),
        (&["kill"], &["kill needs the name"]),
        (&["kill", "-s", "0", "web"], &["invalid signal \"0\""]),
        (&["kill", "--all"], &["--all"]),
        (&["ps", "-q", "--json"], &["-q/--quiet and --json"]),
        (&["port", "ls", "web", "http"], &["invalid port \"http\""]),
        (&["port", "ls", "web", "80", "81"], &["'81'"]),
        (&["ps", "--filter", "status=up"], &["invalid filter \"status=up\"", "running or exited"]),
        (&["ps", "-f", "label=x"], &["invalid filter \"label=x\"", "name, id, net, status and exited"]),
        (&["port"], &["port"]),
        (&["port", "web"], &["web"]),
        (&["port", "ls", "a", "b"], &["invalid port \"b\""]),
        (&["inspect"], &["inspect needs the name"]),
        (&["inspect", "a/b"], &["invalid box name \"a/b\""]),
        (&["inspect", "--format", "{{.Id}}", "web"], &["invalid JSON pointer \"{{.Id}}\""]),
        (&["inspect", "--format", "-x", "web"], &["invalid JSON pointer \"-x\""]),
    ] {
        let text = wrong(args);
        assert!(words.iter().all(|word| text.contains(word)), "{args:?}: {text}");
    }
}

#[test]
fn a_detached_run_needs_no_command() {
    assert_eq!(run(&["-d"]), RunRequest { detach: true, command: Vec::new(), ..run(&["ls"]) });
    assert_eq!(run(&["-dit", "--"]), run(&["--detach"]));
    let removed = run(&["-d", "--rm", "ls"]);
    assert!(removed.detach && removed.remove && removed.command == ["ls"]);
    assert!(!run(&["--rm", "ls"]).remove);
}

#[test]
fn wrong_usage_names_what_is_wrong() {
    for (args, words) in [
        (&[][..], &["netbox"][..]),
        (&["run"], &["run needs a command"]),
        (&["run", "--"], &["run needs a command"]),
        (&["run", "--name", "web"], &["run needs a command"]),
        (&["gateway"], &["gateway needs a command"]),
        (&["rnu", "ls"], &["rnu"]),
        (&[""], &["''"]),
        (&["--bogus"], &["--bogus"]),
        (&["ps", "x"], &["'x'"]),
        (&["gc", "--json"], &["--json"]),
        (&["run", "--bogus", "ls"], &["--bogus"]),
        (&["run", "--bogus=1", "ls"], &["--bogus"]),
        (&["run", "-v", "/a:/b", "ls"], &["-v"]),
        (&["run", "-P", "--net", "none", "ls"], &["--net none", "-P/--publish-all"]),
        (&["run", "--publish-all=80", "ls"], &["--publish-all"]),
        (&["run", "-d", "-e", "A=b"], &["--detach", "--env", "needs a command"]),
        (&["run", "-d", "-w", "/", "--"], &["--detach", "--workdir", "needs a command"]),
        (&["logs"], &["logs needs a box"]),
        (&["logs", "a", "b"], &["'b'"]),
        (&["logs", "../x"], &["\"../x\""]),
        (&["logs", "--tail", "-1", "web"], &["\"-1\"", "--tail"]),
        (&["logs", "-n", "+1", "web"], &["\"+1\"", "--tail"]),
        (&["rm"], &["rm needs a box"]),
        (&["rm", "-f"], &["rm needs a box"]),
        (&["rm", "--all", "web"], &["--all", "web", "contradict"]),
        (&["rm", "--all", "--force"], &["--all", "--force", "contradict"]),
        (&["rm", "a/b"], &["\"a/b\""]),
        (&["run", "--allow", "x", "ls"], &["--allow"]),
        (&["run", "--pub", "80", "ls"], &["--pub"]),
        (&["run", "-p"], &["--publish"]),
        (&["run", "-p", "localhost:1:1", "ls"], &["\"localhost:1:1\"", "\"localhost\" is not an IP address"]),
        (&["run", "-p", "-1", "ls"], &["\"-1\""]),
        (&["run", "-p", "8080:0", "ls"], &["\"8080:0\"", "no port 0"]),
        (&["run", "-p", "8080:80", "-p", "8080:81", "ls"], &[":8080:80/tcp", ":8080:81/tcp"]),
        (&["run", "--net", "default", "ls"], &["\"default\"", "a word of --net"]),
        (&["run", "--net", "", "ls"], &["\"\"", "it is empty"]),
        (&["run", "--net", "netns:", "ls"], &["\"\"", "network namespace"]),
        (&["run", "--net", "box:a b", "ls"], &["\"a b\""]),
        (&["run", "--net", "netns:blue", "-p", "80", "ls"], &["--net netns:blue", "--publish"]),
        (&["run", "--net", "container:web", "--ip", "10.0.0.9", "ls"], &["--net box:web", "--ip"]),
        (&["run", "--net", "db:port=7", "ls"], &["\"db:port=7\"", "ip=", "mac="]),
        (&["run", "--net", "default", "ls"], &["\"default\"", "word of --net"]),
        (&["run", "--net", "db", "--mtu", "1400", "ls"], &["--net db", "--mtu"]),
        (&["run", "--net", "db:ip6=10.9.0.7", "ls"], &["\"10.9.0.7\"", "--ip6", "not an IPv6 address"]),
        (&["run", "--net", "db:ip6=fd00::8", "--ip6", "fd00::7", "ls"], &["--net db:ip6=", "--ip6"]),
        (&["run", "--net", "db:ip6=fd00::8", "--no-ipv6", "ls"], &["--net db", "--no-ipv6"]),
        (&["run", "--net", "db:ip=10.9.0.7", "--ip", "10.9.0.8", "ls"], &["--net db:ip=", "--ip"]),
        (
            &["run", "--net", "db:mac=02:00:00:00:00:07", "--mac", "02:00:00:00:00:08", "ls"],
            &["mac=", "--mac"],
        ),
        (&["network"], &["requires a subcommand"]),
        (&["network", "create"], &["name is missing"]),
        (&["network", "create", "a:b"], &["\"a:b\"", "only a-z"]),
        (&["network", "create", "host"], &["\"host\"", "word of --net"]),
        (&["network", "create", "nat"], &["network nat"]),
        (&["network", "create", "-d", "macvlan", "db"], &["\"macvlan\"", "bridge"]),
        (&["network", "create", "--gateway", "10.9.0.1", "db"], &["--gateway", "--subnet"]),
        (&["network", "create", "--subnet", "10.9.0.1/24", "db"], &["--subnet", "begins at 10.9.0.0"]),
        (&["network", "create", "--subnet", "fd09::/64", "db"], &["--subnet fd09::/64 needs --ipv6"]),
        (
            &["network", "create", "--ipv6", "--subnet", "fd09::/64", "--subnet", "fd08::/64", "db"],
            &["fd09::/64", "fd08::/64", "one range"],
        ),
        (
            &["network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--gateway", "fd09::1", "db"],
            &["--gateway", "--subnet of IPv6"],
        ),
        (&["network", "create", "--ipv6", "--mtu", "1279", "db"], &["--ipv6", "--mtu 1279"]),
        (&["network", "create", "--label", "=x", "db"], &["\"=x\"", "no key"]),
        (&["network", "ls", "--json", "-q"], &["--json", "--quiet"]),
        (&["network", "rm"], &["name is missing"]),
        (&["network", "rm", "nat"], &["network nat"]),
        (&["run", "--net", "", "ls"], &["\"\"", "it is empty"]),
        (&["run", "--mtu", "67", "ls"], &["\"67\"", "68 to 65535"]),
        (&["run", "--mtu", "-5", "ls"], &["\"-5\"", "68 to 65535"]),
        (&["run", "--mac", "-1", "ls"], &["\"-1\"", "--mac", "six bytes"]),
        (&["run", "--mac", "01:00:5e:00:00:01", "ls"], &["--mac", "group"]),
        (&["run", "--net", "none", "--mac", "02:00:5e:10:00:01", "ls"], &["--net none", "--mac"]),
        (&["run", "--net", "host", "--no-ipv6", "ls"], &["--net host", "--no-ipv6"]),
        (&["run", "--ip", "-1", "ls"], &["\"-1\"", "--ip", "not an IPv4 address"]),
        (&["run", "--ip", "fd00::10", "ls"], &["--ip", "IPv6 address"]),
        (&["run", "--ip6", "2001:db8::10", "ls"], &["--ip6", "unique local"]),
        (&["run", "--pool", "10.0.0.0/8", "ls"], &["\"10.0.0.0/8\"", "--pool", "/8"]),
        (&["run", "--pool", "10.99.0.1/24", "ls"], &["--pool", "begins at 10.99.0.0"]),
        (&["run", "--snat", "eth0", "ls"], &["\"eth0\"", "--snat", "not an IP address"]),
        (&["run", "--snat", "127.0.0.1", "ls"], &["\"127.0.0.1\"", "--snat", "no packet"]),
        (&["run", "--net", "host", "--snat", "192.0.2.1", "ls"], &["--net host", "--snat"]),
        (&["run", "--no-ipv6", "--snat", "2001:db8::1", "ls"], &["--no-ipv6", "--snat"]),
        (&["run", "--net", "host", "--ip", "10.99.0.16", "ls"], &["--net host", "--ip"]),
        (&["run", "--net", "none", "--ip6", "fd00::10", "ls"], &["--net none", "--ip6"]),
        (&["run", "--net", "none", "--pool", "10.99.0.0/24", "ls"], &["--net none", "--pool"]),
        (&["run", "--no-ipv6", "--ip6", "fd00::10", "ls"], &["--no-ipv6", "--ip6"]),
        (&["run", "--mtu", "1279", "--ip6", "fd00::10", "ls"], &["--mtu 1279", "--ip6"]),
        (&["run", "--dns", "foobar", "ls"], &["\"foobar\"", "not an IP address"]),
        (&["run", "--dns", "0.0.0.0", "ls"], &["\"0.0.0.0\""]),
        (&["run", "--dns-search", "a b", "ls"], &["\"a b\""]),
        (&["run", "--dns-search", ".", "--dns-search", "a.test", "ls"], &["--dns-search .", "contradict"]),
        (&["run", "--add-host", "db", "ls"], &["\"db\"", "no address"]),
        (&["run", "--add-host", "db:host-gateway", "ls"], &["db:host-gateway", "no service of the host"]),
        (&["run", "--net", "none", "--dns", "::1", "ls"], &["--net none", "--dns"]),
        (&["run", "--host-port", "0", "ls"], &["--host-port", "\"0\"", "no port is 0"]),
        (&["run", "--host-port", "80/sctp", "ls"], &["\"80/sctp\"", "SCTP"]),
        (&["run", "--host-port", "53", "ls"], &["the box's resolver", "53:5353"]),
        (&["run", "--host-port", "80", "--host-port", "81:80", "ls"], &["80:80/tcp", "81:80/tcp"]),
        (&["run", "--net", "none", "--host-port", "80", "ls"], &["--net none", "--host-port"]),
        (&["run", "--net", "box:web", "--host-port", "80", "ls"], &["--net box:web", "--host-port"]),
        (&["run", "--net", "host", "--add-host", "a:::1", "ls"], &["--net host", "--add-host"]),
        (&["run", "--name", "../x", "ls"], &["\"../x\""]),
        (&["run", "--name", "-rf", "ls"], &["\"-rf\"", "start with a letter"]),
        (&["run", "--name", "", "ls"], &["\"\"", "empty"]),
        (&["run", "--name", "a\nb", "ls"], &["\"a\\nb\""]),
        (&["run", "--name", "a", "--name", "b", "ls"], &["--name"]),
        (&["run", "-u", "-1", "ls"], &["\"-1\""]),
        (&["run", "-u", "4294967295", "ls"], &["\"4294967295\""]),
        (&["run", "-w", "", "ls"], &["--workdir"]),
        (&["run", "-e", "=x", "ls"], &["\"=x\""]),
        (&["run", "-e", "", "ls"], &["\"\""]),
        (&["run", "--net", "none", "-p", "80", "ls"], &["--net none", "--publish"]),
        (&["run", "--net", "host", "-p", "80", "ls"], &["--net host", "--publish"]),
        (&["run", "--net", "host", "--mtu", "1400", "ls"], &["--net host", "--mtu"]),
        (&["run", "-q", "--verbose", "ls"], &["--quiet", "--verbose"]),
        (&["run", "--hostname", "a_b", "ls"], &["\"a_b\"", "RFC 1123"]),
        (&["run", "--hostname", "", "ls"], &["\"\"", "empty"]),
        (&["run", "--timeout", "0", "ls"], &["\"0\"", "--timeout", "no time"]),
        (&["run", "--timeout", "-1", "ls"], &["\"-1\"", "--timeout"]),
        (&["run", "--keep-fd", "-1", "ls"], &["\"-1\"", "descriptor"]),
        (&["run", "--json-status-fd", "1", "ls"], &["\"1\"", "--json-status-fd"]),
        (&["run", "--json-status-fd", "3", "--keep-fd", "3", "ls"], &["--json-status-fd", "--keep-fd"]),
        (&["run", "--cap-add", "NET", "ls"], &["\"NET\"", "capability"]),
        (
            &["run", "--cap-add", "KILL", "--cap-drop", "CAP_KILL", "ls"],
            &["--cap-add", "--cap-drop", "CAP_KILL"],
        ),
        (&["run", "--unshare-user", "ls"], &["--unshare-user"]),
        (&["run", "--json", "ls"], &["--json needs --dry-run"]),
    ] {
        let line = wrong(args);
        assert!(words.iter().all(|word| line.contains(word)), "{args:?}: {line}");
    }
}

#[test]
fn wrong_bytes_are_wrong_usage() {
    let odd = OsStr::from_bytes(b"a\xff").to_owned();
    for option in [
        "-p",
        "--net",
        "--mtu",
        "--ip",
        "--ip6",
        "--pool",
        "--snat",
        "--mac",
        "--dns",
        "--dns-search",
        "--add-host",
        "--host-port",
        "--name",
        "-u",
        "--hostname",
        "--timeout",
        "--keep-fd",
        "--cap-add",
    ] {
        let args = ["netbox".into(), "run".into(), option.into(), odd.clone(), "ls".into()];
        let stop = cli::parse(args).unwrap_err();
        assert_eq!(stop.status, 2);
        assert!(stop.text.contains(r#""a\xFF""#) && stop.text.contains(option), "{}", stop.text);
    }
    for args in [vec![odd.clone()], vec!["ps".into(), odd.clone()]] {
        let stop = cli::parse([OsString::from("netbox")].into_iter().chain(args)).unwrap_err();
        assert_eq!((stop.status, stop.to_stdout), (2, false));
    }
    assert_eq!(cli::parse([]).unwrap_err().status, 2, "without even the program's name");
}

#[test]
fn a_network_is_exported_by_the_boxs_name_or_another() {
    let export = |args: &[&str]| run(&[args, &["--", "true"]].concat()).export_netns;
    assert_eq!(export(&[]), None);
    assert_eq!(export(&["--export-netns"]), Some(Export::OfBox));
    assert_eq!(export(&["--export-netns=blue"]), Some(Export::As(NetnsName::parse("blue").unwrap())));
    assert_eq!(run(&["--export-netns", "true"]).command, ["true"]);
    for (name, because) in [("", "empty"), ("..", "directory"), ("a/b", "slash")] {
        let argument = format!("--export-netns={name}");
        assert!(wrong(&["run", &argument, "--", "true"]).contains(because), "{name}");
    }
}

fn exec(args: &[&str]) -> ExecRequest {
    match parse(&[&["exec"], args].concat()) {
        Ok(Request::Exec(request)) => *request,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn a_box_and_what_is_to_be_run_in_it() {
    let words = |request: &ExecRequest| {
        let words: Vec<_> = request.command.iter().map(|word| word.to_str().unwrap().to_owned()).collect();
        (request.target.as_ref().map(ToString::to_string), words.join(" "))
    };
    let in_web = |command: &str| (Some("web".to_owned()), command.to_owned());
    assert_eq!(words(&exec(&["web", "--", "ls", "-l"])), in_web("ls -l"));
    assert_eq!(words(&exec(&["web", "ls", "-l"])), in_web("ls -l"));
    assert_eq!(words(&exec(&["--", "web", "ls"])), in_web("ls"));
    assert_eq!(words(&exec(&["-it", "web", "sh"])), in_web("sh"));
    assert_eq!(words(&exec(&["web", "--", "--", "-u"])), in_web("-- -u"));
    assert_eq!(words(&exec(&["web", "-u", "ada"])), in_web("-u ada"));
    assert_eq!(words(&exec(&["--all", "--", "ls", "-l"])), (None, "ls -l".to_owned()));
    assert_eq!(words(&exec(&["--all", "ls"])), (None, "ls".to_owned()));
    let full = exec(&["-u", "ada:50", "-w", "/srv", "-e", "A=1", "--env=B", "--clear-env", "web", "ls"]);
    assert_eq!(full.user.unwrap().user, UserRef::Name("ada".into()));
    assert_eq!(full.workdir.unwrap().to_str(), Some("/srv"));
    assert_eq!(full.env, [EnvSetting::Set("A".into(), "1".into()), EnvSetting::Copy("B".into())]);
    assert!(full.clear_env);
    for (args, expected) in [
        (&["exec"][..], "exec needs the name of a box"),
        (&["exec", "web"], "exec needs a command to start"),
        (&["exec", "web", "--"], "exec needs a command to start"),
        (&["exec", "--all"], "exec needs a command to start"),
        (&["exec", "a/b", "--", "ls"], "invalid"),
        (&["exec", "-w", "", "web", "ls"], "invalid directory"),
        (&["exec", "-u", "", "web", "ls"], "invalid user"),
    ] {
        assert!(wrong(args).contains(expected), "{args:?}: {}", wrong(args));
    }
}

#[test]
fn help_and_version_are_for_stdout() {
    for (args, words) in [
        (&["--help"][..], &["Usage: netbox", "run", "ps", "gc", "gateway", "--version"][..]),
        (&["-h"], &["Usage: netbox"]),
        (&["help"], &["Usage: netbox"]),
        (
            &["run", "--help"],
            &["Usage: netbox run [OPTIONS] [--] COMMAND [ARG...]", "-p, --publish <SPEC>", "--network"],
        ),
        (&["help", "run"], &["Usage: netbox run [OPTIONS] [--] COMMAND [ARG...]", "-p, --publish <SPEC>"]),
        (&["run", "-p", "80", "-h"], &["Usage: netbox run"]),
        (&["port", "add", "--help"], &["Usage: netbox port add NAME SPEC..."]),
        (&["port", "rm", "--help"], &["Usage: netbox port rm NAME SPEC..."]),
        (&["exec", "--help"], &["Usage: netbox exec [OPTIONS] BOX [--] COMMAND [ARG...]", "-u, --user"]),
        (&["logs", "--help"], &["Usage: netbox logs [OPTIONS] BOX", "--tail"]),
        (&["rm", "--help"], &["Usage: netbox rm [-f] BOX...", "--all"]),
        (&["wait", "--help"], &["Usage: netbox wait BOX..."]),
        (&["ps", "--help"], &["Usage: netbox ps [OPTIONS]", "-f, --filter <KEY=VALUE>"]),
        (&["inspect", "--help"], &["Usage: netbox inspect [--format POINTER] BOX..."]),
        (&["port", "--help"], &["Usage: netbox port", "ls"]),
        (&["port", "ls", "--help"], &["Usage: netbox port ls [--json] [BOX [PORT[/PROTOCOL]]]"]),
        (&["stop", "--help"], &["Usage: netbox stop [-t DURATION] BOX... | --all"]),
        (&["kill", "--help"], &["Usage: netbox kill [-s SIGNAL] BOX..."]),
        (&["pids", "--help"], &["Usage: netbox pids [--json] BOX"]),
        (&["identify", "--help"], &["Usage: netbox identify [PID]"]),
        (&["stats", "--help"], &["Usage: netbox stats [--no-stream] [--json] [BOX...]"]),
        (&["monitor", "--help"], &["Usage: netbox monitor [--json]"]),
        (&["gc", "--help"], &["Usage: netbox gc"]),
        (&["gateway", "--help"], &["Usage: netbox gateway [--] COMMAND [ARG...]"]),
    ] {
        let stop = parse(args).unwrap_err();
        assert_eq!((stop.status, stop.to_stdout), (0, true), "{args:?}");
        assert!(words.iter().all(|word| stop.text.contains(word)), "{args:?}: {}", stop.text);
    }
    for args in [&["--version"], &["-V"]] {
        let stop = parse(args).unwrap_err();
        let text = format!("netbox {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(stop, Stop { text, to_stdout: true, status: 0 });
    }
}

#[test]
fn the_whole_tree_is_sound_and_has_every_command() {
    let tree = cli::command();
    let names: Vec<_> = tree.get_subcommands().map(clap::Command::get_name).collect();
    let expected =
        "run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway";
    assert_eq!(names, expected.split(' ').collect::<Vec<_>>());
    tree.debug_assert();
}
