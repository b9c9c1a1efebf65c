//! The one place that writes to standard output and standard error.

use std::io::Write;

use crate::error::{Error, Result};
use crate::plan::output::Stream;

/// How much a user wants to be told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    quiet: bool,
    verbose: bool,
}

impl Report {
    /// From `--quiet` and `--verbose`.
    #[must_use]
    pub const fn new(quiet: bool, verbose: bool) -> Self {
        Self { quiet, verbose }
    }

    /// Whether [`Report::detail`] writes anything.
    #[must_use]
    pub const fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Whether [`Report::warning`] writes nothing.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A failure. Always told.
    pub fn error(&self, error: &Error) {
        let hint = error.remedy().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        to_stderr(&format!("netbox: {error}\n{hint}"));
    }

    /// What the output that follows is about. Always told.
    pub fn note(&self, line: &str) {
        to_stderr(&format!("netbox: {line}\n"));
    }

    /// Something that could not be undone. Always told.
    pub fn problem(&self, problem: &str) {
        to_stderr(&format!("netbox: {problem}\n"));
    }

    /// Something to know, unless `--quiet`.
    pub fn warning(&self, line: &str) {
        if !self.quiet {
            to_stderr(&format!("netbox: warning: {line}\n"));
        }
    }

    /// A decision and the facts behind it, with `--verbose`.
    pub fn detail(&self, line: &str) {
        if self.verbose {
            to_stderr(&format!("netbox: {line}\n"));
        }
    }
}

/// Writes what a command was asked for to standard output. `false`: it could not be written, whole.
#[must_use]
pub fn output(text: &str) -> bool {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_ok()
}

/// Passes on what another program printed, to the same stream of this one's.
///
/// # Errors
/// Those of write(2).
pub fn pass_on(stream: Stream, bytes: &[u8]) -> std::io::Result<()> {
    match stream {
        Stream::Stdout => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        }
        Stream::Stderr => std::io::stderr().write_all(bytes),
    }
}

/// The same for a command that goes on: `false` when nobody reads any more (EPIPE), which is a reason to end and none to complain.
///
/// # Errors
/// When it cannot be written for another reason.
pub fn stream(text: &str) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::new("cannot write to standard output").os(&error)),
    }
}

/// In one write, so that lines of several programs do not mix. A closed standard error is nobody's to tell.
pub fn to_stderr(text: &str) {
    let _ = std::io::stderr().write_all(harmless(text).as_bytes());
}

/// Names and arguments are anybody's: what of them would drive a terminal is shown, not sent.
fn harmless(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_cannot_drive_a_terminal() {
        let told = harmless("netbox: cannot run \u{1b}[31m\r\u{9b}é: command not found\nhint: none\n");
        assert_eq!(told, "netbox: cannot run \u{fffd}[31m\u{fffd}\u{fffd}é: command not found\nhint: none\n");
    }
}
