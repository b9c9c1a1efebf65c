//! Who holds a port that is taken.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use nix::unistd::geteuid;

use crate::kernel::sock_diag::{BoundSocket, bound_to};
use crate::spec::port::Protocol;

/// Who holds a port: a process as far as the caller may know, else the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process, told to root only.
    pub pid: Option<i32>,
    /// Its name, with control characters taken out: it is whatever the process calls itself.
    pub name: Option<String>,
    /// The user the socket belongs to.
    pub uid: u32,
    /// No process has the socket any more: the kernel closes the connection.
    pub is_orphan: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.pid) {
            (Some(name), Some(pid)) => write!(f, "{name} (pid {pid})"),
            (None, Some(pid)) => write!(f, "process {pid}"),
            _ if self.is_orphan => f.write_str("a connection that is being closed"),
            _ => write!(f, "a process of user {}", self.uid),
        }
    }
}

/// Who keeps others from binding a port on an address, which may be a wildcard.
///
/// Nothing when nobody does any more, or when the kernel does not tell: this is asked to explain a
/// failure, so it has none of its own.
#[must_use]
pub fn holder_of_port(protocol: Protocol, at: SocketAddr) -> Option<Holder> {
    let in_the_way = |connected| {
        let sockets = bound_to(protocol.number(), at.port(), connected).ok()?;
        sockets.into_iter().find(|socket| stands_in_the_way(socket, at.ip()))
    };
    // Who waits for connections is told before one of those that it has.
    let socket = in_the_way(false).or_else(|| in_the_way(true))?;
    // Others could look into their own processes only; they are told the user, always.
    let pid = if geteuid().is_root() { process_with(socket.inode) } else { None };
    let name = pid.and_then(|pid| fs::read(format!("/proc/{pid}/comm")).ok()).map(|comm| printable(&comm));
    let name = name.filter(|name| !name.is_empty());
    Some(Holder { pid, name, uid: socket.uid, is_orphan: socket.inode == 0 })
}

/// netbox's own sockets are of one family only.
fn stands_in_the_way(socket: &BoundSocket, wanted: IpAddr) -> bool {
    let held = match (wanted, socket.address) {
        (IpAddr::V4(_), IpAddr::V6(held)) if held.is_unspecified() && !socket.v6_only => {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        }
        (IpAddr::V4(_), held) => held.to_canonical(),
        (IpAddr::V6(_), held) => held,
    };
    held.is_ipv4() == wanted.is_ipv4() && (held.is_unspecified() || wanted.is_unspecified() || wanted == held)
}

/// The lowest process id that has the socket open. Processes that end meanwhile are passed over.
fn process_with(inode: u32) -> Option<i32> {
    let socket = format!("socket:[{inode}]");
    let mut pids: Vec<i32> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.into_iter().find(|pid| {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        open.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&socket)))
    })
}

fn printable(comm: &[u8]) -> String {
    String::from_utf8_lossy(comm).trim_end().chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_socket_stands_in_everybodys_way_and_others_in_that_of_their_address() {
        for (address, v6_only, wanted, expected) in [
            ("0.0.0.0", false, "192.0.2.1", true),
            ("::", false, "192.0.2.1", true),
            ("::", true, "192.0.2.1", false),
            ("::", true, "0.0.0.0", false),
            ("192.0.2.1", false, "192.0.2.1", true),
            ("192.0.2.2", false, "192.0.2.1", false),
            ("192.0.2.2", false, "0.0.0.0", true),
            ("::ffff:192.0.2.1", false, "192.0.2.1", true),
            ("2001:db8::1", false, "0.0.0.0", false),
            ("0.0.0.0", false, "::", false),
            ("::", true, "::", true),
            ("::", false, "2001:db8::1", true),
            ("2001:db8::1", false, "2001:db8::1", true),
            ("2001:db8::2", false, "2001:db8::1", false),
            ("2001:db8::2", false, "::", true),
            ("::ffff:192.0.2.1", false, "2001:db8::1", false),
        ] {
            let socket = BoundSocket { address: address.parse().unwrap(), v6_only, inode: 1, uid: 0 };
            assert_eq!(stands_in_the_way(&socket, wanted.parse().unwrap()), expected, "{address} {wanted}");
        }
    }

    #[test]
    fn a_holder_is_named_as_far_as_it_is_known() {
        let known = Holder { pid: Some(4121), name: Some("nginx".to_owned()), uid: 33, is_orphan: false };
        assert_eq!(known.to_string(), "nginx (pid 4121)");
        let unknown = Holder { pid: None, name: None, uid: 1000, is_orphan: false };
        assert_eq!(unknown.to_string(), "a process of user 1000");
        let orphan = Holder { pid: None, name: None, uid: 0, is_orphan: true };
        assert_eq!(orphan.to_string(), "a connection that is being closed");
        assert_eq!(printable(b"\x1b[31mred\n"), "[31mred");
    }
}
