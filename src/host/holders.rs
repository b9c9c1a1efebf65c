//! Who holds a port that is taken.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use nix::unistd::geteuid;

use crate::kernel::sock_diag::{Listener, tcp_listeners};

/// Who holds a port: a process as far as the caller may know, else the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process, told to root only.
    pub pid: Option<i32>,
    /// Its name, with control characters taken out: it is whatever the process calls itself.
    pub name: Option<String>,
    /// The user the socket belongs to.
    pub uid: u32,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.pid) {
            (Some(name), Some(pid)) => write!(f, "{name} (pid {pid})"),
            (None, Some(pid)) => write!(f, "process {pid}"),
            _ => write!(f, "a process of user {}", self.uid),
        }
    }
}

/// Who keeps others from binding a TCP port, on one address or (`None`) on all.
///
/// Nothing when nobody does any more, or when the kernel does not tell: this is asked to explain a
/// failure, so it has none of its own.
#[must_use]
pub fn holder_of_tcp_port(address: Option<Ipv4Addr>, port: u16) -> Option<Holder> {
    let listeners = tcp_listeners(port).ok()?;
    let listener = listeners.into_iter().find(|listener| stands_in_the_way(listener, address))?;
    // Others could look into their own processes only; they are told the user, always.
    let pid = if geteuid().is_root() { process_with(listener.inode) } else { None };
    let name = pid.and_then(|pid| fs::read(format!("/proc/{pid}/comm")).ok()).map(|comm| printable(&comm));
    Some(Holder { pid, name: name.filter(|name| !name.is_empty()), uid: listener.uid })
}

fn stands_in_the_way(listener: &Listener, wanted: Option<Ipv4Addr>) -> bool {
    let held = match listener.address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) if address.is_unspecified() && !listener.v6_only => Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => mapped,
            None => return false,
        },
    };
    held.is_unspecified() || wanted.is_none_or(|wanted| wanted.is_unspecified() || wanted == held)
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

    fn listener(address: &str, v6_only: bool) -> Listener {
        Listener { address: address.parse().unwrap(), v6_only, inode: 1, uid: 0 }
    }

    #[test]
    fn a_wildcard_socket_stands_in_everybodys_way_and_others_in_that_of_their_address() {
        let one = Some(Ipv4Addr::new(192, 0, 2, 1));
        for (address, v6_only, wanted, expected) in [
            ("0.0.0.0", false, one, true),
            ("::", false, one, true),
            ("::", true, one, false),
            ("::", true, None, false),
            ("192.0.2.1", false, one, true),
            ("192.0.2.2", false, one, false),
            ("192.0.2.2", false, None, true),
            ("192.0.2.2", false, Some(Ipv4Addr::UNSPECIFIED), true),
            ("::ffff:192.0.2.1", false, one, true),
            ("2001:db8::1", false, None, false),
        ] {
            let listener = listener(address, v6_only);
            assert_eq!(stands_in_the_way(&listener, wanted), expected, "{address} {wanted:?}");
        }
    }

    #[test]
    fn a_holder_is_named_as_far_as_it_is_known() {
        let known = Holder { pid: Some(4121), name: Some("nginx".to_owned()), uid: 33 };
        assert_eq!(known.to_string(), "nginx (pid 4121)");
        let unknown = Holder { pid: None, name: None, uid: 1000 };
        assert_eq!(unknown.to_string(), "a process of user 1000");
        assert_eq!(printable(b"\x1b[31mred\n"), "[31mred");
    }
}
