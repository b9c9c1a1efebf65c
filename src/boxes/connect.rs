//! `netbox network connect` and `disconnect`: the networks of a box that runs. Its keeper changes them.

use super::control;
use super::find;
use crate::apply::networks;
use crate::error::{Error, Result};
use crate::launch::control::message::{Answer, Request};
use crate::plan::topology::GATEWAY_MAC;
use crate::spec::network::{Join, NetworkName};
use crate::spec::reference::BoxRef;

/// Takes a box that runs into a further network.
///
/// # Errors
/// When there is no such network or box, or the box cannot have what was asked for there: then nothing is changed.
pub(super) fn connect(of: &BoxRef, join: &Join) -> Result<()> {
    if join.mac == Some(GATEWAY_MAC) {
        return Err(Error::new("cannot give the box the hardware address that was asked for")
            .because("it is that of the gateway, at the other end of the box's link")
            .hint("any other will do: no two boxes share a link"));
    }
    // What can be refused without the keeper is.
    if let Some(address) = join.ip {
        networks::keep(&join.name)?.network.check_address(address)?;
    }
    change(of, Request::Connect(join.to_string()), "connect", &join.name)
}

/// Takes a box that runs out of a network.
///
/// # Errors
/// When it is not in it, or has its way out there.
pub(super) fn disconnect(of: &BoxRef, network: &NetworkName) -> Result<()> {
    change(of, Request::Disconnect(network.to_string()), "disconnect", network)
}

fn change(of: &BoxRef, request: Request, verb: &str, network: &NetworkName) -> Result<()> {
    networks::keep(network)?;
    let found = find::find(of)?;
    let (name, net) = (&found.record.name, &found.record.net);
    if found.record.attachment.is_none() {
        let from = if verb == "connect" { "to" } else { "from" };
        return Err(Error::new(format!("cannot {verb} box {name} {from} network {network}"))
            .because(format!("it runs with --net {net}, which has no link to the gateway"))
            .hint("networks join boxes of --net nat and of other networks"));
    }
    let connection = control::connect(&found)?;
    match connection.ask(request)? {
        Some(Answer::Done) => Ok(()),
        Some(_) => Err(Error::new(format!("cannot understand the keeper of box {}", connection.name()))),
        None => Err(Error::new(format!("box {} has just ended", connection.name()))),
    }
}
