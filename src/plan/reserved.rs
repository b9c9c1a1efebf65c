//! Ports that the administrator keeps from being chosen (`net.ipv4.ip_local_reserved_ports`).

use crate::spec::port::PortRange;

/// A set of ports. They may be asked for by name; netbox does not choose them by itself, nor does the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReservedPorts(Vec<PortRange>);

impl ReservedPorts {
    /// Reads the setting's text: `8080,9148,30000-30100` (Documentation/networking/ip-sysctl.rst). The kernel wrote it;
    /// what is not understood is no port.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let port = |text: &str| text.trim().parse::<u16>().ok();
        let range = |item: &str| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            PortRange::new(port(first)?, port(last)?)
        };
        Self(text.split(',').filter_map(range).collect())
    }

    /// Whether the port is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.first() <= port && port <= range.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ports_and_ranges_are_reserved_and_nothing_else() {
        let reserved = ReservedPorts::parse("8080,9148,30000-30002\n");
        for (port, expected) in [
            (8080, true),
            (8081, false),
            (9148, true),
            (29999, false),
            (30000, true),
            (30002, true),
            (30003, false),
        ] {
            assert_eq!(reserved.contains(port), expected, "{port}");
        }
        for nothing in ["", "\n", "x", "1-", "5-4", "70000"] {
            assert_eq!(ReservedPorts::parse(nothing), ReservedPorts::default(), "{nothing:?}");
        }
    }
}
