//! Names and who is asked for them: `--dns`, `--dns-search`, `--add-host`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A name server: its address and, where that is link-local, the interface that it is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nameserver {
    /// The address.
    pub address: IpAddr,
    /// The name or the number of an interface, as in `fe80::1%eth0` (RFC 4007). Only with an IPv6 address.
    pub scope: Option<String>,
}

impl Nameserver {
    /// Reads an address as resolv.conf(5) has it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, scope) = match text.split_once('%') {
            Some((address, scope)) => (address, Some(scope)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let is_name = |scope: &str| {
            !scope.is_empty() && scope.len() < 16 && scope.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if scope.is_some_and(|scope| address.is_ipv4() || !is_name(scope)) {
            return None;
        }
        Some(Self { address, scope: scope.map(str::to_owned) })
    }
}

impl fmt::Display for Nameserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => write!(f, "{}%{scope}", self.address),
            None => self.address.fmt(f),
        }
    }
}

impl FromStr for Nameserver {
    type Err = Error;

    /// Reads the value of `--dns`.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = |cause: &str| {
            Err(Error::usage(format!("invalid name server {text:?}"))
                .because(cause)
                .hint("a name server is given by its IPv4 or IPv6 address: --dns 192.0.2.53"))
        };
        match Self::parse(text) {
            None => invalid("it is not an IP address"),
            Some(server) if server.address.is_unspecified() => invalid("it is nobody's address"),
            Some(server) if server.address.is_multicast() => invalid("it is a multicast address"),
            Some(server) => Ok(server),
        }
    }
}

/// A domain in which names without dots are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchDomain(String);

impl SearchDomain {
    /// The domain as it was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SearchDomain {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match host_name(text) {
            Ok(()) => Ok(Self(text.to_owned())),
            Err(cause) => Err(Error::usage(format!("invalid search domain {text:?}"))
                .because(cause)
                .hint("a domain is given as example.org, and `.` alone stands for none")),
        }
    }
}

/// Reads all `--dns-search`: `.` alone is an empty list, as in Docker.
///
/// # Errors
/// When one is no domain, and when `.` stands beside others.
pub fn search_list(texts: &[&str]) -> Result<Vec<SearchDomain>> {
    match texts {
        ["."] => Ok(Vec::new()),
        _ if texts.contains(&".") => {
            Err(Error::usage("--dns-search . and another --dns-search contradict each other")
                .because("`.` asks for no search domain"))
        }
        _ => texts.iter().map(|text| text.parse()).collect(),
    }
}

/// A line for the box's /etc/hosts: `--add-host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// What it stands for.
    pub address: IpAddr,
}

impl FromStr for ExtraHost {
    type Err = Error;

    /// `NAME:IP` or `NAME=IP`; the address may be in brackets (Docker's `opts.ValidateExtraHost`).
    fn from_str(text: &str) -> Result<Self> {
        let invalid = |cause: &str| {
            Error::usage(format!("invalid host {text:?} for --add-host"))
                .because(cause)
                .hint("a host is given as NAME:IP or NAME=IP: --add-host db:192.0.2.7")
        };
        // Split at the first colon only: what follows may be an IPv6 address.
        let parts = text.split_once('=').or_else(|| text.split_once(':'));
        let (name, address) = parts.ok_or_else(|| invalid("it has no address"))?;
        host_name(name).map_err(|cause| invalid(&cause))?;
        if address == "host-gateway" {
            return Err(Error::usage(format!("invalid host {text:?} for --add-host"))
                .because("a box reaches no service of the host by any address that it could stand for")
                .hint("--host-port PORT lets the box reach a port of the host's, as host.netbox.internal"));
        }
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address = bare.parse().map_err(|_| invalid(&format!("{bare:?} is not an IP address")))?;
        Ok(Self { name: name.to_owned(), address })
    }
}

/// Whether a text can be a host's name: labels of letters, digits, hyphens and underscores (RFC 1123, and what
/// people use), at most 63 each and 253 together. On failure, the reason.
fn host_name(text: &str) -> Result<(), String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    if name.len() > 253 {
        return Err("the name has more than 253 characters".to_owned());
    }
    for label in name.split('.') {
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if let Some(odd) = label.chars().find(|c| !plain(c)) {
            return Err(format!("a name has no {odd:?}"));
        }
        if label.is_empty() || label.len() > 63 {
            return Err("a part of the name is empty or has more than 63 characters".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers() {
        let scoped = Nameserver::parse("fe80::1%eth0").unwrap();
        assert_eq!((scoped.to_string().as_str(), scoped.scope.as_deref()), ("fe80::1%eth0", Some("eth0")));
        assert_eq!("192.0.2.53".parse::<Nameserver>().unwrap().scope, None);
        assert_eq!("::1".parse::<Nameserver>().unwrap().address, "::1".parse::<IpAddr>().unwrap());
        for bad in
            ["", "foobar", "1.2.3", "1.2.3.4%eth0", "fe80::1%", "fe80::1%a b", "0.0.0.0", "224.0.0.1", "::"]
        {
            assert_eq!(bad.parse::<Nameserver>().unwrap_err().exit_status(), 2, "{bad}");
        }
    }

    #[test]
    fn search_domains() {
        let words = |texts: &[&str]| {
            search_list(texts).map(|list| list.iter().map(|d| d.as_str().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(words(&["."]).unwrap(), Vec::<String>::new());
        assert_eq!(words(&["example.org", "a_b.test."]).unwrap(), ["example.org", "a_b.test."]);
        for bad in
            [&[".", "example.org"][..], &["a..b"], &["a b"], &[""], &["a\nnameserver 1.2.3.4"], &["é.fr"]]
        {
            assert_eq!(words(bad).unwrap_err().exit_status(), 2, "{bad:?}");
        }
        assert!(words(&[&"a".repeat(64)]).is_err());
        assert!(words(&[&["abc"; 64].join(".")]).is_err());
    }

    #[test]
    fn extra_hosts_in_dockers_grammar() {
        for (text, name, address) in [
            ("db:192.0.2.7", "db", "192.0.2.7"),
            ("db=192.0.2.7", "db", "192.0.2.7"),
            ("db:2001:db8::7", "db", "2001:db8::7"),
            ("db:[2001:db8::7]", "db", "2001:db8::7"),
            ("db=[::1]", "db", "::1"),
            ("a.b-c_d:[192.0.2.7]", "a.b-c_d", "192.0.2.7"),
        ] {
            let host: ExtraHost = text.parse().unwrap();
            assert_eq!((host.name.as_str(), host.address), (name, address.parse().unwrap()), "{text}");
        }
        for bad in [
            "",
            "db",
            "db:",
            ":192.0.2.7",
            "=192.0.2.7",
            "d b:192.0.2.7",
            "db:x",
            "db:1:192.0.2.7",
            "a#b:::1",
        ] {
            assert_eq!(bad.parse::<ExtraHost>().unwrap_err().exit_status(), 2, "{bad}");
        }
        let refused = "db:host-gateway".parse::<ExtraHost>().unwrap_err();
        assert!(refused.to_string().contains("no service of the host"), "{refused}");
    }
}
