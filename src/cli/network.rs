//! `netbox network`

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{Stop, a_box, text};
use crate::error::{Error, Result};
use crate::spec::address::{parse_ip, parse_ip6, parse_mac};
use crate::spec::joins::parse_interface;
use crate::spec::network::{self, Join, NetworkName, NetworkRequest, NewNetwork, check_driver, parse_label};
use crate::spec::routed::parse_no_masquerade;
use crate::spec::subnet::{self, New6, parse_gateway, parse_ip_range, parse_subnet};
use crate::spec::{BoxRef, Request, mtu};

pub(super) const NAME: &str = "network";

#[derive(Debug, Args)]
struct CreateArgs {
    /// Its boxes have IPv6 too
    #[arg(long)]
    ipv6: bool,

    /// The range of its addresses, one for each family [default: a free /24; a random /64]
    #[arg(long, value_name = "CIDR", allow_hyphen_values = true)]
    subnet: Vec<OsString>,

    /// The gateway's address in it, likewise [default: the first]
    #[arg(long, value_name = "IP", allow_hyphen_values = true)]
    gateway: Vec<OsString>,

    /// Give boxes addresses from this part of it, likewise
    #[arg(long, value_name = "CIDR", allow_hyphen_values = true)]
    ip_range: Vec<OsString>,

    /// No way out, and none in
    #[arg(long)]
    internal: bool,

    /// Its boxes do not reach each other
    #[arg(long)]
    isolate: bool,

    /// The MTU of its links in bytes [default: the uplink's]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    mtu: Option<OsString>,

    /// Call it something besides
    #[arg(long, value_name = "KEY[=VALUE]", allow_hyphen_values = true)]
    label: Vec<OsString>,

    /// Have the host send what is for CIDR by way of VIA
    #[arg(long, value_name = "CIDR=VIA", allow_hyphen_values = true)]
    route: Vec<OsString>,

    /// Its boxes and CIDR reach each other by their own addresses
    #[arg(long, value_name = "CIDR", allow_hyphen_values = true)]
    no_masquerade: Vec<OsString>,

    /// What kind it is: bridge
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge", allow_hyphen_values = true)]
    driver: OsString,

    /// Its name
    #[arg(value_name = "NAME", hide = true)]
    name: Option<OsString>,
}

#[derive(Debug, Args)]
struct LsArgs {
    /// As JSON
    #[arg(long, conflicts_with = "quiet")]
    json: bool,

    /// Their names alone
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct NamesArgs {
    /// Their names
    #[arg(value_name = "NAME", hide = true)]
    names: Vec<OsString>,
}

pub(super) fn command() -> Command {
    let of = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).override_usage(format!("netbox network {name} [OPTIONS] [NAME...]"))
    };
    Command::new(NAME)
        .about("Make, list and remove networks that boxes share, and change who is in them")
        .override_usage("netbox network create|ls|inspect|rm|prune|connect|disconnect")
        .subcommand_required(true)
        .subcommand(
            CreateArgs::augment_args(of("create", "Make a network"))
                .override_usage("netbox network create [OPTIONS] NAME"),
        )
        .subcommand(LsArgs::augment_args(of("ls", "List the networks")).visible_alias("list"))
        .subcommand(NamesArgs::augment_args(of("inspect", "Say everything about networks, as JSON")))
        .subcommand(NamesArgs::augment_args(of("rm", "Remove networks")).visible_alias("remove"))
        .subcommand(of("prune", "Remove the networks that no box is in"))
        .subcommand(
            ConnectArgs::augment_args(of("connect", "Take a box that runs into a further network"))
                .override_usage(CONNECT_USAGE),
        )
        .subcommand(
            NamesArgs::augment_args(of("disconnect", "Take a box that runs out of a network"))
                .override_usage(DISCONNECT_USAGE),
        )
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let (name, mut matches) = matches.remove_subcommand().unwrap_or_default();
    let request = match name.as_str() {
        "create" => NetworkRequest::Create(CreateArgs::from_arg_matches_mut(&mut matches)?.try_into()?),
        "ls" => {
            let LsArgs { json, quiet } = LsArgs::from_arg_matches_mut(&mut matches)?;
            NetworkRequest::List { json, quiet }
        }
        "inspect" => NetworkRequest::Inspect(all(&mut matches, |name| match name {
            "nat" => Ok(name.to_owned()),
            _ => NetworkName::parse(name).map(|name| name.as_str().to_owned()),
        })?),
        "rm" => NetworkRequest::Remove(all(&mut matches, |name| not_nat(name, "remove"))?),
        "prune" => NetworkRequest::Prune,
        "connect" => ConnectArgs::from_arg_matches_mut(&mut matches)?.try_into()?,
        "disconnect" => {
            let NamesArgs { names } = NamesArgs::from_arg_matches_mut(&mut matches)?;
            let (network, of) = pair(&names, "disconnect", DISCONNECT_USAGE)?;
            NetworkRequest::Disconnect { of, network }
        }
        // clap has refused it already.
        _ => return Err(Error::usage(format!("there is no command network {name:?}")).into()),
    };
    Ok(Request::Network(request))
}

fn all<T>(matches: &mut ArgMatches, one: impl Fn(&str) -> Result<T>) -> Result<Vec<T>, Stop> {
    let NamesArgs { names } = NamesArgs::from_arg_matches_mut(matches)?;
    if names.is_empty() {
        return Err(needs_name().into());
    }
    Ok(names.iter().map(|name| one(text("NAME", name)?)).collect::<Result<_>>()?)
}

fn needs_name() -> Error {
    Error::usage("which network?")
        .because("its name is missing")
        .hint("netbox network create|inspect|rm NAME")
}

#[derive(Debug, Args)]
struct ConnectArgs {
    /// The address that the box is to have there
    #[arg(long, value_name = "IP", allow_hyphen_values = true)]
    ip: Option<OsString>,

    /// The IPv6 address that it is to have there
    #[arg(long, value_name = "IP", allow_hyphen_values = true)]
    ip6: Option<OsString>,

    /// The hardware address of its link
    #[arg(long, value_name = "MAC", allow_hyphen_values = true)]
    mac: Option<OsString>,

    /// What the network's other boxes find it by besides
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    alias: Vec<OsString>,

    /// The name of its interface [default: the next of eth1, eth2, …]
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    ifname: Option<OsString>,

    /// The network, and the box
    #[arg(value_name = "NAME", hide = true)]
    names: Vec<OsString>,
}

const CONNECT_USAGE: &str = "netbox network connect [OPTIONS] NETWORK BOX";
const DISCONNECT_USAGE: &str = "netbox network disconnect NETWORK BOX";

/// A network and a box.
fn pair(names: &[OsString], verb: &str, usage: &str) -> Result<(NetworkName, BoxRef)> {
    let [network, of] = names else {
        return Err(Error::usage(format!("network {verb} needs a network and a box")).hint(usage));
    };
    Ok((not_nat(text("NETWORK", network)?, verb)?, a_box(of)?))
}

impl TryFrom<ConnectArgs> for NetworkRequest {
    type Error = Error;

    fn try_from(args: ConnectArgs) -> Result<Self> {
        let (name, of) = pair(&args.names, "connect", CONNECT_USAGE)?;
        let mut join = Join::new(name);
        join.ip = parsed("--ip", args.ip, parse_ip)?;
        join.ip6 = parsed("--ip6", args.ip6, parse_ip6)?;
        join.mac = parsed("--mac", args.mac, parse_mac)?;
        join.interface = parsed("--ifname", args.ifname, parse_interface)?;
        for alias in &args.alias {
            join.add_alias(text("--alias", alias)?)?;
        }
        Ok(Self::Connect { of, join })
    }
}

/// The network of the boxes that share none is there always.
fn not_nat(name: &str, verb: &str) -> Result<NetworkName> {
    if name == network::RESERVED[0] {
        return Err(Error::usage(format!("cannot {verb} network nat"))
            .because("it is that of all boxes that are in no other, and always there"));
    }
    NetworkName::parse(name)
}

impl TryFrom<CreateArgs> for NewNetwork {
    type Error = Error;

    fn try_from(args: CreateArgs) -> Result<Self> {
        check_driver(text("-d/--driver", &args.driver)?)?;
        let mut labels = BTreeMap::new();
        for label in &args.label {
            let (key, value) = parse_label(text("--label", label)?)?;
            labels.insert(key, value);
        }
        let (subnet, subnet6) =
            subnet::networks("--subnet", &every("--subnet", &args.subnet, parse_subnet)?)?;
        let (gateway, gateway6) =
            subnet::addresses("--gateway", &every("--gateway", &args.gateway, parse_gateway)?)?;
        let (ip_range, ip_range6) =
            subnet::networks("--ip-range", &every("--ip-range", &args.ip_range, parse_ip_range)?)?;
        let six = New6 { subnet: subnet6, gateway: gateway6, ip_range: ip_range6 };
        let new = Self {
            name: not_nat(text("NAME", &args.name.ok_or_else(needs_name)?)?, "create")?,
            subnet,
            gateway,
            ip_range,
            ipv6: six.of(args.ipv6)?,
            internal: args.internal,
            isolate: args.isolate,
            mtu: parsed("--mtu", args.mtu, mtu::parse)?,
            labels,
            routes: each("--route", &args.route, str::parse)?,
            no_masquerade: each("--no-masquerade", &args.no_masquerade, parse_no_masquerade)?,
        };
        new.contradictions()?;
        Ok(new)
    }
}

fn parsed<T>(option: &str, value: Option<OsString>, parse: fn(&str) -> Result<T>) -> Result<Option<T>> {
    value.map(|value| parse(text(option, &value)?)).transpose()
}

fn every<T>(option: &str, values: &[OsString], parse: fn(&str) -> Result<T>) -> Result<Vec<T>> {
    values.iter().map(|value| parse(text(option, value)?)).collect()
}

/// The values of an option that may be given more than once, each once.
fn each<T: PartialEq>(option: &str, values: &[OsString], parse: fn(&str) -> Result<T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for value in values {
        let one = parse(text(option, value)?)?;
        if !all.contains(&one) {
            all.push(one);
        }
    }
    Ok(all)
}
