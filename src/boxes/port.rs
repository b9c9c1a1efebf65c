//! `netbox port`: what of boxes is published.

use std::fmt::Write;

use serde::Serialize;

use super::{find, shown};
use crate::error::{Error, Result};
use crate::plan::record::{BoxRecord, PortMap};
use crate::spec::port::InsidePort;
use crate::spec::reference::BoxRef;

/// A published port, and whose it is.
#[derive(Debug, Serialize)]
struct Published<'a> {
    id: &'a str,
    name: &'a str,
    #[serde(flatten)]
    port: PortMap,
}

/// The ports of a box, or of all in the order in which they started: a line for each, as docker-port(1) has it, with the box's
/// name before it where it is not given; or with `json` an array of objects. Of a port of the box's, `inside`, where it leads from.
///
/// # Errors
/// When there is no such box; when nothing leads to that port.
pub fn list(of: Option<&BoxRef>, inside: Option<InsidePort>, json: bool) -> Result<String> {
    let boxes = match of {
        Some(wanted) => vec![find::find(wanted)?.record],
        None => find::all()?,
    };
    let mut ports: Vec<_> = boxes.iter().flat_map(published).collect();
    if let Some(inside) = inside {
        ports.retain(|Published { port, .. }| {
            (port.box_port, port.protocol) == (inside.port, inside.protocol)
        });
        if let Some(first) = boxes.first().filter(|_| ports.is_empty()) {
            return Err(Error::new(format!("port {inside} of box {} is not published", first.name))
                .hint(format!("`netbox port ls {}` lists those that are", first.name)));
        }
    }
    if json {
        return shown::pretty(&ports);
    }
    let mut text = String::new();
    for Published { name, port, .. } in &ports {
        if of.is_none() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{name} ");
        }
        let _ = match inside {
            Some(_) => writeln!(text, "{}", port.on_host()),
            None => writeln!(text, "{}/{} -> {}", port.box_port, port.protocol, port.on_host()),
        };
    }
    Ok(text)
}

/// By the box's ports.
fn published(record: &BoxRecord) -> Vec<Published<'_>> {
    let mut ports = record.ports.clone();
    ports.sort_unstable_by_key(|port| (port.box_port, port.protocol, port.host_address, port.host_port));
    ports.into_iter().map(|port| Published { id: &record.id, name: &record.name, port }).collect()
}
