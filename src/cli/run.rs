//! `netbox run`

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::{Stop, text};
use crate::error::{Error, Result};
use crate::spec::{
    BoxName, CapabilityList, EnvSetting, Export, Hostname, Net, PublishSpec, Request, RunRequest,
    SearchDomain, Unshare, UserSpec, address, descriptor, merge, merge_host_ports, mtu, search_list, timeout,
};

pub(super) const NAME: &str = "run";

const USAGE: &str =
    "netbox run [OPTIONS] [--] COMMAND [ARG...]\n       netbox run -d [OPTIONS] [--] [COMMAND [ARG...]]";

/// The options. Values stay as they were typed, since the types of `spec` say better than clap what is
/// wrong with one; those that look like an option are taken too, for the same reason.
#[derive(Debug, Args)]
struct RunArgs {
    /// Publish a port of the box on the host: [[IP:][HOSTPORT[-END]]:]BOXPORT[-END][/tcp|udp|sctp]
    #[arg(short, long, value_name = "SPEC", allow_hyphen_values = true, help_heading = "Network")]
    publish: Vec<OsString>,

    /// Publish every port that the box listens on, on free ports of the host, for as long as it does
    #[arg(short = 'P', long, help_heading = "Network")]
    publish_all: bool,

    /// Let the box reach this port of the host's 127.0.0.1, as host.netbox.internal: PORT[:BOXPORT][/tcp|udp]
    #[arg(long, value_name = "SPEC", allow_hyphen_values = true, help_heading = "Network")]
    host_port: Vec<OsString>,

    /// The box's network: nat (its own, behind a router), none (its own, unconnected), host, one of `netbox network`,
    /// box:NAME (another box's), netns:NAME or netns:PATH (a network namespace that is there). More than once for a box
    /// in several networks: eth0, eth1, …, the first with the way out
    #[arg(
        long,
        visible_alias = "network",
        value_name = "NETWORK[:ip=IP,ip6=IP,mac=MAC,alias=NAME,ifname=NAME]",
        default_value = "nat",
        allow_hyphen_values = true,
        help_heading = "Network"
    )]
    net: Vec<OsString>,

    /// The MTU of the box's link in bytes [default: the uplink's]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, help_heading = "Network")]
    mtu: Option<OsString>,

    /// Give the box this address of the pool
    #[arg(long, value_name = "IP", allow_hyphen_values = true, help_heading = "Network")]
    ip: Option<OsString>,

    /// Give the box this IPv6 address; the first box chooses the pool by it
    #[arg(long, value_name = "IP", allow_hyphen_values = true, help_heading = "Network")]
    ip6: Option<OsString>,

    /// The range of addresses for boxes, /18 to /27, if this is the first box
    #[arg(long, value_name = "CIDR", allow_hyphen_values = true, help_heading = "Network")]
    pool: Option<OsString>,

    /// Send with this address of the host's, instead of that of the interface that a packet leaves by
    #[arg(long, value_name = "IP", allow_hyphen_values = true, help_heading = "Network")]
    snat: Option<OsString>,

    /// The hardware address of the box's link
    #[arg(long, value_name = "MAC", allow_hyphen_values = true, help_heading = "Network")]
    mac: Option<OsString>,

    /// Give the box no IPv6 address
    #[arg(long, help_heading = "Network")]
    no_ipv6: bool,

    /// Ask this name server, from the host's network, instead of those that the host asks
    #[arg(long, value_name = "IP", allow_hyphen_values = true, help_heading = "Network")]
    dns: Vec<OsString>,

    /// Look for names without dots in this domain, instead of the host's; `.` for none
    #[arg(long, value_name = "DOMAIN", allow_hyphen_values = true, help_heading = "Network")]
    dns_search: Vec<OsString>,

    /// Add a name to the box's hosts file
    #[arg(long, value_name = "NAME:IP", allow_hyphen_values = true, help_heading = "Network")]
    add_host: Vec<OsString>,

    /// The box's host name; implies --unshare-uts
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, help_heading = "Network")]
    hostname: Option<OsString>,

    /// Show the box's network to ip-netns(8) as /run/netns/NAME [default: the box's name]
    #[arg(
        long,
        value_name = "NAME",
        num_args = 0..=1,
        require_equals = true,
        help_heading = "Network"
    )]
    export_netns: Option<Option<OsString>>,

    /// Keep mounts that the host makes later out of the box
    #[arg(long, help_heading = "Isolation")]
    unshare_mount: bool,

    /// Give the box processes of its own, under a small init
    #[arg(long, help_heading = "Isolation")]
    unshare_pid: bool,

    /// Give the box a host name of its own
    #[arg(long, help_heading = "Isolation")]
    unshare_uts: bool,

    /// Give the box System V IPC and message queues of its own
    #[arg(long, help_heading = "Isolation")]
    unshare_ipc: bool,

    /// Run the command as this user, and group, by name or number [default: who called]
    #[arg(short, long, value_name = "USER[:GROUP]", allow_hyphen_values = true, help_heading = "Isolation")]
    user: Option<OsString>,

    /// Give a box of root this capability, in a user namespace of its own
    #[arg(long, value_name = "CAPABILITY", allow_hyphen_values = true, help_heading = "Isolation")]
    cap_add: Vec<OsString>,

    /// Take this capability from a box of root; ALL for all of them
    #[arg(long, value_name = "CAPABILITY", allow_hyphen_values = true, help_heading = "Isolation")]
    cap_drop: Vec<OsString>,

    /// Let sudo and other set-user-id programs work in the box
    #[arg(long, help_heading = "Isolation")]
    allow_new_privs: bool,

    /// Name the box
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, help_heading = "Process")]
    name: Option<OsString>,

    /// Return when the command runs, and print the box's id; without a command the box just waits
    #[arg(short, long, help_heading = "Process")]
    detach: bool,

    /// Start the command in this directory
    #[arg(short, long, value_name = "DIR", allow_hyphen_values = true, help_heading = "Process")]
    workdir: Option<OsString>,

    /// Set a variable of the environment, or copy the caller's
    #[arg(short, long, value_name = "NAME[=VALUE]", allow_hyphen_values = true, help_heading = "Process")]
    env: Vec<OsString>,

    /// Start with PATH, HOME, USER and TERM only
    #[arg(long, help_heading = "Process")]
    clear_env: bool,

    /// End the command after this time, as in 500ms, 30s or 1h30m
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, help_heading = "Process")]
    timeout: Option<OsString>,

    /// Let the command inherit this file descriptor
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Process")]
    keep_fd: Vec<OsString>,

    /// Say what would be done, and do nothing
    #[arg(long, help_heading = "Output")]
    dry_run: bool,

    /// Write to this file descriptor, in JSON, when the command has started and ended
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Output")]
    json_status_fd: Option<OsString>,

    /// With --dry-run: say it as JSON
    #[arg(long, help_heading = "Output")]
    json: bool,

    /// No warnings
    #[arg(short, long, help_heading = "Output")]
    quiet: bool,

    /// Say what is decided and why
    #[arg(long, action = ArgAction::Count, help_heading = "Output")]
    verbose: u8,

    /// With -d: forget the box when it ends. Without, a box is always removed.
    #[arg(long, hide = true, action = ArgAction::Count)]
    rm: u8,

    /// A box in the foreground always has the caller's stdin.
    #[arg(short, long, hide = true, action = ArgAction::Count)]
    interactive: u8,

    /// A box in the foreground always has the caller's terminal.
    #[arg(short, long, hide = true, action = ArgAction::Count)]
    tty: u8,

    /// The command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, hide = true)]
    command: Vec<OsString>,
}

pub(super) fn command() -> Command {
    RunArgs::augment_args(Command::new(NAME))
        .about("Start a command in a box")
        .override_usage(USAGE)
        .after_help(
            "What follows COMMAND is the command's own. Docker's --rm, -i and -t are accepted. With -d, --rm \
             forgets the box when it ends. Else they change nothing: a box is always removed, and always has \
             the caller's stdin and terminal.",
        )
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let args = RunArgs::from_arg_matches_mut(matches)?;
    Ok(Request::Run(Box::new(RunRequest::try_from(args)?)))
}

impl TryFrom<RunArgs> for RunRequest {
    type Error = Error;

    fn try_from(args: RunArgs) -> Result<Self> {
        if args.command.is_empty() && !args.detach {
            return Err(Error::usage("run needs a command to start")
                .hint("netbox run [OPTIONS] [--] COMMAND [ARG...]; with -d alone the box just waits"));
        }
        let publish = args.publish.iter().map(publish_spec).collect::<Result<Vec<_>>>()?;
        let request = Self {
            name: parsed("--name", args.name, BoxName::parse)?,
            net: nets(&args.net)?,
            publish: merge(&publish)?,
            publish_all: args.publish_all,
            host_ports: merge_host_ports(&all("--host-port", &args.host_port)?)?,
            mtu: parsed("--mtu", args.mtu, mtu::parse)?,
            ip: parsed("--ip", args.ip, address::parse_ip)?,
            ip6: parsed("--ip6", args.ip6, address::parse_ip6)?,
            pool: parsed("--pool", args.pool, address::parse_pool)?,
            snat: parsed("--snat", args.snat, address::parse_snat)?,
            mac: parsed("--mac", args.mac, address::parse_mac)?,
            no_ipv6: args.no_ipv6,
            export_netns: args.export_netns.map(export).transpose()?,
            unshare: Unshare {
                mount: args.unshare_mount,
                pid: args.unshare_pid,
                uts: args.unshare_uts,
                ipc: args.unshare_ipc,
            },
            hostname: parsed("--hostname", args.hostname, Hostname::parse)?,
            dns: all("--dns", &args.dns)?,
            dns_search: dns_search(&args.dns_search)?,
            add_host: all("--add-host", &args.add_host)?,
            user: parsed("-u/--user", args.user, str::parse::<UserSpec>)?,
            cap_add: capabilities("--cap-add", &args.cap_add)?,
            cap_drop: capabilities("--cap-drop", &args.cap_drop)?,
            allow_new_privs: args.allow_new_privs,
            workdir: args.workdir.map(workdir).transpose()?,
            env: args.env.iter().map(|setting| EnvSetting::parse(setting)).collect::<Result<_>>()?,
            clear_env: args.clear_env,
            timeout: parsed("--timeout", args.timeout, timeout::parse)?,
            keep_fds: args
                .keep_fd
                .iter()
                .map(|number| descriptor::parse(text("--keep-fd", number)?))
                .collect::<Result<_>>()?,
            json_status_fd: parsed("--json-status-fd", args.json_status_fd, descriptor::parse_own)?,
            dry_run: args.dry_run,
            json: args.json,
            quiet: args.quiet,
            verbose: args.verbose,
            detach: args.detach,
            remove: args.detach && args.rm > 0,
            command: args.command,
        };
        request.contradictions()?;
        Ok(request)
    }
}

pub(super) fn parsed<T>(
    option: &str,
    value: Option<OsString>,
    parse: fn(&str) -> Result<T>,
) -> Result<Option<T>> {
    value.map(|value| parse(text(option, &value)?)).transpose()
}

fn capabilities(option: &str, names: &[OsString]) -> Result<CapabilityList> {
    names.iter().try_fold(CapabilityList::default(), |list, name| list.and(text(option, name)?))
}

/// Every value of an option that may be given more than once.
fn all<T: FromStr<Err = Error>>(option: &str, values: &[OsString]) -> Result<Vec<T>> {
    values.iter().map(|value| text(option, value)?.parse()).collect()
}

fn dns_search(values: &[OsString]) -> Result<Option<Vec<SearchDomain>>> {
    if values.is_empty() {
        return Ok(None);
    }
    let texts = values.iter().map(|value| text("--dns-search", value)).collect::<Result<Vec<_>>>()?;
    search_list(&texts).map(Some)
}

fn export(name: Option<OsString>) -> Result<Export> {
    Export::parse(name.as_deref().map(|name| text("--export-netns", name)).transpose()?)
}

fn nets(words: &[OsString]) -> Result<Net> {
    Net::of(&words.iter().map(|word| text("--net", word)?.parse()).collect::<Result<Vec<_>>>()?)
}

fn publish_spec(value: &OsString) -> Result<PublishSpec> {
    text("-p/--publish", value)?.parse()
}

pub(super) fn workdir(value: OsString) -> Result<PathBuf> {
    if value == OsStr::new("") {
        return Err(Error::usage("invalid directory \"\" for -w/--workdir").because("it is empty"));
    }
    Ok(value.into())
}
