//! What a detached box printed, as its log has it: entries one after the other, each a piece of one stream.
//!
//! ```text
//! stdout 2026-11-21T16:03:22.692123456Z 6
//! hello
//!
//! ```
//! The number is that of the bytes that follow the line; one more line end follows these. So the bytes stay what they are.

use std::time::SystemTime;

/// The longest first line of an entry, its end included.
pub const LONGEST_HEADER: usize = 64;

/// The most bytes that an entry has.
pub const LONGEST_PIECE: usize = 32 << 10;

/// Of which stream a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout = 0,
    /// Standard error, and what netbox itself has to say.
    Stderr = 1,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Of which stream.
    pub stream: Stream,
    /// When it was read, as in RFC 3339.
    pub time: String,
    /// What it is.
    pub bytes: Vec<u8>,
}

/// What a log begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An entry, which takes so many bytes.
    Entry(Entry, usize),
    /// The beginning of one, which takes so many bytes at least.
    Incomplete(usize),
    /// Nothing that netbox wrote.
    Damaged,
}

/// An entry as bytes, into `out`.
pub fn write(out: &mut Vec<u8>, stream: Stream, time: SystemTime, bytes: &[u8]) {
    let time = humantime::format_rfc3339_nanos(time);
    out.extend_from_slice(format!("{} {time} {}\n", stream.name(), bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.push(b'\n');
}

/// Reads the first entry.
#[must_use]
pub fn parse(text: &[u8]) -> Parsed {
    let head = text.get(..LONGEST_HEADER).unwrap_or(text);
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
        return if head.len() < LONGEST_HEADER {
            Parsed::Incomplete(LONGEST_HEADER)
        } else {
            Parsed::Damaged
        };
    };
    let Some((stream, time, length)) = head.get(..end).and_then(header) else { return Parsed::Damaged };
    let whole = end + 1 + length + 1;
    match text.get(end + 1..whole) {
        None => Parsed::Incomplete(whole),
        Some([bytes @ .., b'\n']) => {
            Parsed::Entry(Entry { stream, time: time.to_owned(), bytes: bytes.to_vec() }, whole)
        }
        Some(_) => Parsed::Damaged,
    }
}

fn header(line: &[u8]) -> Option<(Stream, &str, usize)> {
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let stream = words.next().and_then(Stream::named)?;
    let time = words.next().filter(|time| humantime::parse_rfc3339(time).is_ok())?;
    let length = words.next()?.parse().ok().filter(|length| *length <= LONGEST_PIECE)?;
    words.next().is_none().then_some((stream, time, length))
}

impl Stream {
    const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Stdout, Self::Stderr].into_iter().find(|stream| stream.name() == name)
    }
}

/// Which pieces of the entries are the last so many lines of both streams together. Of an entry: from which byte on; its length
/// where nothing of it is.
#[must_use]
pub fn tail(entries: &[Entry], lines: usize) -> Vec<usize> {
    let mut begun = [false; 2];
    // Where lines begin: the entry, and the place in it.
    let mut starts = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let Some(begun) = begun.get_mut(entry.stream as usize) else { continue };
        for (place, byte) in entry.bytes.iter().enumerate() {
            if !*begun {
                starts.push((index, place));
            }
            *begun = *byte != b'\n';
        }
    }
    let wanted = starts.get(starts.len().saturating_sub(lines)..).unwrap_or_default();
    let first = |stream: Stream| {
        wanted
            .iter()
            .copied()
            .find(|(index, _)| entries.get(*index).is_some_and(|entry| entry.stream == stream))
    };
    let first = [first(Stream::Stdout), first(Stream::Stderr)];
    let from = |(index, entry): (usize, &Entry)| match first.get(entry.stream as usize).copied().flatten() {
        Some((begin, place)) if begin == index => place,
        Some((begin, _)) if begin < index => 0,
        _ => entry.bytes.len(),
    };
    entries.iter().enumerate().map(from).collect()
}

/// Puts the time of each line before it.
#[derive(Debug, Default)]
pub struct Timestamps {
    /// For each stream, whether a line has begun and not ended.
    begun: [bool; 2],
}

impl Timestamps {
    /// A piece of `entry` with the times.
    #[must_use]
    pub fn stamped(&mut self, entry: &Entry, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + entry.time.len() + 1);
        let Some(begun) = self.begun.get_mut(entry.stream as usize) else { return out };
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !*begun {
                out.extend_from_slice(entry.time.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(line);
            *begun = !line.ends_with(b"\n");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-21T16:03:22.692123456Z";

    fn entry(stream: Stream, bytes: &[u8]) -> Entry {
        Entry { stream, time: TIME.to_owned(), bytes: bytes.to_vec() }
    }

    fn written(entry: &Entry) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, entry.stream, humantime::parse_rfc3339(&entry.time).unwrap(), &entry.bytes);
        out
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_its_beginnings_are_incomplete() {
        for bytes in [&b"hello\n"[..], b"", b"\xff\0\n\nstdout 1", &[b'x'; LONGEST_PIECE]] {
            let entry = entry(Stream::Stderr, bytes);
            let text = written(&entry);
            assert_eq!(parse(&text), Parsed::Entry(entry.clone(), text.len()));
            assert_eq!(parse(&[&text[..], b"more"].concat()), Parsed::Entry(entry, text.len()));
            for length in [0, 1, 20, 40, text.len() - 1] {
                let Parsed::Incomplete(needed) = parse(&text[..length]) else { panic!("{length}") };
                assert!(needed > length && needed <= text.len().max(LONGEST_HEADER));
            }
        }
    }

    #[test]
    fn what_is_no_entry_is_damaged() {
        let good = "stdout 2026-11-21T16:03:22Z 2\nab\n";
        assert!(matches!(parse(good.as_bytes()), Parsed::Entry(..)));
        for (one, other) in [
            ("stdout", "stdxxx"),
            ("2026-11-21T16:03:22Z", "yesterday"),
            (" 2\n", " -2\n"),
            (" 2\n", " 99999999\n"),
            (" 2\n", " 2 2\n"),
            ("ab\n", "abc\n"),
            ("stdout", &"s".repeat(LONGEST_HEADER)),
        ] {
            assert_eq!(parse(good.replacen(one, other, 1).as_bytes()), Parsed::Damaged, "{other}");
        }
    }

    #[test]
    fn the_last_lines_are_those_that_began_last_in_either_stream() {
        use Stream::{Stderr, Stdout};
        let entries = [
            entry(Stdout, b"one\ntw"),
            entry(Stderr, b"oops\n"),
            entry(Stdout, b"o\nthree\n"),
            entry(Stderr, b"end"),
        ];
        let shown = |lines| -> Vec<String> {
            let from = tail(&entries, lines);
            let pieces = entries.iter().zip(from).map(|(entry, from)| &entry.bytes[from..]);
            pieces.map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
        };
        assert_eq!(shown(0), ["", "", "", ""]);
        assert_eq!(shown(1), ["", "", "", "end"]);
        assert_eq!(shown(2), ["", "", "three\n", "end"]);
        assert_eq!(shown(3), ["", "oops\n", "three\n", "end"]);
        assert_eq!(shown(4), ["tw", "oops\n", "o\nthree\n", "end"]);
        assert_eq!(shown(99), ["one\ntw", "oops\n", "o\nthree\n", "end"]);
    }

    #[test]
    fn every_line_has_the_time_of_its_beginning() {
        let mut stamps = Timestamps::default();
        let mut of = |stream, bytes: &[u8]| {
            String::from_utf8(stamps.stamped(&entry(stream, bytes), bytes)).unwrap().replace(TIME, "T")
        };
        assert_eq!(of(Stream::Stdout, b"a\n\nb"), "T a\nT \nT b");
        assert_eq!(of(Stream::Stderr, b"c\n"), "T c\n");
        assert_eq!(of(Stream::Stdout, b"d\ne"), "d\nT e");
    }
}
