//! Signals as they are typed: `netbox kill -s`.

use std::fmt;

use crate::error::{Error, Result};

/// Those of signal(7) that have a name, in the order of their numbers, which are the same on every processor that netbox is for.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names for some of them.
const SYNONYMS: [(&str, i32); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];

/// The real-time signals that C libraries leave to programs (signal(7)): glibc keeps two of the kernel's for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A signal, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalNumber(i32);

impl SignalNumber {
    /// SIGKILL.
    pub const KILL: Self = Self(9);
    /// SIGTERM.
    pub const TERM: Self = Self(15);
    /// SIGCONT.
    pub const CONT: Self = Self(18);

    /// Reads a name, with or without `SIG`, in upper or lower case, a number, or `RTMIN+N` and `RTMAX-N`.
    ///
    /// # Errors
    /// When there is no such signal.
    pub fn parse(text: &str) -> Result<Self> {
        number(text).map(Self).ok_or_else(|| {
            Error::usage(format!("invalid signal {text:?}"))
                .hint("a name or a number of signal(7): TERM, SIGHUP, 9, RTMIN+3")
        })
    }

    /// Its number.
    #[must_use]
    pub const fn as_raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for SignalNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.0 - 1).ok().and_then(|place| NAMES.get(place)) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "signal {}", self.0),
        }
    }
}

fn number(text: &str) -> Option<i32> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=RTMAX).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| -> Option<i32> {
        let digits = rest.strip_prefix(sign)?;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(RTMIN),
        (_, Some("")) => Some(RTMAX),
        (Some(rest), _) => offset(rest, '+').and_then(|more| RTMIN.checked_add(more)),
        (_, Some(rest)) => offset(rest, '-').and_then(|less| RTMAX.checked_sub(less)),
        (None, None) => None,
    };
    let place = NAMES.iter().position(|known| *known == name).and_then(|place| i32::try_from(place + 1).ok());
    let synonym = SYNONYMS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    real_time.filter(|number| (RTMIN..=RTMAX).contains(number)).or(place).or(synonym)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("hup", 1),
            ("SYS", 31),
            ("CLD", 17),
            ("9", 9),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmin+30", 64),
            ("RTMAX", 64),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(SignalNumber::parse(text).unwrap().as_raw(), number, "{text}");
        }
        let wrong = [
            "",
            "0",
            "65",
            "-1",
            "+9",
            "SIG",
            "KILLED",
            "SIG9",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN+",
            "9.0",
            "99999999999",
        ];
        for text in wrong {
            let error = SignalNumber::parse(text).unwrap_err();
            assert_eq!(error.exit_status(), 2, "{text}");
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
        assert_eq!(SignalNumber::TERM.to_string(), "SIGTERM");
        assert_eq!(SignalNumber::parse("RTMIN").unwrap().to_string(), "signal 34");
    }

    #[test]
    fn the_constants_are_those_of_the_c_library() {
        let pairs = [
            (SignalNumber::KILL, libc::SIGKILL),
            (SignalNumber::TERM, libc::SIGTERM),
            (SignalNumber::CONT, libc::SIGCONT),
            (SignalNumber::parse("IO").unwrap(), libc::SIGIO),
            (SignalNumber::parse("SYS").unwrap(), libc::SIGSYS),
            (SignalNumber::parse("USR2").unwrap(), libc::SIGUSR2),
        ];
        assert!(pairs.iter().all(|(own, libc)| own.as_raw() == *libc), "{pairs:?}");
    }
}
