//! `netbox ps`: the boxes that live.

use crate::apply::lease;
use crate::apply::state::State;
use crate::error::{Error, Result};
use crate::plan::listing::Listed;

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

fn rows() -> Result<Vec<Listed>> {
    let Some(state) = State::open_existing()? else { return Ok(Vec::new()) };
    let mut rows: Vec<_> = lease::all_ids(state.root())
        .iter()
        .filter_map(|id| match lease::look_up(state.root(), id) {
            // A box without a record is about to start.
            Some((Some(record), true)) if record.id == *id => Some(Listed::from(record)),
            _ => None,
        })
        .collect();
    rows.sort_by(|a, b| (&a.started, &a.id).cmp(&(&b.started, &b.id)));
    Ok(rows)
}

fn table(rows: &[Listed]) -> String {
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
