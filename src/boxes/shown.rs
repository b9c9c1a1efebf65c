//! What is shown of texts that are anybody's: command lines.

use std::fmt::Write;

use serde::Serialize;

use crate::error::{Error, Result};

/// A text on one line, in which what would drive a terminal is shown, not sent.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if drives_a_terminal(c) { '\u{fffd}' } else { c }).collect()
}

/// Control characters, and those by which text that follows is shown in another order or on another line (Unicode, UAX #9).
fn drives_a_terminal(c: char) -> bool {
    let orders =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || orders
}

/// A table, two spaces between its columns.
#[must_use]
pub fn columns<Line: AsRef<[String]>>(lines: &[Line]) -> String {
    let mut widths = Vec::new();
    for line in lines {
        let line = line.as_ref();
        widths.resize(line.len().max(widths.len()), 0);
        widths.iter_mut().zip(line).for_each(|(width, cell)| *width = cell.chars().count().max(*width));
    }
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (cell, width) in line.as_ref().iter().zip(&widths) {
            row.push_str(cell);
            // Not by a width of format!, which ends at 65535: a command line may be longer.
            row.extend(std::iter::repeat_n(' ', 2 + width - cell.chars().count()));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// A value as JSON for people and programs, with its last line's end.
///
/// # Errors
/// None for netbox's own types.
pub fn pretty(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map(|text| harmless(&text) + "\n").map_err(failure)
}

/// The same on one line.
///
/// # Errors
/// As [`pretty`].
pub fn on_a_line(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map(|text| harmless(&text) + "\n").map_err(failure)
}

fn failure(error: serde_json::Error) -> Error {
    Error::new("cannot write JSON").because(error)
}

/// JSON escapes the control characters of ASCII alone, but for DEL (RFC 8259, section 7): terminals know others, U+009B among
/// them. All of them are in strings.
#[must_use]
pub fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if drives_a_terminal(c) && c != '\n' {
            // Writing to a String cannot fail; none of these is beyond U+FFFF.
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_room_for_every_command_line() {
        let long = "x".repeat(70_000);
        let lines = [["a", "b"], [long.as_str(), "c"]].map(|line| line.map(str::to_owned));
        let table = columns(&lines);
        assert_eq!(table, format!("a{}b\n{long}  c\n", " ".repeat(70_001)));
    }

    #[test]
    fn a_command_cannot_drive_the_terminal_of_whoever_lists_it() {
        assert_eq!(printable("a\x1b[2Jb\n\u{9b}"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}");
        assert_eq!(printable("rm \u{202e}dmc"), "rm \u{fffd}dmc");
        assert_eq!(on_a_line(&"\u{202e}").unwrap(), "\"\\u202e\"\n");
        for json in
            [pretty(&["a\x1b[2J\u{9b}\x7f\nö"]).unwrap(), on_a_line(&["a\x1b[2J\u{9b}\x7f\nö"]).unwrap()]
        {
            assert!(!json.trim_end().chars().any(|c| c.is_control() && c != '\n'), "{json:?}");
            let read: Vec<String> = serde_json::from_str(&json).unwrap();
            assert_eq!(read, ["a\x1b[2J\u{9b}\x7f\nö"]);
        }
    }
}
