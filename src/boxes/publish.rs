//! `netbox port add` and `port rm`: the published ports of a box that runs. Its keeper changes them.

use std::fmt::{Display, Write};
use std::net::SocketAddr;

use super::control;
use super::find::{self, Found};
use crate::error::{Error, Result};
use crate::launch::control::message::{Answer, Request};
use crate::plan::ports::addition;
use crate::plan::record::PortMap;
use crate::spec::{BoxRef, PublishSpec, UnpublishSpec};

/// Publishes `ports` of a box, all or none, and returns a line for each, by the box's ports.
///
/// # Errors
/// A port that is taken, naming its holder; a box without a network of its own, or none of that name.
pub fn add(of: &BoxRef, ports: &[PublishSpec]) -> Result<String> {
    // What can be refused without the keeper is.
    addition(ports)?;
    let found = with_link(of)?;
    let mut added = change(&found, Request::AddPorts(words(ports)))?;
    added.sort_unstable_by_key(|port| (port.box_port, port.protocol, port.host_address, port.host_port));
    let mut text = String::new();
    for PortMap { protocol, host_address, host_port, box_port } in added {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{box_port}/{protocol} -> {}", SocketAddr::new(host_address, host_port));
    }
    Ok(text)
}

/// Gives up published `ports` of a box, all or none.
///
/// # Errors
/// A port that is not published; a box without a network of its own, or none of that name.
pub fn remove(of: &BoxRef, ports: &[UnpublishSpec]) -> Result<()> {
    let found = with_link(of)?;
    change(&found, Request::RemovePorts(words(ports))).map(drop)
}

fn with_link(of: &BoxRef) -> Result<Found> {
    let found = find::find(of)?;
    if found.record.attachment.is_some() {
        return Ok(found);
    }
    let (name, net) = (&found.record.name, &found.record.net);
    Err(Error::new(format!("cannot change the ports of box {name}"))
        .because(format!("it runs with --net {net}, which has none to publish")))
}

fn change(found: &Found, request: Request) -> Result<Vec<PortMap>> {
    let connection = control::connect(found)?;
    match connection.ask(request)? {
        Some(Answer::Ports(ports)) => Ok(ports),
        Some(_) => Err(Error::new(format!("cannot understand the keeper of box {}", connection.name()))),
        None => Err(Error::new(format!("box {} has just ended", connection.name()))),
    }
}

fn words(ports: &[impl Display]) -> Vec<String> {
    ports.iter().map(ToString::to_string).collect()
}
