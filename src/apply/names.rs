//! A box's way to names: the sockets of its resolver, and its own resolv.conf(5) and hosts(5).

use std::cell::RefCell;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{Context, Error, Result};
use crate::host::names::{HOSTS, RESOLV_CONF, hosts, is_there, resolv_conf};
use crate::kernel::namespace;
use crate::kernel::socket_option::bind_to_link;
use crate::plan::network::Member;
use crate::plan::record::Attachment;
use crate::plan::resolver::{ResolvConf, hosts_for_box};
use crate::plan::topology::Topology;
use crate::spec::names::ExtraHost;
use crate::spec::request::RunRequest;

use super::gateway::Gateway;
use super::host::Host;
use super::lease::{self, Lease};
use super::seats;
use super::state::State;

/// The port of name servers (RFC 1035, 4.2).
const PORT: u16 = 53;

/// What the box's own host name stands for: the box, but not its localhost (hosts(5), Debian's convention).
const OWN_NAME: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// The sockets at which a box's questions arrive.
#[derive(Debug)]
pub struct Questions {
    /// For datagrams.
    pub udp: OwnedFd,
    /// For connections, listening.
    pub tcp: OwnedFd,
    /// The boxes of the networks that it is in.
    pub members: RefCell<Vec<MemberNames>>,
}

/// Where the boxes of a network have their names.
#[derive(Debug)]
pub struct MemberNames {
    /// Its directory.
    pub directory: OwnedFd,
    /// Its name.
    pub network: String,
    /// The ranges of its addresses.
    pub subnets: Vec<IpNet>,
}

impl MemberNames {
    /// Those of the network that a box is in.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn open(state: &State, member: &Member) -> Result<Self> {
        let directory = seats::open(state.root(), &member.network)
            .context(|| format!("cannot open the state of network {}", member.name))?;
        let six = member.ipv6.map(|six| IpNet::V6(six.subnet));
        let subnets = [IpNet::V4(member.subnet)].into_iter().chain(six).collect();
        Ok(Self { directory, network: member.name.to_string(), subnets })
    }
}

/// Opens the sockets in the gateway, for this box and for nobody else: what comes by another link, or another bridge, does not find
/// them, and what comes from another port of the bridge the rules keep from them. Its link need not exist yet.
///
/// # Errors
/// Naming the step.
pub fn listen_for(
    gateway: &Gateway,
    host: &Host,
    attachment: &Attachment,
    state: Option<&State>,
) -> Result<Questions> {
    let networks =
        state.into_iter().flat_map(|state| attachment.networks.iter().map(move |one| (state, one)));
    let members =
        networks.map(|(state, member)| MemberNames::open(state, member)).collect::<Result<Vec<_>>>()?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let open = |kind| socket(AddressFamily::Inet, kind, flags, None);
    let both = || -> nix::Result<_> { Ok((open(SockType::Datagram)?, open(SockType::Stream)?)) };
    let (udp, tcp) = namespace::inside(gateway.network.as_fd(), host.network().as_fd(), both)
        .context(|| "cannot enter the gateway")?
        .context(|| "cannot open sockets for the box's resolver")?;
    let address = Topology::resolver_address(attachment.slot);
    let ready = || -> std::io::Result<()> {
        // A box before, in the same slot, may have left connections in TIME_WAIT.
        setsockopt(&tcp, sockopt::ReuseAddr, &true)?;
        for socket in [&udp, &tcp] {
            bind_to_link(socket.as_fd(), attachment.interface_index())?;
            bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(address, PORT)))?;
        }
        Ok(listen(&tcp, Backlog::new(BACKLOG)?)?)
    };
    ready().context(|| format!("cannot listen on {address} port {PORT} for the box's resolver"))?;
    Ok(Questions { udp, tcp, members: RefCell::new(members) })
}

/// A file of the box's own, in the place of one of the host's. It is in the box's state directory for as long as it may
/// have to be put back: what has no name cannot be mounted.
#[derive(Debug)]
pub struct BoxFile {
    /// Where it is put in the box.
    pub path: &'static str,
    file: File,
}

impl BoxFile {
    fn new(lease: &Lease, name: &str, path: &'static str, content: &[u8]) -> Result<Self> {
        let file = lease.make_file(name, content).context(|| format!("cannot make the box's own {path}"))?;
        Ok(Self { path, file })
    }

    /// A mount of it, to be put somewhere (open_tree(2)).
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN.
    pub fn mount(&self) -> Result<OwnedFd> {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        open_tree(&self.file, "", flags)
            .map_err(std::io::Error::from)
            .context(|| format!("cannot make a mount of the box's own {}", self.path))
    }

    /// What tells it from every other file: device and inode.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn identity(&self) -> nix::Result<(u64, u64)> {
        let stat = nix::sys::stat::fstat(&self.file)?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

/// The files that the box has of its own. `of_other`: the resolv.conf(5) of the box whose network it shares. `log` is told whom its resolver asks, `warning` that there is no place for one
/// of the files.
///
/// # Errors
/// When one cannot be made, or was asked for and has no place.
pub fn own_files(
    request: &RunRequest,
    lease: &Lease,
    of_other: Option<&[u8]>,
    log: impl FnOnce(String),
    warning: impl FnOnce(String),
) -> Result<Vec<BoxFile>> {
    let mut files = Vec::new();
    if request.net.is_behind_gateway() {
        let host = resolv_conf();
        if let Some(host) = host.as_ref().filter(|_| request.verbose > 0) {
            log(host.upstream(&request.dns).to_string());
        }
        let own = own_resolv_conf(request, lease, host.as_ref())?;
        if own.is_none() {
            warning(format!("the box does not resolve names: the host has no {RESOLV_CONF}"));
        }
        files.extend(own);
    }
    if let Some(text) = of_other.filter(|_| is_there(RESOLV_CONF)) {
        files.push(BoxFile::new(lease, lease::RESOLV_CONF, RESOLV_CONF, text)?);
    }
    files.extend(own_hosts(request, lease)?);
    Ok(files)
}

/// Names the box's resolver. Without the host's there is nothing in its place that it could be put over.
fn own_resolv_conf(
    request: &RunRequest,
    lease: &Lease,
    host: Option<&ResolvConf>,
) -> Result<Option<BoxFile>> {
    let resolver = Topology::resolver_address(lease.slot);
    match host {
        Some(host) => {
            let in_network = request.net.links().next().is_some();
            let text = host.for_box(resolver, request.dns_search.as_deref(), in_network);
            BoxFile::new(lease, lease::RESOLV_CONF, RESOLV_CONF, text.as_bytes()).map(Some)
        }
        None if request.dns.is_empty() && request.dns_search.is_none() => Ok(None),
        None => Err(no_place(RESOLV_CONF, "--dns and --dns-search")),
    }
}

/// Where that was asked for.
fn own_hosts(request: &RunRequest, lease: &Lease) -> Result<Option<BoxFile>> {
    if request.add_host.is_empty() {
        return Ok(None);
    }
    if !is_there(HOSTS) {
        return Err(no_place(HOSTS, "--add-host"));
    }
    let mut extra = request.add_host.clone();
    if let Some(name) = &request.hostname {
        // What was asked for of it stands before this.
        extra.push(ExtraHost { name: name.to_string(), address: OWN_NAME.into() });
    }
    let text = hosts_for_box(&hosts(), &extra);
    BoxFile::new(lease, lease::HOSTS, HOSTS, &text).map(Some)
}

fn no_place(path: &str, options: &str) -> Error {
    Error::new(format!("cannot carry out {options}"))
        .os(&Errno::ENOENT.into())
        .because(format!("the host has no {path} in whose place the box's own could be put"))
        .hint(format!("touch {path}"))
}
