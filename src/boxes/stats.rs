//! `netbox stats`: what goes over the links of boxes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::find;
use super::inspect::traffic;
use super::shown;
use crate::apply::gateway;
use crate::apply::host::Host;
use crate::apply::state::State;
use crate::error::{Context, Result};
use crate::kernel::conntrack::Conntrack;
use crate::kernel::namespace;
use crate::kernel::route::Route;
use crate::kernel::terminal;
use crate::plan::inspection::Traffic;
use crate::plan::record::BoxRecord;
use crate::plan::topology::{Topology, box_link};
use crate::report;
use crate::spec::reference::BoxRef;

/// From one look to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// One box. The form is stable.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    name: String,
    /// Null without a link.
    counters: Option<Traffic>,
    /// How many connections of its the gateway tracks; null without a link.
    connections: Option<u32>,
}

/// Prints the traffic of the boxes that are named, or of all, once or with `stream` every second: on a terminal in the place of
/// what was there. It ends when none of the boxes that were named lives any more, or when nobody reads.
///
/// # Errors
/// When a box that is named is not there at the beginning.
pub fn stats(boxes: &[BoxRef], stream: bool, json: bool) -> Result<()> {
    let named = boxes.iter().map(|wanted| Ok(find::find(wanted)?.record)).collect::<Result<Vec<_>>>()?;
    let ids: Vec<_> = named.iter().map(|record| BoxRef::parse(&record.id)).collect::<Result<_>>()?;
    let clears = stream && !json && terminal::is_output();
    let mut eye = Eye { host: Host::open()?, gateway: None };
    let mut next = Instant::now();
    loop {
        let records = if boxes.is_empty() { find::all()? } else { living(&ids) };
        let ended = !boxes.is_empty() && records.is_empty();
        let rows = eye.look(records)?;
        let text = if json { shown::on_a_line(&rows)? } else { shown::columns(&table(&rows)) };
        if !report::stream(&if clears { in_place(&text) } else { text })? || !stream || ended {
            return Ok(());
        }
        next += PERIOD;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn living(ids: &[BoxRef]) -> Vec<BoxRecord> {
    ids.iter().filter_map(|id| Some(find::find(id).ok()?.record)).collect()
}

/// Over what is on the screen, whose rest goes (console_codes(4)).
fn in_place(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

/// Where one looks from.
struct Eye {
    host: Host,
    /// Held from one look to the next: a netfilter socket that is closed makes those wait who change rules there (see
    /// [`Host::nft`]). Let go when no box is left, so that the gateway can go.
    gateway: Option<Gateway>,
}

struct Gateway {
    cookie: u64,
    route: Route,
    tracked: Conntrack,
}

impl Eye {
    fn look(&mut self, records: Vec<BoxRecord>) -> Result<Vec<Row>> {
        let state = if records.iter().any(|record| record.attachment.is_some()) {
            State::open_existing()?
        } else {
            None
        };
        self.find_gateway(state.as_ref())?;
        let Some(gateway) = &mut self.gateway else {
            return Ok(records.into_iter().map(|record| row(record, None, None)).collect());
        };
        let links = gateway.route.links_with_counters().context(|| "cannot list the links of the gateway")?;
        let links: HashMap<_, _> = links.into_iter().map(|link| (link.index, link)).collect();
        let connections = gateway.tracked.count_by_address()?;
        let rows = records.into_iter().map(|record| {
            let link = record.attachment.as_ref();
            let link = link.and_then(|one| links.get(&Topology::link_index(one.slot, 0)));
            // Another's may be there when the box has just ended.
            let link = link.filter(|link| link.name == box_link(&record.id, 0));
            let traffic = link.and_then(|link| link.counters).map(traffic);
            row(record, traffic, Some(&connections))
        });
        Ok(rows.collect())
    }

    fn find_gateway(&mut self, state: Option<&State>) -> Result<()> {
        let living = state.and_then(gateway::cookie);
        if self.gateway.as_ref().map(|gateway| gateway.cookie) == living {
            return Ok(());
        }
        self.gateway = None;
        let Some(state) = state else { return Ok(()) };
        if let Some((record, network, route)) = gateway::look(state, &self.host)? {
            let home = self.host.network().as_fd();
            let tracked = namespace::inside(network.as_fd(), home, Conntrack::open);
            let tracked = tracked.context(|| "cannot enter the gateway")??;
            self.gateway = Some(Gateway { cookie: record.cookie, route, tracked });
        }
        Ok(())
    }
}

fn row(record: BoxRecord, counters: Option<Traffic>, tracked: Option<&HashMap<IpAddr, u32>>) -> Row {
    let of = |address: IpAddr| tracked.and_then(|tracked| tracked.get(&address)).copied().unwrap_or(0);
    let connections = record.attachment.filter(|_| counters.is_some()).map(|attachment| {
        let address = attachment.address();
        of(address.into()) + attachment.own_address6().map_or(0, |address| of(address.into()))
    });
    Row { id: record.id, name: record.name, counters, connections }
}

fn table(rows: &[Row]) -> Vec<Vec<String>> {
    let heading = ["ID", "NAME", "IN", "OUT", "PACKETS IN", "PACKETS OUT", "CONNECTIONS"];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        let cell = |of: &dyn Fn(Traffic) -> String| row.counters.map_or_else(|| "-".to_owned(), of);
        vec![
            row.id.clone(),
            row.name.clone(),
            cell(&|traffic| amount(traffic.bytes_in)),
            cell(&|traffic| amount(traffic.bytes_out)),
            cell(&|traffic| traffic.packets_in.to_string()),
            cell(&|traffic| traffic.packets_out.to_string()),
            row.connections.map_or_else(|| "-".to_owned(), |count| count.to_string()),
        ]
    }));
    lines
}

/// Bytes in units of powers of 1000 with one decimal, cut off, not rounded.
fn amount(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let mut size = 1000;
    let mut shown = format!("{bytes} B");
    for unit in units {
        if bytes < size {
            break;
        }
        shown = format!("{}.{} {unit}", bytes / size, bytes % size / (size / 10));
        size = size.saturating_mul(1000);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units() {
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1999, "1.9 kB"),
            (999_999, "999.9 kB"),
            (1_234_567, "1.2 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(amount(bytes), shown);
        }
    }

    #[test]
    fn every_line_of_a_screen_is_cleared_to_its_end_and_so_is_the_rest() {
        assert_eq!(in_place("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
