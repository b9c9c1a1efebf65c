//! The floor program: the least that a program has to do to start a command behind a link of its own.
//!
//! A network namespace, a veth pair between it and the one it was started in, an address at each end, a default route,
//! exec. No lock, no state, no rules, no second process, nothing that is checked but the kernel's refusals: what
//! netbox takes more than this is what netbox costs. The link goes with the command's namespace.
//!
//! It writes its messages as bytes into one buffer and asks for one answer for each of two datagrams.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use netbox::kernel::net_cookie::netns_cookie;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use nix::unistd::{execv, getpid, pause};

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE_EXCL: u16 = 0x600;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

/// The box's end: the first link after lo in its namespace.
const INSIDE: u32 = 2;

/// `floor [--only-unshare|--only-exec] COMMAND ARG…`. Also what boxes run: `floor --stay` says its process id and stays;
/// `floor --address` tells its IPv4 address and stays until its input ends; `floor --reach ADDRESS:PORT` tells the number of its
/// network namespace and whether it gets there by TCP.
pub(crate) fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    let mode = words.next_if(|word| word.as_encoded_bytes().starts_with(b"--"));
    let done = match mode.as_ref().and_then(|mode| mode.to_str()) {
        Some("--stay") => stay(),
        Some("--address") => return address(),
        Some("--reach") => return reach(words.next()),
        Some("--only-exec") => Ok(()),
        Some("--only-unshare") => unshare(CloneFlags::CLONE_NEWNET),
        _ => link(),
    };
    let command: Vec<_> = words.filter_map(|word| CString::new(word.into_vec()).ok()).collect();
    let Err(errno) = done.and_then(|()| become_command(&command));
    eprintln!("floor: {errno}");
    ExitCode::FAILURE
}

fn become_command(command: &[CString]) -> Result<Infallible, Errno> {
    execv(command.first().ok_or(Errno::EINVAL)?, command)
}

fn link() -> Result<(), Errno> {
    let outside = netlink()?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let inside = netlink()?;
    let pid = getpid().as_raw().cast_unsigned();
    // An index and addresses that nobody else has at this time: then nothing has to be asked for.
    let index = 0x4000_0000 + pid;
    let base = 0x0a80_0000 + (pid << 1);
    let (near, far) = (base.to_be_bytes(), (base + 1).to_be_bytes());

    let mut messages = Messages::default();
    messages.begin(NEW_LINK, CREATE_EXCL, &ifinfomsg(index, false));
    messages.attribute(3, format!("f{pid}\0").as_bytes()); // IFLA_IFNAME
    let info = messages.open(18); // IFLA_LINKINFO
    messages.attribute(1, b"veth"); // IFLA_INFO_KIND
    let data = messages.open(2); // IFLA_INFO_DATA
    let peer = messages.open(1); // VETH_INFO_PEER
    messages.0.extend(ifinfomsg(INSIDE, false));
    messages.attribute(3, b"eth0\0");
    messages.attribute(19, &pid.to_ne_bytes()); // IFLA_NET_NS_PID
    messages.close(peer);
    messages.close(data);
    messages.close(info);
    messages.end();
    messages.address(index, near);
    messages.up(index, ACK);
    messages.send(&outside)?;

    let mut messages = Messages::default();
    messages.address(INSIDE, far);
    messages.up(INSIDE, 0);
    // rtmsg: AF_INET, to 0.0.0.0/0, table main, protocol static, scope universe, unicast
    messages.begin(NEW_ROUTE, CREATE_EXCL | ACK, &[2, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0]);
    messages.attribute(5, &near); // RTA_GATEWAY
    messages.end();
    messages.send(&inside)
}

fn netlink() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
}

fn ifinfomsg(index: u32, up: bool) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8] = u8::from(up); // IFF_UP, in flags and in the mask of what changes
    header[12] = u8::from(up);
    header
}

/// Netlink messages (netlink(7)) one after the other.
#[derive(Debug, Default)]
struct Messages(Vec<u8>, usize);

impl Messages {
    fn begin(&mut self, kind: u16, flags: u16, header: &[u8]) {
        self.0.reserve(512);
        self.1 = self.0.len();
        self.0.extend([0; 4]);
        self.0.extend(kind.to_ne_bytes());
        self.0.extend((flags | REQUEST).to_ne_bytes());
        self.0.extend([0; 8]);
        self.0.extend(header);
    }

    fn end(&mut self) {
        let start = self.1;
        let length = u32::try_from(self.0.len() - start).unwrap_or(0);
        self.0[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.0.len() - start).unwrap_or(0);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.0.extend(value);
        self.close(start);
    }

    fn address(&mut self, index: u32, address: [u8; 4]) {
        let [a, b, c, d] = index.to_ne_bytes();
        // ifaddrmsg: AF_INET, /31 (RFC 3021)
        self.begin(NEW_ADDRESS, CREATE_EXCL, &[2, 31, 0, 0, a, b, c, d]);
        self.attribute(1, &address); // IFA_ADDRESS
        self.attribute(2, &address); // IFA_LOCAL
        self.end();
    }

    fn up(&mut self, index: u32, flags: u16) {
        self.begin(NEW_LINK, flags, &ifinfomsg(index, true));
        self.end();
    }

    /// The kernel works them off in order and answers the first refusal, or the last message, which asks for it.
    fn send(&self, socket: &OwnedFd) -> Result<(), Errno> {
        send(socket.as_raw_fd(), &self.0, MsgFlags::empty())?;
        let mut answer = [0; 512];
        recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
            0 => Ok(()),
            error => Err(Errno::from_raw(-error)),
        }
    }
}

fn stay() -> Result<(), Errno> {
    let said = format!("{}\n", getpid());
    std::io::stdout()
        .write_all(said.as_bytes())
        .and_then(|()| std::io::stdout().flush())
        .map_err(|_| Errno::EIO)?;
    loop {
        pause();
    }
}

/// The namespace's own addresses, in one write that is not torn apart (pipe(7)).
fn address() -> ExitCode {
    let text = fs::read_to_string("/proc/self/net/fib_trie").unwrap_or_default();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let own = lines.windows(2).find(|pair| {
        pair[1] == "/32 host LOCAL" && pair[0].starts_with("|-- ") && !pair[0].starts_with("|-- 127.")
    });
    let told = format!("{}\n", own.map_or("none", |pair| &pair[0][4..]));
    let written = std::io::stdout().write_all(told.as_bytes()).and_then(|()| std::io::stdout().flush());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A first packet that comes before its way is ready is sent again after one second.
const REACH: Duration = Duration::from_secs(3);

fn reach(target: Option<OsString>) -> ExitCode {
    let Some(target) = target.and_then(|word| word.to_str()?.parse::<SocketAddr>().ok()) else {
        eprintln!("floor: --reach ADDRESS:PORT");
        return ExitCode::FAILURE;
    };
    let reached = TcpStream::connect_timeout(&target, REACH).is_ok();
    let told = format!("{} {reached}\n", network());
    if std::io::stdout().write_all(told.as_bytes()).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The number of the network namespace that the caller is in.
pub(crate) fn network() -> u64 {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    netns_cookie(socket.as_fd()).expect("SO_NETNS_COOKIE, as netbox needs it")
}
