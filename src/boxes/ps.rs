//! `netbox ps`: the boxes that live, and the detached ones that have ended.

use std::net::IpAddr;

use serde::Serialize;

use super::ended::{self, Ended};
use super::find;
use super::shown::{self, printable};
use crate::error::Result;
use crate::plan::listing::Listed;
use crate::plan::record::{BoxRecord, PortMap};
use crate::spec::filter::{Filters, Status};

/// One box, and whether it lives. The form is stable.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    listed: Listed,
    status: Status,
    exit_status: Option<u8>,
    ended: Option<String>,
}

/// The living boxes that fit, as a table, with `json` as an array of objects, with `quiet` their ids; with `all`, or where the filters
/// ask for such, those that have ended before them.
///
/// # Errors
/// A state directory that is not ours.
pub fn ps(all: bool, json: bool, quiet: bool, filters: &Filters) -> Result<String> {
    let all = all || filters.ask_for_ended();
    let mut rows = rows(all)?;
    rows.retain(|Row { listed, status, exit_status, .. }| {
        filters.fit(&listed.name, &listed.id, &listed.net) && filters.fit_end(*status, *exit_status)
    });
    if quiet {
        return Ok(rows.into_iter().map(|row| row.listed.id + "\n").collect());
    }
    if json {
        return shown::pretty(&rows);
    }
    Ok(table(&rows, all))
}

fn rows(all: bool) -> Result<Vec<Row>> {
    // First the living: one that ends meanwhile is there twice rather than not at all.
    let living = find::all()?;
    let ended = if all { ended::all()? } else { Vec::new() };
    let ended =
        ended.into_iter().filter(|ended| !living.iter().any(|one| one.id == ended.kept.id().as_str()));
    let mut rows: Vec<_> = ended.filter_map(Row::ended).collect();
    rows.extend(living.into_iter().map(Row::running));
    Ok(rows)
}

impl Row {
    fn running(record: BoxRecord) -> Self {
        Self { listed: Listed::from(record), status: Status::Running, exit_status: None, ended: None }
    }

    /// None where the record was damaged: nothing is known but the id.
    fn ended(ended: Ended) -> Option<Self> {
        let end = ended.end();
        // Its processes' numbers may be others' by now.
        let listed = Listed { pid: None, box_pid: None, ..Listed::from(ended.record?.known) };
        let exit_status = end.as_ref().and_then(|end| end.exit_status);
        Some(Self { listed, status: Status::Exited, exit_status, ended: end.map(|end| end.ended) })
    }

    /// As the column STATUS has it.
    fn state(&self) -> String {
        let status = || self.exit_status.map_or_else(|| "?".to_owned(), |status| status.to_string());
        match (self.status, &self.ended) {
            (Status::Running, _) => "running".to_owned(),
            (Status::Exited, Some(when)) => format!("exited {} at {when}", status()),
            (Status::Exited, None) => "lost".to_owned(),
        }
    }
}

fn table(rows: &[Row], all: bool) -> String {
    let mut lines = vec![heading(all)];
    lines.extend(rows.iter().map(|row| {
        let none = || "-".to_owned();
        let listed = &row.listed;
        let command = printable(&listed.command.join(" "));
        let state = all.then(|| row.state());
        let cells = [
            listed.id.clone(),
            listed.name.clone(),
            listed.pid.map_or_else(none, |pid| pid.to_string()),
            listed.net.clone(),
            listed.ipv4.map_or_else(none, |address| address.to_string()),
            if listed.ports.is_empty() { none() } else { port_list(&listed.ports) },
        ];
        let command = if command.is_empty() { none() } else { command };
        cells.into_iter().chain(state).chain([command]).collect()
    }));
    shown::columns(&lines)
}

fn heading(all: bool) -> Vec<String> {
    let own = ["ID", "NAME", "PID", "NET", "IPV4", "PORTS"];
    own.into_iter().chain(all.then_some("STATUS")).chain(["COMMAND"]).map(str::to_owned).collect()
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
