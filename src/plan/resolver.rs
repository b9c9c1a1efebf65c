//! resolv.conf(5) and hosts(5): what the host's say, and what the box's own are to say.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::spec::names::{ExtraHost, Nameserver, SearchDomain};

/// Further name servers are not asked (MAXNS in resolv.conf(5)).
const MOST_SERVERS: usize = 3;

/// `timeout:` in seconds: without the option, and at most (resolv.conf(5)).
const TIMEOUT: (u64, u64) = (5, 30);

/// `attempts:`: without the option, and at most (resolv.conf(5)).
const ATTEMPTS: (u64, u64) = (2, 5);

/// What a resolv.conf(5) says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Who is asked, in order.
    pub nameservers: Vec<Nameserver>,
    /// Where names without dots are looked for.
    pub search: Vec<String>,
    /// All options, known to netbox or not.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads a file as the C library does: what it does not know it passes over, of `domain` and `search` the last counts.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut conf = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            // A keyword stands at the beginning of the line, so a comment is none.
            let Some((keyword, rest)) = line.split_once([' ', '\t']) else { continue };
            let mut words = rest.split_ascii_whitespace();
            match keyword {
                "nameserver" if conf.nameservers.len() < MOST_SERVERS => {
                    conf.nameservers.extend(words.next().and_then(Nameserver::parse));
                }
                "domain" => conf.search = words.next().map(str::to_owned).into_iter().collect(),
                "search" => conf.search = words.map(str::to_owned).collect(),
                "options" => conf.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        conf
    }

    fn number(&self, option: &str, (default, most): (u64, u64)) -> u64 {
        let value = self.options.iter().rev().find_map(|word| word.strip_prefix(option)?.parse().ok());
        value.map_or(default, |value: u64| value.clamp(1, most))
    }

    /// Whom the box's resolver asks, and how: these (`--dns`), or else those that the host asks.
    #[must_use]
    pub fn upstream(&self, instead: &[Nameserver]) -> Upstream {
        let servers = if instead.is_empty() { &self.nameservers } else { instead };
        let local = Nameserver { address: IpAddr::V4(Ipv4Addr::LOCALHOST), scope: None };
        Upstream {
            // resolv.conf(5): without an entry it is the name server on the local machine.
            servers: if servers.is_empty() { vec![local] } else { servers.to_vec() },
            timeout: Duration::from_secs(self.number("timeout:", TIMEOUT)),
            attempts: usize::try_from(self.number("attempts:", ATTEMPTS)).unwrap_or(1),
            rotate: self.options.iter().any(|word| word == "rotate"),
        }
    }

    /// The box's own file: one name server, the box's resolver at `resolver`; domains and options of the host's, or those
    /// asked for. In a network a name without dots is asked for as it is first: it may be a box's.
    #[must_use]
    pub fn for_box(&self, resolver: Ipv4Addr, search: Option<&[SearchDomain]>, in_network: bool) -> String {
        let asked: Option<Vec<_>> =
            search.map(|domains| domains.iter().map(|domain| domain.as_str().to_owned()).collect());
        let search = asked.as_ref().unwrap_or(&self.search);
        let mut options = self.options.clone();
        if in_network {
            options.retain(|option| !option.starts_with("ndots:"));
            options.push("ndots:0".to_owned());
        }
        let mut text = format!("# Made by netbox for this box.\nnameserver {resolver}\n");
        for (keyword, words) in [("search", search), ("options", &options)] {
            if !words.is_empty() {
                text += &format!("{keyword} {}\n", words.join(" "));
            }
        }
        text
    }
}

/// Whom a box's resolver asks, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// In order; never empty.
    pub servers: Vec<Nameserver>,
    /// How long one of them may take.
    pub timeout: Duration,
    /// How often each is asked.
    pub attempts: usize,
    /// Whether every question begins with another server.
    pub rotate: bool,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(ToString::to_string).collect();
        write!(f, "names are asked of {}", servers.join(", "))?;
        write!(f, " ({} s, {} times)", self.timeout.as_secs(), self.attempts)
    }
}

/// The box's own hosts(5): what was asked for, then the host's without the names that were asked for.
#[must_use]
pub fn hosts_for_box(host: &[u8], extra: &[ExtraHost]) -> Vec<u8> {
    let mut text = Vec::new();
    for ExtraHost { name, address } in extra {
        text.extend_from_slice(format!("{address}\t{name}\n").as_bytes());
    }
    let is_asked_for = |word: &[u8]| extra.iter().any(|host| host.name.as_bytes().eq_ignore_ascii_case(word));
    for line in host.split_inclusive(|byte| *byte == b'\n') {
        let entry = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut words = entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let address = words.next();
        let (gone, left): (Vec<_>, Vec<_>) = words.partition(|word| is_asked_for(word));
        match address {
            Some(address) if !gone.is_empty() => {
                if !left.is_empty() {
                    text.extend([&[address][..], &left].concat().join(&b'\t'));
                    text.push(b'\n');
                }
            }
            _ => text.extend_from_slice(line),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(conf: &ResolvConf) -> (Vec<String>, String, String) {
        (
            conf.nameservers.iter().map(ToString::to_string).collect(),
            conf.search.join(" "),
            conf.options.join(" "),
        )
    }

    #[test]
    fn a_file_is_read_as_the_c_library_reads_it() {
        let conf = ResolvConf::parse(
            b"# nameserver 192.0.2.9\n; x\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch a.test b.test\n\
              nameserver\tfe80::1%eth0  # ours\n nameserver 192.0.2.8\nnameserver foo\nnameserverx 192.0.2.7\n\
              domain c.test d.test\noptions timeout:2 attempts:9\nfrobnicate yes\n\xff\xfe 1\nnameserver ::1\n\
              nameserver 192.0.2.6",
        );
        let (servers, search, options) = words(&conf);
        assert_eq!(servers, ["127.0.0.53", "fe80::1%eth0", "::1"]);
        assert_eq!((search.as_str(), options.as_str()), ("c.test", "edns0 trust-ad timeout:2 attempts:9"));
        let upstream = conf.upstream(&[]);
        assert_eq!(
            (upstream.timeout, upstream.attempts, upstream.servers.len()),
            (Duration::from_secs(2), 5, 3)
        );
    }

    #[test]
    fn without_a_name_server_it_is_the_one_on_the_local_machine() {
        for text in [&b""[..], b"search a.test\n", b"nameserver\n", b"\0\0\0"] {
            let upstream = ResolvConf::parse(text).upstream(&[]);
            assert_eq!(upstream.servers, [Nameserver::parse("127.0.0.1").unwrap()]);
            assert_eq!((upstream.timeout, upstream.attempts), (Duration::from_secs(5), 2));
        }
    }

    #[test]
    fn senseless_numbers_are_brought_into_bounds() {
        for (text, expected) in [
            ("options timeout:0", 1),
            ("options timeout:99", 30),
            ("options timeout:-1", 5),
            ("options timeout:", 5),
        ] {
            assert_eq!(
                ResolvConf::parse(text.as_bytes()).upstream(&[]).timeout.as_secs(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn the_boxs_file_names_its_resolver_alone() {
        let host = ResolvConf::parse(b"nameserver 127.0.0.53\noptions edns0\nsearch a.test\n");
        let resolver = Ipv4Addr::new(169, 254, 64, 16);
        assert_eq!(
            host.for_box(resolver, None, false),
            "# Made by netbox for this box.\nnameserver 169.254.64.16\nsearch a.test\noptions edns0\n"
        );
        let ndots = ResolvConf::parse(b"options ndots:2 edns0\n").for_box(resolver, None, true);
        assert!(ndots.ends_with("options edns0 ndots:0\n"), "{ndots}");
        let none = host.for_box(resolver, Some(&[]), false);
        assert!(!none.contains("search"), "{none}");
        let asked = host.for_box(resolver, Some(&["b.test".parse().unwrap()]), false);
        assert_eq!(ResolvConf::parse(asked.as_bytes()).search, ["b.test"]);
    }

    #[test]
    fn a_host_that_was_added_takes_the_place_of_the_hosts_own() {
        let host =
            b"127.0.0.1\tlocalhost\n# db\n192.0.2.1 db DB.test # x\n192.0.2.2 db\n\xff\n192.0.2.3 other";
        let extra: Vec<ExtraHost> = vec!["db:192.0.2.7".parse().unwrap(), "v6:::1".parse().unwrap()];
        let text = hosts_for_box(host, &extra);
        let expected =
            b"192.0.2.7\tdb\n::1\tv6\n127.0.0.1\tlocalhost\n# db\n192.0.2.1\tDB.test\n\xff\n192.0.2.3 other";
        assert_eq!(String::from_utf8_lossy(&text), String::from_utf8_lossy(expected));
        assert_eq!(hosts_for_box(host, &[]), host);
    }
}
