//! A network that is somebody else's, for a box to share: `--net netns:…`, `--net box:…`. It is taken as it is.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::find;
use crate::apply::registry;
use crate::error::{Context, Error, Result};
use crate::host::names::is_there;
use crate::kernel::namespace;
use crate::plan::wiring::BoxLink;
use crate::spec::net::{Net, NetnsRef, OtherBox};
use crate::spec::netns::NetnsName;

/// Where files lie that a command finds below /etc in the network namespace whose name comes next (ip-netns(8)).
const FILES: &str = "/etc/netns";

/// So much of a resolv.conf counts.
const MOST_TEXT: u64 = 64 * 1024;

/// What is put over something in /etc: the directory where it is, and the names there.
pub type EtcFiles = (String, Vec<String>);

/// The network, and what a command in it is to find.
#[derive(Debug)]
pub struct Elsewhere {
    /// The namespace.
    pub network: OwnedFd,
    /// Where it is.
    pub path: String,
    /// Another box's resolv.conf(5).
    pub resolv_conf: Option<Vec<u8>>,
    /// Another box's addresses.
    pub link: Option<BoxLink>,
    /// What is put over something in /etc.
    pub files: Option<EtcFiles>,
}

impl Elsewhere {
    /// What the box is told and gets of it.
    #[must_use]
    pub fn facts(&self) -> (Option<BoxLink>, Option<EtcFiles>) {
        (self.link.clone(), self.files.clone())
    }
}

/// Opens the network, where it is not the box's own or the host's. `warn` is told what the user should know.
///
/// # Errors
/// When it is not there, or is no network namespace.
pub fn open(net: &Net, warn: impl Fn(&str)) -> Result<Option<Elsewhere>> {
    match net {
        Net::Netns(netns) => of_name(netns, warn).map(Some),
        Net::Box(other) => of_box(other).map(Some),
        Net::Nat | Net::None | Net::Host | Net::Networks(_) => Ok(None),
    }
}

fn of_name(netns: &NetnsRef, warn: impl Fn(&str)) -> Result<Elsewhere> {
    let path = netns.path();
    let cannot =
        || Error::new(format!("cannot enter the network namespace {:?}", path.display().to_string()));
    let none =
        || cannot().because("it is no network namespace").hint("`ip netns list` shows those with names");
    // Looked at before it is opened: to open something else may do something.
    let itself = open_file(&path, OFlags::PATH).map_err(|error| {
        let error = cannot().os(&error);
        match netns.name() {
            Some(_) => error.hint("`ip netns list` shows those that are there; one elsewhere is netns:PATH"),
            None => error,
        }
    })?;
    if !namespace::is_namespace_file(itself.as_fd()).map_err(|error| cannot().os(&error))? {
        return Err(none());
    }
    let way = format!("/proc/self/fd/{}", itself.as_raw_fd());
    let network = open_file(Path::new(&way), OFlags::RDONLY).map_err(|error| cannot().os(&error))?;
    if !namespace::is_network(network.as_fd()).map_err(|error| cannot().os(&error))? {
        return Err(none());
    }
    let files = netns.name().map(|name| files_of(name, warn)).transpose()?.flatten();
    let path = path.display().to_string();
    Ok(Elsewhere { network, path, resolv_conf: None, link: None, files })
}

fn open_file(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// As `ip netns exec` does: each that has its like in /etc is put over it.
fn files_of(name: &NetnsName, warn: impl Fn(&str)) -> Result<Option<EtcFiles>> {
    let directory = format!("{FILES}/{name}");
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.context(|| format!("cannot read {directory}"))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.context(|| format!("cannot read {directory}"))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if is_there(&format!("/etc/{name}")) {
            names.push(name);
        } else {
            warn(&format!("there is no /etc/{name} that {:?} could be put over", entry.path()));
        }
    }
    names.sort_unstable();
    Ok(Some((directory, names)))
}

fn of_box(other: &OtherBox) -> Result<Elsewhere> {
    let found = find::find(&other.reference)?;
    let name = &found.record.name;
    if found.record.net == Net::Host.as_str() {
        return Err(Error::new(format!("cannot share the network of box {name}"))
            .because("it is the host's")
            .hint("--net host"));
    }
    let command = found.command()?;
    found.namespaces(&command)?;
    let network = namespace::network_of(command.pid.as_raw());
    // Who lives still has its number.
    found.check(&command)?;
    let network = network.context(|| format!("cannot open the network of box {name}"))?;
    let resolv_conf =
        resolv_conf_of(&found).context(|| format!("cannot read the resolv.conf of box {name}"))?;
    // Its MTU is no part of what a command is told.
    let link = found.record.attachment.as_ref();
    let link = link.map(|attachment| BoxLink::new(attachment, attachment.topology.mtu));
    let path = format!("/proc/{}/ns/net", command.pid);
    Ok(Elsewhere { network, path, resolv_conf, link, files: None })
}

/// Its own, where it has one: the box that joins it gets the same, in a file of its own.
fn resolv_conf_of(found: &find::Found) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = registry::resolv_conf(found.state().root(), &found.record.id)? else { return Ok(None) };
    let mut text = Vec::new();
    // What the box made of it, which may be root, is its own affair up to a point.
    File::from(file).take(MOST_TEXT).read_to_end(&mut text)?;
    Ok(Some(text))
}
