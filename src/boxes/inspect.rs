//! `netbox inspect`: everything about boxes, as JSON.

use std::io;
use std::os::fd::AsFd;

use serde_json::Value;

use super::find::{self, Found};
use super::shown;
use crate::apply::gateway;
use crate::apply::host::Host;
use crate::error::{Context, Error, Result};
use crate::kernel::namespace;
use crate::kernel::process::Process;
use crate::kernel::route::Route;
use crate::kernel::route::link::{Counters, LinkInfo};
use crate::kernel::terminal;
use crate::plan::inspection::{Inspected, Interface, Interfaces, Namespaces, Seen, Traffic};
use crate::plan::topology::{ETH_INDEX, HOST_MAC, Topology, box_link};
use crate::spec::pointer::JsonPointer;
use crate::spec::reference::BoxRef;

/// An array with an object for each box, in the order in which they were named; or the part of it that `pointer` points to.
///
/// # Errors
/// When one of them is not there, and then nothing of the others; a pointer to nothing.
pub fn inspect(boxes: &[BoxRef], pointer: Option<&JsonPointer>) -> Result<String> {
    let mut eye = Eye { host: Host::open()?, route: None, gateway: None };
    // One after the other: each box that is held takes descriptors.
    let all = boxes.iter().map(|wanted| eye.look(find::find(wanted)?)).collect::<Result<Vec<_>>>()?;
    let Some(pointer) = pointer else { return shown::pretty(&all) };
    let all = serde_json::to_value(&all).map_err(|error| Error::new("cannot write JSON").because(error))?;
    match all.pointer(pointer.as_str()) {
        Some(Value::String(text)) if terminal::is_output() => Ok(shown::printable(text) + "\n"),
        Some(Value::String(text)) => Ok(format!("{text}\n")),
        Some(value) => shown::on_a_line(value),
        None => Err(Error::new(format!("there is nothing at {pointer}")).hint(
            "without --format all of it is printed; the first part is the place of the box, 0 for the first",
        )),
    }
}

/// Where one looks from.
struct Eye {
    host: Host,
    /// On the host.
    route: Option<Route>,
    /// In the gateway, where there is one.
    gateway: Option<Option<Route>>,
}

impl Eye {
    fn look(&mut self, found: Found) -> Result<Inspected> {
        let command = found.command()?;
        let name = found.record.name.clone();
        let seen = self.see(&found, &command);
        // What was seen at its number was the command's, if that lives.
        if command.has_ended().context(|| "cannot look whether the command lives")? {
            return Err(Error::new(format!("box {name} has just ended")));
        }
        let seen = seen.context(|| format!("cannot look at box {name}"))??;
        Ok(Inspected::new(found.record, seen))
    }

    fn see(&mut self, found: &Found, command: &Process) -> io::Result<Result<Seen>> {
        let namespaces = namespaces_of(command.pid.as_raw())?;
        let mut seen = Seen { namespaces, interfaces: Interfaces::default(), end: None, traffic: None };
        let Some(attachment) = &found.record.attachment else { return Ok(Ok(seen)) };
        let home = self.host.network().as_fd();
        let mut inside = namespace::inside(command.as_fd(), home, Route::open)??;
        if let Some(link) = inside.link_with_counters(ETH_INDEX)? {
            seen.end = Some((link.mtu, link.mac));
            seen.interfaces.in_box = Some(interface(link));
        }
        let route = match &mut self.route {
            Some(route) => route,
            empty => empty.insert(Route::open()?),
        };
        let link = route.link_by_name(&attachment.topology.host_link())?;
        seen.interfaces.host = link.filter(|link| link.mac == Some(HOST_MAC)).map(interface);
        let gateway = match &mut self.gateway {
            Some(gateway) => gateway,
            empty => match gateway::look(found.state(), &self.host) {
                Ok(found) => empty.insert(found.map(|(.., route)| route)),
                Err(error) => return Ok(Err(error)),
            },
        };
        if let Some(gateway) = gateway
            && let Some(link) = gateway.link_with_counters(Topology::link_index(attachment.slot, 0))?
            // Another box's, where the first box's end was the gateway's too.
            && link.name == box_link(&found.record.id, 0)
        {
            seen.traffic = link.counters.map(traffic);
            seen.interfaces.gateway = Some(interface(link));
        }
        Ok(Ok(seen))
    }
}

fn namespaces_of(pid: i32) -> io::Result<Namespaces> {
    let of = |kind| namespace::inode_of(pid, kind);
    Ok(Namespaces {
        net: of("net")?,
        mnt: of("mnt")?,
        pid: of("pid")?,
        uts: of("uts")?,
        ipc: of("ipc")?,
        user: of("user")?,
    })
}

fn interface(link: LinkInfo) -> Interface {
    Interface { name: link.name, index: link.index, peer_index: link.peer_index }
}

/// What the gateway's end of a box's link sent, the box has received.
pub(super) const fn traffic(counters: Counters) -> Traffic {
    Traffic {
        bytes_in: counters.bytes_sent,
        packets_in: counters.packets_sent,
        bytes_out: counters.bytes_received,
        packets_out: counters.packets_received,
    }
}
