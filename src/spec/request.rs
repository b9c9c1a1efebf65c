//! What a user asks of netbox, as values.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::mtu::LEAST_MTU6;
use super::{
    BoxName, BoxRef, CapabilityList, EnvSetting, ExecRequest, Export, ExtraHost, Filters, HOST_NAME,
    HostPortSpec, Hostname, InsidePort, Join, JsonPointer, Nameserver, Net, NetworkRequest, PortRequest,
    PublishSpec, SearchDomain, SignalNumber, UnpublishSpec, Unshare, UserSpec, Which, address,
};
use crate::error::{Error, Result};

/// One command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Start a command in a box.
    Run(Box<RunRequest>),
    /// Start a further command in boxes that live.
    Exec(Box<ExecRequest>),
    /// List the boxes.
    Ps {
        /// Detached ones that have ended too.
        all: bool,
        /// As JSON.
        json: bool,
        /// Their ids alone.
        quiet: bool,
        /// Which of them.
        filters: Filters,
    },
    /// Wait for the end of boxes.
    Wait {
        /// Which, never none.
        boxes: Vec<BoxRef>,
    },
    /// Show what a detached box printed.
    Logs(LogsRequest),
    /// Forget detached boxes that have ended.
    Rm(RmRequest),
    /// See to the published ports of boxes.
    Port(PortCommand),
    /// Show everything about boxes.
    Inspect {
        /// Which, never empty.
        boxes: Vec<BoxRef>,
        /// The part that is wanted; `None` for all.
        pointer: Option<JsonPointer>,
    },
    /// List the processes of a box.
    Pids {
        /// Which box.
        of: BoxRef,
        /// As JSON.
        json: bool,
    },
    /// Tell which box a process is in.
    Identify {
        /// Which process; `None` for this one.
        pid: Option<i32>,
    },
    /// Show the traffic of boxes.
    Stats {
        /// Whose; none: everybody's.
        boxes: Vec<BoxRef>,
        /// Every second, not once.
        stream: bool,
        /// As JSON.
        json: bool,
    },
    /// Tell what happens to boxes.
    Monitor {
        /// As JSON.
        json: bool,
    },
    /// Send a signal to commands.
    Kill {
        /// Whose, never empty.
        boxes: Vec<BoxRef>,
        /// Which signal.
        signal: SignalNumber,
    },
    /// End boxes.
    Stop {
        /// Which of them.
        which: Which,
        /// How long their commands may take to end by themselves.
        time: Duration,
    },
    /// Remove what dead boxes left.
    Gc,
    /// Make, list or remove networks.
    Network(NetworkRequest),
    /// Start a command in the gateway.
    Gateway {
        /// The command and its arguments, never empty.
        command: Vec<OsString>,
    },
}

/// What `netbox port` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortCommand {
    /// List them.
    List {
        /// Whose; `None` for every box's.
        of: Option<BoxRef>,
        /// Only what leads to this port of the box's, which is given then; `None` for all.
        port: Option<InsidePort>,
        /// As JSON.
        json: bool,
    },
    /// Publish more.
    Add {
        /// Whose.
        of: BoxRef,
        /// Which, never none.
        ports: Vec<PublishSpec>,
    },
    /// Give some up.
    Remove {
        /// Whose.
        of: BoxRef,
        /// Which, never none.
        ports: Vec<UnpublishSpec>,
    },
}

/// What `netbox logs` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogsRequest {
    /// Of which box.
    pub of: BoxRef,
    /// Whether to go on until the box has ended.
    pub follow: bool,
    /// So many lines of what is there already; `None` for all.
    pub tail: Option<usize>,
    /// Whether to say when each line was printed.
    pub timestamps: bool,
}

/// What `netbox rm` is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RmRequest {
    /// Whether boxes that live are killed first.
    pub force: bool,
    /// Whether every box is meant that has ended.
    pub all: bool,
    /// Which are meant otherwise, at least one.
    pub boxes: Vec<BoxRef>,
}

/// What `netbox run` is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunRequest {
    /// The name of the box.
    pub name: Option<BoxName>,
    /// Its network.
    pub net: Net,
    /// Its published ports, those with a fixed host port first.
    pub publish: Vec<PortRequest>,
    /// Whether every port is published that the box listens on.
    pub publish_all: bool,
    /// Ports of the host's loopback that it may reach, each once.
    pub host_ports: Vec<HostPortSpec>,
    /// The MTU of its link in bytes; `None` for the uplink's.
    pub mtu: Option<u32>,
    /// Whether it gets no IPv6 address.
    pub no_ipv6: bool,
    /// Its address.
    pub ip: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// The range that boxes get their addresses from.
    pub pool: Option<Ipv4Net>,
    /// The address of the host's that what it sends leaves with.
    pub snat: Option<IpAddr>,
    /// The hardware address of its end of the link.
    pub mac: Option<[u8; 6]>,
    /// Under which name ip-netns(8) sees its network.
    pub export_netns: Option<Export>,
    /// Namespaces of its own.
    pub unshare: Unshare,
    /// The host name, which takes a namespace of its own too.
    pub hostname: Option<Hostname>,
    /// Whom the box's resolver asks; none: as the host does.
    pub dns: Vec<Nameserver>,
    /// Where names without dots are looked for; `None` for the host's domains.
    pub dns_search: Option<Vec<SearchDomain>>,
    /// Further lines of its hosts file.
    pub add_host: Vec<ExtraHost>,
    /// Who the command runs as; `None` for the caller.
    pub user: Option<UserSpec>,
    /// Capabilities that a box of root has besides the default ones.
    pub cap_add: CapabilityList,
    /// Capabilities that it has not.
    pub cap_drop: CapabilityList,
    /// Whether programs may have more rights than the command.
    pub allow_new_privs: bool,
    /// Where the command starts; `None` for the caller's directory.
    pub workdir: Option<PathBuf>,
    /// Changes to the environment, in order.
    pub env: Vec<EnvSetting>,
    /// Whether the caller's environment is left out.
    pub clear_env: bool,
    /// How long the command may run.
    pub timeout: Option<Duration>,
    /// Descriptors that the command inherits besides 0, 1 and 2.
    pub keep_fds: Vec<i32>,
    /// Where to say what becomes of the run.
    pub json_status_fd: Option<i32>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Say it as JSON.
    pub json: bool,
    /// No warnings.
    pub quiet: bool,
    /// How many times more talkative.
    pub verbose: u8,
    /// Whether the box goes on without its caller.
    pub detach: bool,
    /// Whether such a box is to be forgotten when it ends; `false` for others, of which nothing is kept.
    pub remove: bool,
    /// The command and its arguments. Empty only in a box that goes on without its caller: it just waits.
    pub command: Vec<OsString>,
}

impl RunRequest {
    /// Whether the box has a network namespace of its own.
    #[must_use]
    pub const fn has_own_network(&self) -> bool {
        self.net.is_own()
    }

    /// Whether its network is not that of the host, whosoever it is.
    #[must_use]
    pub fn is_off_the_host(&self) -> bool {
        self.net != Net::Host
    }

    /// Whether the box is to have a certain address of the pool.
    #[must_use]
    pub fn has_address(&self) -> bool {
        self.pool_ip().is_some() || self.pool_ip6().is_some()
    }

    /// The address of the pool that it is to have.
    #[must_use]
    pub fn pool_ip(&self) -> Option<Ipv4Addr> {
        self.ip.filter(|_| self.net.way_out().is_none())
    }

    /// The IPv6 address of the pool that it is to have.
    #[must_use]
    pub fn pool_ip6(&self) -> Option<Ipv6Addr> {
        self.ip6.filter(|_| self.net.way_out().is_none())
    }

    /// How it joins the networks with names that it is to be in, each with the number of the link that leads there. What `--ip`,
    /// `--ip6` and `--mac` say is about its way out.
    #[must_use]
    pub fn joins(&self) -> Vec<(u32, Join)> {
        let mut joins: Vec<_> = self.net.links().map(|(link, join)| (link, join.clone())).collect();
        if let Some((0, join)) = joins.first_mut() {
            join.ip = join.ip.or(self.ip);
            join.ip6 = join.ip6.or(self.ip6);
            join.mac = join.mac.or(self.mac);
        }
        joins
    }

    /// The option that leaves the box without IPv6.
    fn without_ipv6(&self) -> Option<String> {
        match self.mtu.filter(|mtu| *mtu < LEAST_MTU6) {
            Some(mtu) => Some(format!("--mtu {mtu}")),
            None => self.no_ipv6.then(|| "--no-ipv6".to_owned()),
        }
    }

    /// Whether the box has a mount namespace of its own: every box in another network than the host's has, for its /sys.
    #[must_use]
    pub fn has_own_mounts(&self) -> bool {
        self.is_off_the_host() || self.unshare.needs_mounts()
    }

    /// Whether the box has a host name of its own.
    #[must_use]
    pub const fn has_own_hostname(&self) -> bool {
        self.unshare.uts || self.hostname.is_some()
    }

    /// Finds options that cannot both be meant.
    ///
    /// # Errors
    /// The first such pair (exit 2).
    pub fn contradictions(&self) -> Result<()> {
        let contradict = |one: &str, other: &str, cause: &str| {
            Err(Error::usage(format!("{one} and {other} contradict each other")).because(cause))
        };
        let other = format!("--net {}", self.net);
        if let Some(join) = self.net.way_out() {
            let net = format!("--net {}", join.name);
            let of_the_network = [
                (
                    self.mtu.is_some(),
                    "--mtu",
                    "the MTU is that of all its boxes: netbox network create --mtu",
                ),
                (self.no_ipv6 && join.ip6.is_some(), "--no-ipv6", "a box without IPv6 has no such address"),
            ];
            if let Some((_, option, cause)) = of_the_network.into_iter().find(|(given, ..)| *given) {
                return contradict(&net, option, cause);
            }
            if join.ip6.is_some() && self.ip6.is_some() {
                return contradict(&format!("{net}:ip6=…"), "--ip6", "the box has one IPv6 address");
            }
            if join.ip.is_some() && self.ip.is_some() {
                return contradict(&format!("{net}:ip=…"), "--ip", "the box has one address");
            }
            if join.mac.is_some() && self.mac.is_some() {
                return contradict(&format!("{net}:mac=…"), "--mac", "the box has one hardware address");
            }
        }
        let is_the_hosts =
            |extra: &&ExtraHost| extra.name.trim_end_matches('.').eq_ignore_ascii_case(HOST_NAME);
        if let Some(extra) = self.add_host.iter().find(is_the_hosts).filter(|_| !self.host_ports.is_empty()) {
            let option = format!("--add-host {}:{}", extra.name, extra.address);
            return contradict(&option, "--host-port", "the box reaches the host's ports by that name");
        }
        let without_link = match self.net {
            Net::Nat | Net::Networks(_) => None,
            Net::None => Some(("--net none", "the box has no network")),
            Net::Host => Some(("--net host", "the box has the network of the host")),
            Net::Netns(_) => Some((&*other, "the network is taken as it is")),
            Net::Box(_) => Some((&*other, "the network is that of another box, as it is")),
        };
        if let Some((net, cause)) = without_link {
            let of_a_link = [
                (!self.publish.is_empty(), "-p/--publish"),
                (self.publish_all, "-P/--publish-all"),
                (!self.host_ports.is_empty(), "--host-port"),
                (self.mtu.is_some(), "--mtu"),
                (self.no_ipv6, "--no-ipv6"),
                (self.ip.is_some(), "--ip"),
                (self.ip6.is_some(), "--ip6"),
                (self.mac.is_some(), "--mac"),
                (self.pool.is_some(), "--pool"),
                (self.snat.is_some(), "--snat"),
                (!self.dns.is_empty(), "--dns"),
                (self.dns_search.is_some(), "--dns-search"),
            ];
            if let Some((_, option)) = of_a_link.into_iter().find(|(given, _)| *given) {
                return contradict(net, option, cause);
            }
        }
        self.pool_ip6().map_or(Ok(()), address::check_ip6_of_pool)?;
        if !self.has_own_network() && self.export_netns.is_some() {
            return contradict(&other, "--export-netns", "the box has no network of its own");
        }
        if let Some(option) = self.without_ipv6() {
            if self.ip6.is_some() {
                return contradict(&option, "--ip6", "a box without IPv6 has no such address");
            }
            if let Some(source @ IpAddr::V6(_)) = self.snat {
                let cause = format!("a box without IPv6 sends nothing that could leave with {source}");
                return contradict(&option, "--snat", &cause);
            }
        }
        if !self.has_own_mounts() && !self.add_host.is_empty() {
            return contradict("--net host", "--add-host", "the box has the files of the host");
        }
        if self.json_status_fd.is_some_and(|number| self.keep_fds.contains(&number)) {
            return contradict(
                "--keep-fd",
                "--json-status-fd",
                "the command must not write netbox's own lines",
            );
        }
        let both = self.cap_add.named.and(self.cap_drop.named);
        if !both.is_empty() || (self.cap_add.all && self.cap_drop.all) {
            let named = if both.is_empty() { "ALL".to_owned() } else { both.to_string() };
            return contradict("--cap-add", "--cap-drop", &format!("both name {named}"));
        }
        if self.json && !self.dry_run {
            return Err(Error::usage("--json needs --dry-run").because(
                "a run prints nothing of its own; the boxes that live are listed by netbox ps --json",
            ));
        }
        if self.quiet && self.verbose > 0 {
            return contradict("-q/--quiet", "--verbose", "one asks for less, the other for more");
        }
        if self.detach && self.command.is_empty() {
            let of_a_command = [
                (self.workdir.is_some(), "-w/--workdir"),
                (!self.env.is_empty(), "-e/--env"),
                (self.clear_env, "--clear-env"),
                (!self.keep_fds.is_empty(), "--keep-fd"),
            ];
            if let Some((_, option)) = of_a_command.into_iter().find(|(given, _)| *given) {
                return Err(Error::usage(format!("{option} needs a command to start"))
                    .because("with -d/--detach alone the box just waits"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::merge;

    #[test]
    fn contradictions() {
        let publish = || merge(&["80".parse().unwrap()]).unwrap();
        let host_ports = || vec!["80".parse().unwrap()];
        for (request, words) in [
            (
                RunRequest { net: Net::None, publish: publish(), ..Default::default() },
                ["--net none", "-p/--publish"],
            ),
            (
                RunRequest { net: Net::Host, publish: publish(), ..Default::default() },
                ["--net host", "-p/--publish"],
            ),
            (RunRequest { net: Net::None, mtu: Some(1500), ..Default::default() }, ["--net none", "--mtu"]),
            (RunRequest { net: Net::Host, mtu: Some(1500), ..Default::default() }, ["--net host", "--mtu"]),
            (
                RunRequest { keep_fds: vec![4, 3], json_status_fd: Some(3), ..Default::default() },
                ["--keep-fd", "--json-status-fd"],
            ),
            (
                RunRequest { net: Net::None, dns: vec!["192.0.2.53".parse().unwrap()], ..Default::default() },
                ["--net none", "--dns"],
            ),
            (
                RunRequest { net: Net::Host, dns_search: Some(Vec::new()), ..Default::default() },
                ["--net host", "--dns-search"],
            ),
            (
                RunRequest { net: Net::Host, add_host: vec!["a:::1".parse().unwrap()], ..Default::default() },
                ["--net host", "--add-host"],
            ),
            (
                RunRequest { net: Net::Host, publish_all: true, ..Default::default() },
                ["--net host", "-P/--publish-all"],
            ),
            (
                RunRequest { net: Net::None, host_ports: host_ports(), ..Default::default() },
                ["--net none", "--host-port"],
            ),
            (
                RunRequest { net: Net::Host, host_ports: host_ports(), ..Default::default() },
                ["--net host", "--host-port"],
            ),
            (
                RunRequest {
                    net: "netns:blue".parse().unwrap(),
                    host_ports: host_ports(),
                    ..Default::default()
                },
                ["--net netns:blue", "--host-port"],
            ),
            (
                RunRequest {
                    net: "box:web".parse().unwrap(),
                    host_ports: host_ports(),
                    ..Default::default()
                },
                ["--net box:web", "--host-port"],
            ),
            (
                RunRequest {
                    add_host: vec!["Host.netbox.internal.:192.0.2.7".parse().unwrap()],
                    host_ports: host_ports(),
                    ..Default::default()
                },
                ["--add-host Host.netbox.internal.:192.0.2.7", "--host-port"],
            ),
            (RunRequest { net: Net::None, no_ipv6: true, ..Default::default() }, ["--net none", "--no-ipv6"]),
            (
                RunRequest { net: Net::Host, ip: "10.0.0.16".parse().ok(), ..Default::default() },
                ["--net host", "--ip"],
            ),
            (
                RunRequest { net: Net::None, ip6: "fd00::16".parse().ok(), ..Default::default() },
                ["--net none", "--ip6"],
            ),
            (
                RunRequest { net: Net::None, pool: "10.0.0.0/18".parse().ok(), ..Default::default() },
                ["--net none", "--pool"],
            ),
            (
                RunRequest { no_ipv6: true, ip6: "fd00::16".parse().ok(), ..Default::default() },
                ["--no-ipv6", "--ip6"],
            ),
            (
                RunRequest { net: Net::Host, snat: "192.0.2.1".parse().ok(), ..Default::default() },
                ["--net host", "--snat"],
            ),
            (
                RunRequest { no_ipv6: true, snat: "2001:db8::1".parse().ok(), ..Default::default() },
                ["--no-ipv6", "--snat"],
            ),
            (
                RunRequest { mtu: Some(1279), ip6: "fd00::16".parse().ok(), ..Default::default() },
                ["--mtu 1279", "--ip6"],
            ),
            (
                RunRequest { net: "netns:blue".parse().unwrap(), publish: publish(), ..Default::default() },
                ["--net netns:blue", "-p/--publish"],
            ),
            (
                RunRequest {
                    net: "box:web".parse().unwrap(),
                    dns_search: Some(Vec::new()),
                    ..Default::default()
                },
                ["--net box:web", "--dns-search"],
            ),
            (
                RunRequest {
                    net: "netns:/x".parse().unwrap(),
                    export_netns: Some(Export::OfBox),
                    ..Default::default()
                },
                ["--net netns:/x", "--export-netns"],
            ),
            (
                RunRequest { net: Net::Host, export_netns: Some(Export::OfBox), ..Default::default() },
                ["--net host", "--export-netns"],
            ),
            (RunRequest { net: Net::Host, mac: Some([2; 6]), ..Default::default() }, ["--net host", "--mac"]),
            (RunRequest { json: true, ..Default::default() }, ["--json", "--dry-run"]),
            (RunRequest { quiet: true, verbose: 1, ..Default::default() }, ["--quiet", "--verbose"]),
            (RunRequest { detach: true, clear_env: true, ..Default::default() }, ["--detach", "--clear-env"]),
            (RunRequest { detach: true, keep_fds: vec![3], ..Default::default() }, ["--detach", "--keep-fd"]),
        ] {
            let error = request.contradictions().unwrap_err();
            assert_eq!(error.exit_status(), 2);
            assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
        }
        let fine = RunRequest { publish: publish(), mtu: Some(1500), verbose: 2, ..Default::default() };
        let fine = RunRequest { no_ipv6: true, snat: "192.0.2.1".parse().ok(), ..fine };
        let fine = RunRequest { dry_run: true, json: true, ..fine };
        assert_eq!(fine.contradictions(), Ok(()));
    }
}
