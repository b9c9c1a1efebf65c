//! A box as programs are told of it: `ps --json`, `--json-status-fd`. The form is stable.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::record::{Attachment, BoxRecord, PortMap};
use crate::spec::host_port::HostPortSpec;

/// One box.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its name; the id where it has none.
    pub name: String,
    /// The `netbox run` process, while the box lives.
    pub pid: Option<i32>,
    /// The command, likewise.
    pub box_pid: Option<i32>,
    /// `nat`, `none`, `host`, the name of a network, or whose it is: `netns:…`, `box:…`.
    pub net: String,
    /// `root`.
    pub privilege: String,
    /// The command line.
    pub command: Vec<String>,
    /// RFC 3339.
    pub started: String,
    /// Its address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Its published ports. One without an address is there twice, with `0.0.0.0` and with `::`.
    pub ports: Vec<PortMap>,
    /// Ports of the host's that it reaches.
    pub host_ports: Vec<HostPortSpec>,
}

impl From<BoxRecord> for Listed {
    fn from(record: BoxRecord) -> Self {
        Self {
            id: record.id,
            name: record.name,
            pid: Some(record.pid),
            box_pid: Some(record.box_pid),
            net: record.net,
            privilege: record.privilege,
            command: record.command,
            started: record.started,
            ipv4: record.attachment.as_ref().map(Attachment::address),
            ipv6: record.attachment.as_ref().and_then(Attachment::own_address6),
            ports: record.ports,
            host_ports: record.host_ports,
        }
    }
}
