//! `netbox ps`: the boxes that live.

use std::net::IpAddr;

use super::find;
use super::shown::{self, printable};
use crate::error::Result;
use crate::plan::listing::Listed;
use crate::plan::record::PortMap;
use crate::spec::filter::Filters;

/// The living boxes that fit, as a table, with `json` as an array of objects, with `quiet` their ids.
///
/// # Errors
/// A state directory that is not ours.
pub fn ps(json: bool, quiet: bool, filters: &Filters) -> Result<String> {
    let mut all = find::all()?;
    all.retain(|record| filters.fit(&record.name, &record.id, &record.net));
    if quiet {
        return Ok(all.into_iter().map(|record| record.id + "\n").collect());
    }
    let rows: Vec<_> = all.into_iter().map(Listed::from).collect();
    if json {
        return shown::pretty(&rows);
    }
    Ok(table(&rows))
}

fn table(rows: &[Listed]) -> String {
    let mut lines = vec![["ID", "NAME", "PID", "NET", "IPV4", "PORTS", "COMMAND"].map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let none = || "-".to_owned();
        [
            row.id.clone(),
            row.name.clone(),
            row.pid.to_string(),
            row.net.clone(),
            row.ipv4.map_or_else(none, |address| address.to_string()),
            if row.ports.is_empty() { none() } else { port_list(&row.ports) },
            printable(&row.command.join(" ")),
        ]
    }));
    shown::columns(&lines)
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
}
