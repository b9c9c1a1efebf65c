use super::*;

/// What a spec stands for, each port in its canonical form.
fn ports(spec: &str) -> Vec<String> {
    let parsed: PublishSpec = spec.parse().unwrap_or_else(|error| panic!("{error}"));
    parsed.requests().iter().map(ToString::to_string).collect()
}

/// Docker's table (go-connections `nat_test.go`), then Podman's and nerdctl's where they agree with it,
/// then the corners.
#[test]
fn accepted() {
    for (spec, expected) in [
        ("1234/tcp", &["::1234/tcp"][..]),
        ("2345/udp", &["::2345/udp"]),
        ("3456/sctp", &["::3456/sctp"]),
        ("1234:1234/tcp", &[":1234:1234/tcp"]),
        ("2345:2345/udp", &[":2345:2345/udp"]),
        ("3456:3456/sctp", &[":3456:3456/sctp"]),
        ("0.0.0.0:1234:1234/tcp", &["0.0.0.0:1234:1234/tcp"]),
        ("0.0.0.0:2345:2345/udp", &["0.0.0.0:2345:2345/udp"]),
        ("0.0.0.0:3456:3456/sctp", &["0.0.0.0:3456:3456/sctp"]),
        ("1234-1236/tcp", &["::1234/tcp", "::1235/tcp", "::1236/tcp"]),
        ("2345-2347/udp", &["::2345/udp", "::2346/udp", "::2347/udp"]),
        ("3456-3458/sctp", &["::3456/sctp", "::3457/sctp", "::3458/sctp"]),
        ("1234-1236:1234-1236/tcp", &[":1234:1234/tcp", ":1235:1235/tcp", ":1236:1236/tcp"]),
        ("2345-2347:2345-2347/udp", &[":2345:2345/udp", ":2346:2346/udp", ":2347:2347/udp"]),
        ("3456-3458:3456-3458/sctp", &[":3456:3456/sctp", ":3457:3457/sctp", ":3458:3458/sctp"]),
        (
            "0.0.0.0:1234-1236:1234-1236/tcp",
            &["0.0.0.0:1234:1234/tcp", "0.0.0.0:1235:1235/tcp", "0.0.0.0:1236:1236/tcp"],
        ),
        (
            "0.0.0.0:2345-2347:2345-2347/udp",
            &["0.0.0.0:2345:2345/udp", "0.0.0.0:2346:2346/udp", "0.0.0.0:2347:2347/udp"],
        ),
        (
            "0.0.0.0:3456-3458:3456-3458/sctp",
            &["0.0.0.0:3456:3456/sctp", "0.0.0.0:3457:3457/sctp", "0.0.0.0:3458:3458/sctp"],
        ),
        ("0.0.0.0:1234-1235:3333-3334/tcp", &["0.0.0.0:1234:3333/tcp", "0.0.0.0:1235:3334/tcp"]),
        ("192.168.1.100::80", &["192.168.1.100::80/tcp"]),
        ("192.168.1.100:8080:80", &["192.168.1.100:8080:80/tcp"]),
        ("192.168.1.100::6000/udp", &["192.168.1.100::6000/udp"]),
        ("192.168.1.100::6000/sctp", &["192.168.1.100::6000/sctp"]),
        ("[2001:4860:0:2001::68]::333", &["[2001:4860:0:2001::68]::333/tcp"]),
        ("[::1]:80:80", &["[::1]:80:80/tcp"]),
        ("2001:4860:0:2001::68::333", &["[2001:4860:0:2001::68]::333/tcp"]),
        ("::1:80:80", &["[::1]:80:80/tcp"]),
        ("::::80", &["[::]::80/tcp"]),
        (":8080:6000/tcp", &[":8080:6000/tcp"]),
        ("::6000", &["::6000/tcp"]),
        ("192.168.1.100:8080:6000", &["192.168.1.100:8080:6000/tcp"]),
        ("[::1]:8080:6000/udp", &["[::1]:8080:6000/udp"]),
        ("[::1]::6000/udp", &["[::1]::6000/udp"]),
        ("::1:8080:6000/udp", &["[::1]:8080:6000/udp"]),
        ("::::6000/udp", &["[::]::6000/udp"]),
        // The host's range is a pool.
        ("8000-9000:80", &[":8000-9000:80/tcp"]),
        ("127.0.0.1:8000-9000:80/udp", &["127.0.0.1:8000-9000:80/udp"]),
        // Single ports.
        ("0123", &["::123/tcp"]),
        ("0123:80", &[":123:80/tcp"]),
        ("65535", &["::65535/tcp"]),
        ("65535:80", &[":65535:80/tcp"]),
        ("1234-1234", &["::1234/tcp"]),
        ("1234-1234:80", &[":1234:80/tcp"]),
        ("1234-1234:80-80", &[":1234:80/tcp"]),
        // No host port, or 0, is any port.
        ("0:80", &["::80/tcp"]),
        ("192.0.2.1:0:80", &["192.0.2.1::80/tcp"]),
        (":80", &["::80/tcp"]),
        // Protocols in any case, and none after the slash.
        ("1234/", &["::1234/tcp"]),
        ("1234/UDP", &["::1234/udp"]),
        ("80-81/udp", &["::80/udp", "::81/udp"]),
        ("8480:80/TCP", &[":8480:80/tcp"]),
        // The long form.
        ("target=10,published=20", &[":20:10/tcp"]),
        ("published=1500,target=200", &[":1500:200/tcp"]),
        ("published=1500,target=200,protocol=udp", &[":1500:200/udp"]),
        ("protocol=sctp,target=200", &["::200/sctp"]),
        ("published=,target=200,protocol=", &["::200/tcp"]),
        ("published=8000-9000,target=80", &[":8000-9000:80/tcp"]),
        ("published=8000-8001,target=80-81", &[":8000:80/tcp", ":8001:81/tcp"]),
        ("published=127.0.0.1:8080,target=80", &["127.0.0.1:8080:80/tcp"]),
        // Podman's and nerdctl's.
        ("80-82", &["::80/tcp", "::81/tcp", "::82/tcp"]),
        ("127.0.0.1::8980/udp", &["127.0.0.1::8980/udp"]),
        ("127.0.0.1:3000-3001:8080-8081/tcp", &["127.0.0.1:3000:8080/tcp", "127.0.0.1:3001:8081/tcp"]),
        ("[::0]:8080:80/tcp", &["[::]:8080:80/tcp"]),
        // Go's net.ParseIP prints this as IPv4 too.
        ("[::ffff:192.0.2.1]:8080:80", &["192.0.2.1:8080:80/tcp"]),
        ("[192.0.2.1]:8080:80", &["192.0.2.1:8080:80/tcp"]),
    ] {
        assert_eq!(ports(spec), expected, "{spec}");
        let parsed: PublishSpec = spec.parse().unwrap();
        assert_eq!(parsed.to_string().parse(), Ok(parsed), "the canonical form of {spec} means the same");
        for port in ports(spec) {
            assert_eq!(ports(&port), [port.as_str()], "and so does that of each port");
        }
    }
}

#[test]
fn rejected() {
    for (spec, cause) in [
        ("", "names no port of the box"),
        ("0.0.0.0:1234-1235:/tcp", "names no port of the box"),
        ("0.0.0.0:1234-1235:", "names no port of the box"),
        ("localhost:1234:1234/tcp", "\"localhost\" is not an IP address"),
        ("localhost:1234-1236:1234-1236/tcp", "\"localhost\" is not an IP address"),
        ("localhost:1234:1234/udp", "\"localhost\" is not an IP address"),
        ("localhost:1234-1236:1234-1236/sctp", "\"localhost\" is not an IP address"),
        ("192.168.1.100", "\"192.168.1.100\" is neither a port nor a range"),
        ("192.168.1.100:-1:-1", "\"-1\" is neither a port nor a range"),
        // Ranges of different lengths.
        ("1234-1236:80-81", "1234-1236 of the host and 80-81 of the box are not the same number of ports"),
        ("8080:80-81", "8080 of the host and 80-81 of the box"),
        ("0:80-81", "0 of the host and 80-81 of the box"),
        ("127.0.0.1:3000-3001:8080-8082/tcp", "3000-3001 of the host and 8080-8082 of the box"),
        // Protocols.
        ("80/icmp", "\"icmp\" is not tcp, udp or sctp"),
        ("3000:8080/invalid", "\"invalid\" is not tcp, udp or sctp"),
        ("80/tcp/udp", "\"tcp/udp\" is not tcp, udp or sctp"),
        ("127.0.0.1:3000:8080/tcp/", "\"tcp/\" is not tcp, udp or sctp"),
        ("80/tcp,udp", "is not tcp, udp or sctp"),
        ("80/1", "\"1\" is not tcp, udp or sctp"),
        ("/tcp", "names no port of the box"),
        ("/udp", "names no port of the box"),
        (":", "names no port of the box"),
        ("::", "names no port of the box"),
        ("NaN/tcp", "\"NaN\" is neither"),
        ("NaN-NaN/tcp", "\"NaN-NaN\" is neither"),
        ("8080-NaN/tcp", "\"8080-NaN\" is neither"),
        ("1234567890-8080/tcp", "port 1234567890 is above 65535"),
        // Port 0.
        ("0", "a box has no port 0"),
        ("8080:0", "a box has no port 0"),
        ("0-5", "a box has no port 0"),
        ("0-5:80", "cannot be part of the range 0-5"),
        ("0-1:80-81", "cannot be part of the range 0-1"),
        // The long form.
        ("published=1500,target:444", "expected name=value, not \"target:444\""),
        ("published=1500,444", "expected name=value, not \"444\""),
        ("published=1500,target,444", "expected name=value, not \"target\""),
        ("published=1500,=444", "expected name=value, not \"=444\""),
        ("published=1500,", "expected name=value, not \"\""),
        ("=", "expected name=value, not \"=\""),
        ("published=1500", "target, the port in the box, is missing"),
        ("published=1500,target=", "names no port of the box"),
        ("published=1500,target=80,mode=host", "unknown key \"mode\""),
        ("published=1500,target=80,target=81", "target is given twice"),
        ("target=8080:80", "\"8080:80\" is neither"),
        ("target=80/udp", "\"80/udp\" is neither"),
        ("published=80/udp,target=80", "\"80/udp\" is neither"),
        ("published=0,target=0", "a box has no port 0"),
        ("Target=80", "unknown key \"Target\""),
        // Addresses.
        ("127.0.0.256:3000:8080/tcp", "\"127.0.0.256\" is not an IP address"),
        ("127.0.0.1:3000:0.0.0.0:8080", "\"127.0.0.1:3000\" is not an IP address"),
        ("[::1:80:80", "\"[::1\" is not an IP address"),
        ("::1]:80:80", "\"::1]\" is not an IP address"),
        ("[]:80:80", "\"[]\" is not an IP address"),
        ("[fe80::1%eth0]:80:80", "is not an IP address"),
        ("bad", "\"bad\" is neither"),
        ("80 81", "\"80 81\" is neither"),
        ("80,81", "\"80,81\" is neither"),
        ("８０", "is neither"),
        ("80\n", "is neither"),
    ] {
        let error = spec.parse::<PublishSpec>().expect_err(spec);
        assert_eq!(error.exit_status(), 2);
        assert!(error.to_string().contains(cause), "{error}");
        assert!(error.to_string().contains(&format!("{spec:?}")), "{error}");
        assert!(error.remedy().is_some());
    }
}

/// Docker's tables of single ports and of ranges, tried on both sides of the colon.
#[test]
fn what_is_no_port() {
    for port in [
        "asdf",
        "1asdf",
        "-1",
        "65536",
        "70000",
        "  42  ",
        "1234abc",
        "+80",
        "8_0",
        "0x50",
        "9000-8000",
        "8000-",
        "-9000",
        "8000-a",
        "8000-9000a",
        "a-9000",
        "8000a-9000",
        "-8000-",
        "-",
        "1234-1230",
        "1-2-3",
        "1-65536",
        "99999999999999999999999999",
    ] {
        for spec in [
            port.to_owned(),
            format!("{port}:80"),
            format!("80:{port}"),
            format!("192.0.2.1:{port}:80"),
            format!("{port}/udp"),
            format!("published={port},target=80"),
            format!("target={port}"),
        ] {
            assert!(spec.parse::<PublishSpec>().is_err(), "{spec:?}");
        }
    }
}

fn merged(specs: &[&str]) -> Result<Vec<String>> {
    let specs: Vec<PublishSpec> = specs.iter().map(|spec| spec.parse().unwrap()).collect();
    Ok(merge(&specs)?.iter().map(ToString::to_string).collect())
}

#[test]
fn named_ports_come_before_pools_and_those_before_any_port() {
    assert_eq!(
        merged(&["80", "8000-9000:80", "9000:90", "0:81", "8000-8001:80-81"]).unwrap(),
        [":9000:90/tcp", ":8000:80/tcp", ":8001:81/tcp", ":8000-9000:80/tcp", "::80/tcp", "::81/tcp"]
    );
    assert_eq!(merged(&[]).unwrap(), [""; 0]);
}

#[test]
fn what_is_asked_twice_is_published_once() {
    for (specs, expected) in [
        (&["8080:80", "8080:80/tcp"][..], &[":8080:80/tcp"][..]),
        (
            &["8080-8082:80-82", "8081-8083:81-83"],
            &[":8080:80/tcp", ":8081:81/tcp", ":8082:82/tcp", ":8083:83/tcp"],
        ),
        (&["80", "80"], &["::80/tcp"]),
        (&["8000-9000:80", "8000-9000:80"], &[":8000-9000:80/tcp"]),
        // A port on every address includes the same port on one of them, whichever comes first.
        (&["8080:80", "127.0.0.1:8080:80"], &[":8080:80/tcp"]),
        (&["127.0.0.1:8080:80", "[::1]:8080:80", "8080:80"], &[":8080:80/tcp"]),
        (&["0.0.0.0:8080:80", "192.0.2.1:8080:80"], &["0.0.0.0:8080:80/tcp"]),
        // These are not the same.
        (&["8080:80", "8081:80"], &[":8080:80/tcp", ":8081:80/tcp"]),
        (&["8080:80", "80"], &[":8080:80/tcp", "::80/tcp"]),
        (&["53:53/tcp", "53:53/udp"], &[":53:53/tcp", ":53:53/udp"]),
        (&["192.0.2.1:80:80", "192.0.2.2:80:81"], &["192.0.2.1:80:80/tcp", "192.0.2.2:80:81/tcp"]),
        (&["0.0.0.0:80:80", "[::]:80:81"], &["0.0.0.0:80:80/tcp", "[::]:80:81/tcp"]),
        (&["0.0.0.0:80:80", "[::1]:80:81"], &["0.0.0.0:80:80/tcp", "[::1]:80:81/tcp"]),
    ] {
        assert_eq!(merged(specs).unwrap(), expected, "{specs:?}");
    }
}

#[test]
fn one_port_of_the_host_cannot_lead_to_two_of_the_box() {
    for (specs, one, two) in [
        (&["8080:80", "8080:81"], ":8080:80/tcp", ":8080:81/tcp"),
        (&["8080-8081:80-81", "8081:8081"], ":8081:81/tcp", ":8081:8081/tcp"),
        (&["8080:80", "127.0.0.1:8080:81"], ":8080:80/tcp", "127.0.0.1:8080:81/tcp"),
        (&["127.0.0.1:8080:80", "0.0.0.0:8080:81"], "127.0.0.1:8080:80/tcp", "0.0.0.0:8080:81/tcp"),
        (&["[::1]:53:53/udp", "53:54/udp"], "[::1]:53:53/udp", ":53:54/udp"),
    ] {
        let error = merged(specs).unwrap_err();
        assert_eq!(error.exit_status(), 2);
        assert!(error.to_string().contains(one) && error.to_string().contains(two), "{error}");
    }
}

#[test]
fn every_port_at_once_takes_no_time() {
    let all: PublishSpec = "1-65535:1-65535".parse().unwrap();
    let narrow: PublishSpec = "127.0.0.1:1-65535:1-65535".parse().unwrap();
    assert_eq!(merge(&[narrow, all, all]).unwrap().len(), 65535);
}
