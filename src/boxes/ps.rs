//! `netbox ps`: the boxes that live.

use std::net::IpAddr;

use super::find;
use crate::error::{Error, Result};
use crate::plan::listing::Listed;
use crate::plan::record::PortMap;

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
    Ok(listing(&rows))
}

fn rows() -> Result<Vec<Listed>> {
    Ok(find::all()?.into_iter().map(Listed::from).collect())
}

fn listing(rows: &[Listed]) -> String {
    let head = ["ID", "NAME", "PID", "NET", "IPV4", "PORTS", "COMMAND"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        let none = || "-".to_owned();
        vec![
            row.id.clone(),
            row.name.clone(),
            row.pid.to_string(),
            row.net.clone(),
            row.ipv4.map_or_else(none, |address| address.to_string()),
            if row.ports.is_empty() { none() } else { port_list(&row.ports) },
            printable(&row.command.join(" ")),
        ]
    }));
    table(&lines)
}

/// Lines of as many cells each, in columns.
pub(super) fn table(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        lines.iter().map(|line| line.get(column).map_or(0, |cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..lines.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Ports in a row as one range, as `docker ps` shows them: `0.0.0.0:8000-8002->80-82/tcp`.
fn port_list(ports: &[PortMap]) -> String {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable_by_key(|port| (port.protocol, port.host_address, port.host_port));
    let follows = |a: &PortMap, b: &PortMap| {
        (a.protocol, a.host_address) == (b.protocol, b.host_address)
            && a.host_port.checked_add(1) == Some(b.host_port)
            && a.box_port.checked_add(1) == Some(b.box_port)
    };
    let range = |first: u16, last: u16| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    let ranges = sorted.chunk_by(follows).filter_map(|row| {
        let (first, last) = (row.first()?, row.last()?);
        let address = match first.host_address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let (host, inside) = (range(first.host_port, last.host_port), range(first.box_port, last.box_port));
        Some(format!("{address}:{host}->{inside}/{}", first.protocol))
    });
    ranges.collect::<Vec<_>>().join(",")
}

/// A command line is anybody's text: what would drive a terminal is shown, not sent.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_a_row_are_shown_as_one_range() {
        let port = |protocol, address: &str, host_port, box_port| PortMap {
            protocol,
            host_address: address.parse().unwrap(),
            host_port,
            box_port,
        };
        use crate::spec::port::Protocol::{Tcp, Udp};
        let mut ports = Vec::new();
        for (host, inside) in [(8000, 80), (8001, 81), (8002, 82), (9000, 80), (9001, 80), (65535, 90)] {
            ports.extend(["0.0.0.0", "::"].map(|address| port(Tcp, address, host, inside)));
        }
        ports.push(port(Udp, "127.0.0.1", 53, 53));
        assert_eq!(
            port_list(&ports),
            "0.0.0.0:8000-8002->80-82/tcp,0.0.0.0:9000->80/tcp,0.0.0.0:9001->80/tcp,0.0.0.0:65535->90/tcp,\
             [::]:8000-8002->80-82/tcp,[::]:9000->80/tcp,[::]:9001->80/tcp,[::]:65535->90/tcp,\
             127.0.0.1:53->53/udp"
        );
    }

    #[test]
    fn a_command_cannot_drive_the_terminal_of_whoever_lists_it() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
