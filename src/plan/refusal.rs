//! Everything that is known to fail before anything is touched.

use crate::error::{Error, Result};
use crate::spec::capability::{Capabilities, Capability};
use crate::spec::port::publishable;
use crate::spec::request::RunRequest;

use super::identity::Caller;
use super::network::Network;
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
    if request.seat().1 == Some(GATEWAY_MAC) {
        return Err(Error::new("cannot give the box the hardware address that was asked for")
            .because("it is that of the gateway, at the other end of the box's link")
            .hint("any other will do: no two boxes share a link"));
    }
    request.publish.iter().try_for_each(publishable)
}
