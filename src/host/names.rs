//! How the host resolves names, as it is now.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use crate::plan::resolver::ResolvConf;

/// resolv.conf(5).
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// hosts(5).
pub const HOSTS: &str = "/etc/hosts";

/// Where the name servers are found: the C library's file; then, where that names none, systemd-resolved's own, its
/// stub first, which knows a VPN's domains (systemd-resolved.service(8)).
const FILES: [&str; 3] =
    [RESOLV_CONF, "/run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// More than this of a file is not read.
const LARGEST: u64 = 64 * 1024;

/// What tells one content of a file from the next: it may be replaced (inode) or written to (times, size).
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

/// The host's resolv.conf(5), read again when it changes.
#[derive(Debug, Default)]
pub struct HostResolver {
    stamps: Vec<Stamp>,
    conf: ResolvConf,
}

impl HostResolver {
    /// What the host says now: a look at the file for every call, a reading of it where it is another.
    pub fn current(&mut self) -> &ResolvConf {
        // As many files as were looked into the last time: the first that names a server, and those before.
        let looked_into = self.stamps.len().max(1);
        let stamps: Vec<_> = FILES.iter().take(looked_into).map(|path| stamp(path)).collect();
        if stamps != self.stamps {
            (self.conf, self.stamps) = look_up();
        }
        &self.conf
    }
}

/// What the host says, for one look. `None`: it has no resolv.conf(5), not even a link that leads nowhere.
#[must_use]
pub fn resolv_conf() -> Option<ResolvConf> {
    let text = match read(RESOLV_CONF) {
        Ok(text) => text,
        Err(_) if is_there(RESOLV_CONF) => Vec::new(),
        Err(_) => return None,
    };
    let conf = ResolvConf::parse(&text);
    // As seldom as that is, the other files are.
    Some(if conf.nameservers.is_empty() { look_up().0 } else { conf })
}

/// The text of hosts(5). Absent, or not to be read: nothing.
#[must_use]
pub fn hosts() -> Vec<u8> {
    read(HOSTS).unwrap_or_default()
}

/// Whether there is something of this name, be it a link that leads nowhere.
#[must_use]
pub fn is_there(path: &str) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

fn look_up() -> (ResolvConf, Vec<Stamp>) {
    let mut stamps = Vec::new();
    // Domains and options are the first file's even where the servers are another's.
    let mut found: Option<ResolvConf> = None;
    for path in FILES {
        // Before the reading: what changes in between is read again.
        stamps.push(stamp(path));
        let conf = read(path).map(|text| ResolvConf::parse(&text)).unwrap_or_default();
        let found = found.get_or_insert_with(|| conf.clone());
        if !conf.nameservers.is_empty() {
            found.nameservers = conf.nameservers;
            break;
        }
    }
    (found.unwrap_or_default(), stamps)
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // Whatever somebody puts there (a pipe), nobody waits for it.
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?
        .take(LARGEST)
        .read_to_end(&mut text)?;
    Ok(text)
}

fn stamp(path: &str) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    let (modified, changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
    Some((file.dev(), file.ino(), file.size(), modified, changed))
}
