//! A box as programs are told of it: `ps --json`, `--json-status-fd`. The form is stable.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::record::BoxRecord;

/// One box.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its name; the id where it has none.
    pub name: String,
    /// The `netbox run` process.
    pub pid: i32,
    /// The command.
    pub box_pid: i32,
    /// `nat`, `none` or `host`.
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
    /// Its published ports.
    pub ports: Vec<ListedPort>,
}

/// One published port.
#[derive(Debug, Serialize)]
pub struct ListedPort {
    /// `tcp`.
    pub protocol: &'static str,
    /// The host's address; 0.0.0.0 for all of them.
    pub host_address: Ipv4Addr,
    /// The host's port.
    pub host_port: u16,
    /// The box's port.
    pub box_port: u16,
}

impl From<BoxRecord> for Listed {
    fn from(record: BoxRecord) -> Self {
        Self {
            id: record.id,
            name: record.name,
            pid: record.pid,
            box_pid: record.box_pid,
            net: record.net,
            privilege: record.privilege,
            command: record.command,
            started: record.started,
            ipv4: record.attachment.map(|attachment| attachment.topology.box_address(attachment.slot)),
            ipv6: record.attachment.and_then(|attachment| attachment.address6),
            ports: record
                .ports
                .iter()
                .map(|port| ListedPort {
                    protocol: "tcp",
                    host_address: port.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED),
                    host_port: port.host_port,
                    box_port: port.box_port,
                })
                .collect(),
        }
    }
}
