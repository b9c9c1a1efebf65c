//! The whole state of the host as text, to be compared before and after.
//!
//! Left out: counters, indexes and handles that the kernel deals out, and what may remain by promise
//! (netbox's empty state directories and its lock files).

mod conntrack;
mod files;
mod routing;

use std::fmt::Write;

use super::nftables;

pub(crate) use files::{processes, running};

/// Whether the line is of a set in which the host counts the connections of each box's address. The kernel takes an element out
/// some time after the last of its connections.
fn counts(line: &str) -> bool {
    line.contains("conns4") || line.contains("conns6")
}

/// The state of the namespaces that the calling thread is in. Equal states are equal text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    sections: Vec<(&'static str, Vec<String>)>,
}

impl Snapshot {
    pub(crate) fn take() -> Self {
        let mut sections = vec![
            ("link", routing::links()),
            ("address", routing::addresses()),
            ("route", routing::routes()),
            ("rule", routing::rules()),
            ("neighbour", routing::permanent_neighbours()),
            ("qdisc", routing::qdiscs()),
            ("nft", nftables::ruleset().into_iter().filter(|line| !counts(line)).collect()),
            ("conntrack", conntrack::of_the_pool()),
            ("sysctl", files::sysctls()),
            ("mount", files::mounts()),
            ("process", files::processes()),
            ("file", files::leftovers()),
        ];
        for (_, lines) in &mut sections {
            lines.sort_unstable();
        }
        Self { sections }
    }

    /// Nothing if equal; else a line for each thing gone (`-`) and each left behind (`+`).
    pub(crate) fn difference(&self, later: &Self) -> String {
        let mut text = String::new();
        for ((what, before), (_, after)) in self.sections.iter().zip(&later.sections) {
            for (sign, these, those) in [('-', before, after), ('+', after, before)] {
                let mut missing = those.clone();
                for line in these {
                    if let Some(at) = missing.iter().position(|other| other == line) {
                        missing.swap_remove(at);
                    } else {
                        let _ = writeln!(text, "{sign} {what}: {line}");
                    }
                }
            }
        }
        text
    }
}
