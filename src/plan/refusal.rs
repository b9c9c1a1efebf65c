//! Everything that is known to fail before anything is touched.

use crate::error::{Error, Result};
use crate::spec::capability::{Capabilities, Capability};
use crate::spec::port::publishable;
use crate::spec::request::RunRequest;

use super::identity::Caller;
use super::network::Network;
use super::privileges::Privileges;
use super::topology::GATEWAY_MAC;

/// What making a box takes: namespaces and mounts (SYS_ADMIN), links and rules (NET_ADMIN), other users (SETUID, SETGID), the
/// bounding set (SETPCAP), and port 53 of the gateway (NET_BIND_SERVICE).
const NEEDED: Capabilities = Capabilities::of(&[
    Capability::NET_ADMIN,
    Capability::SYS_ADMIN,
    Capability::SETUID,
    Capability::SETGID,
    Capability::SETPCAP,
    Capability::NET_BIND_SERVICE,
]);

/// What entering one takes: its namespaces (SYS_ADMIN, and SYS_CHROOT for its mounts), other users, and the bounding set.
const NEEDED_TO_ENTER: Capabilities = Capabilities::of(&[
    Capability::SYS_ADMIN,
    Capability::SYS_CHROOT,
    Capability::SETUID,
    Capability::SETGID,
    Capability::SETPCAP,
]);

/// Refuses what cannot be carried out.
///
/// # Errors
/// Each with its remedy.
pub fn before_start(request: &RunRequest, caller: &Caller, is_setuid: bool) -> Result<()> {
    unsupported(request)?;
    if is_setuid {
        return Err(Error::new("cannot run")
            .because("netbox is installed setuid, which it is not made for")
            .hint("chmod u-s it, and use sudo"));
    }
    if caller.uid != 0 {
        return Err(Error::new("cannot make a box")
            .because(format!("user {} may not change the network", caller.uid))
            .hint("sudo netbox run …; the command still runs as you"));
    }
    let lacking = NEEDED.without(caller.capabilities);
    if !lacking.is_empty() {
        return Err(Error::new("cannot make a box")
            .because(format!("this process is root without {lacking}"))
            .hint("a box cannot make boxes, nor can a container that was not given these capabilities"));
    }
    Ok(())
}

/// Refuses a further command to whom cannot start one.
///
/// # Errors
/// Each with its remedy.
pub fn before_exec(caller: &Caller, is_setuid: bool) -> Result<()> {
    let cannot = || Error::new("cannot enter a box");
    if is_setuid {
        return Err(cannot()
            .because("netbox is installed setuid, which it is not made for")
            .hint("chmod u-s it, and use sudo"));
    }
    if caller.uid != 0 {
        return Err(cannot()
            .because(format!("user {} has none", caller.uid))
            .hint("sudo netbox exec …; the command runs as whoever the box's does"));
    }
    let lacking = NEEDED_TO_ENTER.without(caller.capabilities);
    if !lacking.is_empty() {
        return Err(cannot()
            .because(format!("this process is root without {lacking}"))
            .hint("a box cannot enter boxes, nor can a container that was not given these capabilities"));
    }
    Ok(())
}

/// Refuses rights over a network that is not the box's own.
///
/// # Errors
/// With a remedy.
pub fn of_network(request: &RunRequest, privileges: &Privileges) -> Result<()> {
    if privileges.own_users && request.is_off_the_host() && !request.has_own_network() {
        return Err(Error::new(format!("cannot give the box these capabilities with --net {}", request.net))
            .because("they would count in a user namespace of the box's own, to which that network does not belong")
            .hint("without --cap-add, or with a network of the box's own"));
    }
    Ok(())
}

/// Refuses what a network without a way out has not.
///
/// # Errors
/// Naming the option.
pub fn in_network(request: &RunRequest, network: &Network) -> Result<()> {
    if !network.internal {
        return Ok(());
    }
    let outward = [
        (!request.publish.is_empty(), "-p/--publish"),
        (request.publish_all, "-P/--publish-all"),
        (!request.host_ports.is_empty(), "--host-port"),
        (!request.dns.is_empty(), "--dns"),
        (request.snat.is_some(), "--snat"),
    ];
    match outward.into_iter().find(|(given, _)| *given) {
        Some((_, option)) => {
            Err(Error::new(format!("cannot carry out {option} in network {}", network.name))
                .because("the network is internal: nothing leads out of it, nor into it")
                .hint("netbox network create, without --internal, makes one that is not"))
        }
        None => Ok(()),
    }
}

/// Refuses what no caller can have.
///
/// # Errors
/// Each with its remedy.
pub fn unsupported(request: &RunRequest) -> Result<()> {
    let macs = request.net.links().map(|(_, join)| join.mac);
    if macs.chain([request.mac]).any(|mac| mac == Some(GATEWAY_MAC)) {
        return Err(Error::new("cannot give the box the hardware address that was asked for")
            .because("it is that of the gateway, at the other end of the box's link")
            .hint("any other will do: no two boxes share a link"));
    }
    request.publish.iter().try_for_each(publishable)
}
