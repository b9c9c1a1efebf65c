//! `netbox ps`: the boxes that live.

use std::net::Ipv4Addr;

use serde::Serialize;

use crate::apply::lease;
use crate::apply::state::State;
use crate::error::{Error, Result};
use crate::plan::record::BoxRecord;

/// One box, in the stable form of `ps --json`.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    name: String,
    pid: i32,
    box_pid: i32,
    net: String,
    privilege: String,
    command: Vec<String>,
    started: String,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<std::net::Ipv6Addr>,
    ports: Vec<PortRow>,
}

#[derive(Debug, Serialize)]
struct PortRow {
    protocol: &'static str,
    host_address: Ipv4Addr,
    host_port: u16,
    box_port: u16,
}

/// The living boxes as a table, or with `json` as an array of objects.
///
/// # Errors
/// A state directory that is not ours.
pub fn ps(json: bool) -> Result<String> {
    let rows = rows()?;
    if json {
        let text = serde_json::to_string_pretty(&rows)
            .map_err(|error| Error::new("cannot write JSON").because(error))?;
        return Ok(text + "\n");
    }
    Ok(table(&rows))
}

fn rows() -> Result<Vec<Row>> {
    let Some(state) = State::open_existing()? else { return Ok(Vec::new()) };
    let mut rows: Vec<_> = lease::all_ids(state.root())
        .iter()
        .filter_map(|id| match lease::look_up(state.root(), id) {
            // A box without a record is about to start.
            Some((Some(record), true)) if record.id == *id => Some(row(record)),
            _ => None,
        })
        .collect();
    rows.sort_by(|a, b| (&a.started, &a.id).cmp(&(&b.started, &b.id)));
    Ok(rows)
}

fn row(record: BoxRecord) -> Row {
    Row {
        id: record.id,
        name: record.name,
        pid: record.pid,
        box_pid: record.box_pid,
        net: record.net,
        privilege: record.privilege,
        command: record.command,
        started: record.started,
        ipv4: record.attachment.map(|attachment| attachment.topology.box_address(attachment.slot)),
        ipv6: None,
        ports: record
            .ports
            .iter()
            .map(|port| PortRow {
                protocol: "tcp",
                host_address: port.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED),
                host_port: port.host_port,
                box_port: port.box_port,
            })
            .collect(),
    }
}

fn table(rows: &[Row]) -> String {
    let mut lines = vec![["ID", "NAME", "PID", "NET", "IPV4", "PORTS", "COMMAND"].map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let ports: Vec<_> = row
            .ports
            .iter()
            .map(|port| {
                format!("{}:{}->{}/{}", port.host_address, port.host_port, port.box_port, port.protocol)
            })
            .collect();
        let none = || "-".to_owned();
        [
            row.id.clone(),
            row.name.clone(),
            row.pid.to_string(),
            row.net.clone(),
            row.ipv4.map_or_else(none, |address| address.to_string()),
            if ports.is_empty() { none() } else { ports.join(",") },
            printable(&row.command.join(" ")),
        ]
    }));
    let width = |column: usize| {
        lines.iter().map(|line| line.get(column).map_or(0, |cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..7).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A command line is anybody's text: what would drive a terminal is shown, not sent.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_cannot_drive_the_terminal_of_whoever_lists_it() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
