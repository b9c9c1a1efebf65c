//! What runs inside boxes: this program under the name `probe`, so that nothing but Rust is needed.
//!
//! `tcp ADDR`, `udp ADDR`, `icmp IP`, `resolve NAME` print an [`Outcome`]; `listen tcp|udp ADDR` and `sleep` print
//! `ready PID IP IPV6` and go on for ever; `burst ADDR` sends and ends; the others show what the command sees of itself.

use std::env;
use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, getsockopt, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::{getsockopt_impl, sockopt_impl};

use super::{links, service};

/// After so long without any answer, an attempt counts as silently dropped.
const PATIENCE: Duration = Duration::from_secs(1);

/// How an attempt to reach something ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With an answer, which is the address that the server saw.
    Reached(String),
    /// With an error, told at once.
    Refused(String),
    /// With nothing.
    Silent,
}

impl Outcome {
    /// What a probe printed.
    pub(crate) fn parse(said: &str) -> Option<Self> {
        let said = said.trim();
        match said.split_once(' ') {
            Some(("reached", answer)) => Some(Self::Reached(answer.to_owned())),
            Some(("refused", error)) => Some(Self::Refused(error.to_owned())),
            _ => (said == "silent").then_some(Self::Silent),
        }
    }

    pub(crate) fn reached(&self) -> bool {
        matches!(self, Self::Reached(_))
    }

    pub(crate) fn refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// The source address that the server saw.
    pub(crate) fn seen_as(&self) -> Option<IpAddr> {
        match self {
            Self::Reached(answer) => answer.parse::<SocketAddr>().ok().map(|peer| peer.ip()),
            _ => None,
        }
    }

    fn of(error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::Silent,
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reached(answer) => write!(f, "reached {answer}"),
            Self::Refused(error) => write!(f, "refused {error}"),
            Self::Silent => f.write_str("silent"),
        }
    }
}

/// Connects and waits for the server's first line.
pub(crate) fn tcp(to: SocketAddr) -> Outcome {
    let attempt = || {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        if BufReader::new(stream).read_line(&mut answer)? == 0 {
            return Err(std::io::Error::other("closed without an answer"));
        }
        Ok(answer.trim().to_owned())
    };
    attempt().map_or_else(|error| Outcome::of(&error), Outcome::Reached)
}

/// Sends a datagram and waits for the answer.
pub(crate) fn udp(to: SocketAddr) -> Outcome {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let attempt = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"who am I?")?;
        let mut answer = [0; 2048];
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    attempt().map_or_else(|error| Outcome::of(&error), Outcome::Reached)
}

/// What the C library says a name stands for: the first address, with the port that was asked for.
pub(crate) fn resolve(name: &str) -> Outcome {
    match (name, 80).to_socket_addrs() {
        Ok(mut found) => {
            found.next().map_or(Outcome::Silent, |address| Outcome::Reached(address.to_string()))
        }
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// An echo request from a ping socket, which needs no capability but `ping_group_range`.
pub(crate) fn icmp(to: impl Into<IpAddr>) -> Outcome {
    let to = SocketAddr::new(to.into(), 0);
    let attempt = || -> Result<(), nix::Error> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (family, protocol, echo) = match to {
            SocketAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
            SocketAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
        };
        let socket = socket(family, SockType::Datagram, flags, protocol)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
        let request = [echo, 0, 0, 0, 0, 0, 0, 1]; // the kernel fills in checksum and id
        sendto(socket.as_raw_fd(), &request, &SockaddrStorage::from(to), MsgFlags::empty())?;
        recv(socket.as_raw_fd(), &mut [0; 64], MsgFlags::empty())?;
        Ok(())
    };
    match attempt() {
        Ok(()) => Outcome::Reached("an echo".to_owned()),
        Err(errno) => Outcome::of(&errno.into()),
    }
}

sockopt_impl!(
    /// The largest packet that the kernel believes to pass to where the socket is connected.
    PathMtu, GetOnly, libc::IPPROTO_IP, libc::IP_MTU, libc::c_int
);

/// The path's MTU of a connected socket, in bytes.
pub(crate) fn path_mtu(socket: &UdpSocket) -> i32 {
    getsockopt(socket, PathMtu).expect("a connected socket")
}

/// The `main` of the program when it is called `probe`.
pub(crate) fn main() -> ExitCode {
    let words: Vec<String> = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let socket_address = |text: &str| text.parse::<SocketAddr>().expect("ADDRESS:PORT");
    match words[..] {
        ["tcp", to] => {
            let found = to.to_socket_addrs().expect("ADDRESS:PORT, or a NAME:PORT that is known").next();
            println!("{}", tcp(found.expect("an address")));
        }
        ["udp", to] => println!("{}", udp(socket_address(to))),
        ["resolve", name] => println!("{}", resolve(name)),
        ["there", path] => println!("{}", fs::exists(path).unwrap_or(false)),
        ["icmp", to] => println!("{}", icmp(to.parse::<IpAddr>().expect("an address"))),
        ["timed", "tcp", to] => {
            let start = Instant::now();
            let outcome = tcp(socket_address(to));
            println!("{} {outcome}", start.elapsed().as_millis());
        }
        ["listen", "tcp", at] => {
            let listener = TcpListener::bind(socket_address(at)).expect("to listen");
            ready();
            service::serve_tcp(&listener, |_| {});
        }
        ["listen", "udp", at] => {
            let server = UdpSocket::bind(socket_address(at)).expect("to bind");
            ready();
            service::serve_udp(&server, |_| {});
        }
        ["listen-as-told"] => {
            ready();
            listen_as_told();
        }
        ["hold", "tcp", at] => {
            let stream = TcpStream::connect_timeout(&socket_address(at), PATIENCE).expect("a connection");
            ready();
            sleep_for_ever();
            drop(stream);
        }
        ["in-mounts", pid, ..] => return in_mounts(pid),
        ["burst", to] => return burst(socket_address(to)),
        ["traced", program, ..] => return traced(program),
        ["terminal", path, program, ..] => return with_terminal(path, program),
        ["with-environment", ..] => with_environment(),
        ["escape", host_pid] => escape(host_pid.parse().expect("a process")),
        ["sleep"] => {
            ready();
            sleep_for_ever();
        }
        ["arguments", ..] => print_raw(env::args_os().skip(2)),
        ["environment"] => print_raw(env::vars_os().map(|(name, value)| {
            let mut line = name;
            line.push("=");
            line.push(value);
            line
        })),
        ["descriptors"] => descriptors(),
        ["directory"] => println!("{}", env::current_dir().expect("a directory").display()),
        ["status"] => print!("{}", fs::read_to_string("/proc/self/status").expect("this process's status")),
        ["cat", path] => print!("{}", fs::read_to_string(path).expect("a readable file")),
        ["exit", code] => return ExitCode::from(code.parse::<u8>().expect("a status")),
        ["type"] => {
            // SAFETY: TIOCSTI reads one character.
            let typed = unsafe { libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()) };
            println!(
                "typing: {:?}",
                nix::errno::Errno::result(typed)
                    .map_or_else(|errno| errno, |_| nix::errno::Errno::from_raw(0))
            );
        }
        ["raise", name] => raise(name.parse::<Signal>().expect("a signal's name")).expect("to raise"),
        ["leave-a-child"] => {
            // Not waited for, in a group of its own, without the standard streams: as daemons are left.
            let mut child = std::process::Command::new(env::current_exe().expect("this program"));
            child.arg0("/run/lab/probe").arg("sleep");
            child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
            #[expect(clippy::zombie_processes, reason = "the point is to leave it")]
            let _left = child.spawn().expect("a child");
            return ExitCode::from(7);
        }
        ["signals", ..] => return count_signals(&words[1..]),
        ["stdin"] => {
            std::io::copy(&mut std::io::stdin(), &mut std::io::stdout()).expect("to copy");
        }
        _ => {
            eprintln!("probe: {words:?}?");
            return ExitCode::from(99);
        }
    }
    ExitCode::SUCCESS
}

/// Reads from standard input `tcp ADDRESS:PORT`, `udp ADDRESS:PORT`, `accept` (a connection to the last), `answer` (to all that were
/// accepted) and `close` (what listens), and says `done` after each.
fn listen_as_told() {
    let (mut listeners, mut sockets, mut accepted) = (Vec::new(), Vec::new(), Vec::new());
    for line in std::io::stdin().lines() {
        let line = line.expect("a line");
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("tcp", at) => listeners.push(TcpListener::bind(at).expect("to listen")),
            ("udp", at) => sockets.push(UdpSocket::bind(at).expect("to bind")),
            ("accept", _) => {
                let listener = listeners.last().expect("a listener");
                accepted.push(listener.accept().expect("a connection").0);
            }
            ("answer", _) => {
                accepted.iter_mut().for_each(|stream| stream.write_all(b"still here").expect("to write"));
            }
            _ => {
                listeners.clear();
                sockets.clear();
            }
        }
        println!("done");
    }
}

/// Sends what nobody waits for, and ends with 7: whatever becomes of the box, something was under way.
fn burst(to: SocketAddr) -> ExitCode {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("to bind");
    for _ in 0..3 {
        // A box that is being taken apart may be told that it cannot.
        let _ = socket.send_to(b"who am I?", to);
    }
    ExitCode::from(7)
}

/// Becomes another probe in the mount namespace of a process.
fn in_mounts(pid: &str) -> ExitCode {
    let program = env::current_exe().expect("this program");
    let mounts = fs::File::open(format!("/proc/{pid}/ns/mnt")).expect("a process");
    nix::sched::setns(mounts, nix::sched::CloneFlags::CLONE_NEWNS).expect("to enter its mounts");
    let error =
        std::process::Command::new(program).arg0("/run/lab/probe").args(env::args_os().skip(3)).exec();
    panic!("a probe: {error}");
}

/// Waits until standard input ends, by when the tracer has got hold of this process, and becomes `program`.
fn traced(program: &str) -> ExitCode {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let mut command = std::process::Command::new(program);
    let error = command.args(env::args_os().skip(3)).stdin(Stdio::null()).exec();
    panic!("{program}: {error}");
}

/// Becomes `program` in a session of its own, whose controlling terminal is the one at `path`.
fn with_terminal(path: &str, program: &str) -> ExitCode {
    nix::unistd::setsid().expect("a session");
    // Without O_NOCTTY a session's leader gets the terminal that it opens (tty_ioctl(4)).
    let open = || fs::File::options().read(true).write(true).open(path).expect("a terminal");
    // A shell without job control starts what is in its background with both ignored, and then every program below ignores them:
    // the test is not to depend on who started it.
    let mut command = std::process::Command::new("env");
    command
        .arg("--default-signal=INT,QUIT")
        .arg(program)
        .args(env::args_os().skip(4))
        .stdin(open())
        .stdout(open())
        .stderr(open());
    panic!("{program}: {}", command.exec());
}

/// Becomes the program behind `--`, with what stands before it as the environment, whatever that is.
fn with_environment() {
    let words: Vec<_> =
        env::args_os().skip(2).map(|word| CString::new(word.as_bytes()).expect("no NUL")).collect();
    let end = words.iter().position(|word| word.as_bytes() == b"--").expect("a program");
    let (environment, command) = (&words[..end], &words[end + 1..]);
    let Err(errno) = nix::unistd::execve(&command[0], command, environment);
    panic!("{:?}: {errno}", command[0]);
}

/// What NET_ADMIN and NET_RAW over one's own network allow, and what they must not.
fn escape(host_pid: u32) {
    let said = |what: &str, result: std::io::Result<()>| match result {
        Ok(()) => println!("{what}: done"),
        Err(error) => println!("{what}: {}", error.raw_os_error().unwrap_or(-1)),
    };
    said("an address", links::try_address("eth0", Ipv4Addr::new(198, 51, 100, 77).into(), 32));
    let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None);
    said("a packet socket", raw.map(drop).map_err(Into::into));
    said("its link to the host", links::move_to_process("eth0", host_pid));
    said("its link to the gateway", links::move_to_peer("eth0"));
    said("a link on the host", links::dummy_at_process("evil0", host_pid));
    said("a link in the gateway", links::dummy_at_peer("evil1", "eth0"));
    let entered = fs::File::open(format!("/proc/{host_pid}/ns/net"));
    let entered =
        entered.and_then(|place| Ok(nix::sched::setns(place, nix::sched::CloneFlags::CLONE_NEWNET)?));
    said("the host's network", entered);
}

/// Blocks the signals named, says that it is ready, and prints each as it comes; ends with SIGUSR2.
fn count_signals(names: &[&str]) -> ExitCode {
    let mut set = SigSet::empty();
    for name in names.iter().copied().chain(["SIGUSR2"]) {
        set.add(name.parse().expect("a signal's name"));
    }
    set.thread_block().expect("to block signals");
    ready();
    loop {
        let signal = set.wait().expect("a signal");
        println!("{signal}");
        if signal == Signal::SIGUSR2 {
            return ExitCode::SUCCESS;
        }
    }
}

/// One line to whoever waits for it: the process and its address.
fn ready() {
    let address = own_address().map_or_else(|| "-".to_owned(), |address| address.to_string());
    let address6 = own_address6().map_or_else(|| "-".to_owned(), |address| address.to_string());
    println!("ready {} {address} {address6}", std::process::id());
    std::io::stdout().flush().expect("somebody who listens");
}

/// The first IPv4 address that is not the loopback interface's.
pub(crate) fn own_address() -> Option<Ipv4Addr> {
    let all = nix::ifaddrs::getifaddrs().ok()?;
    let mut four = all.filter_map(|found| Some(found.address?.as_sockaddr_in()?.ip()));
    four.find(|address| !address.is_loopback())
}

/// The first IPv6 address that is neither the loopback interface's nor link-local.
pub(crate) fn own_address6() -> Option<Ipv6Addr> {
    let all = nix::ifaddrs::getifaddrs().ok()?;
    let mut six = all.filter_map(|found| Some(found.address?.as_sockaddr_in6()?.ip()));
    six.find(|address| !address.is_loopback() && !address.is_unicast_link_local())
}

fn descriptors() {
    // The directory's own descriptor is gone again when the links are read.
    let names: Vec<_> = fs::read_dir("/proc/self/fd").expect("the descriptors").flatten().collect();
    for name in names {
        if let Ok(target) = fs::read_link(name.path()) {
            println!("{} {}", name.file_name().to_string_lossy(), target.display());
        }
    }
}

fn sleep_for_ever() {
    loop {
        std::thread::park();
    }
}

/// The items byte for byte, each ended by a NUL.
fn print_raw(items: impl Iterator<Item = std::ffi::OsString>) {
    let mut out = std::io::stdout().lock();
    for item in items {
        out.write_all(item.as_bytes()).expect("to print");
        out.write_all(&[0]).expect("to print");
    }
}
