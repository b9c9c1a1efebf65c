//! The end of a box, as its keeper makes it.

use std::os::fd::AsFd;

use super::Keeper;
use crate::apply::census::census;
use crate::apply::gateway;
use crate::apply::lease::Shared;
use crate::apply::sweep::{self, close};
use crate::launch::linger::Remains;

impl Keeper<'_> {
    /// Undoes all that the end of a box must undo before netbox returns (promise L1): ports, rules, name, count; and the
    /// host's side of the gateway with its last box. Never stops at an error. What is left takes the kernel's time.
    pub(super) fn take_down(mut self, problems: &mut Vec<String>) -> Option<Remains> {
        let mut state = self.state.take()?;
        let (Some(mut host), Some(mut lease)) = (self.host.take(), self.lease.take()) else {
            if let Ok(locked) = state.lock() {
                locked.remove_if_idle();
            }
            return None;
        };
        let mut was_last = false;
        // Before the link: it keeps the network alive.
        problems.extend(self.record.iter().flat_map(|record| sweep::withdraw(record, &host)));
        match state.lock() {
            Ok(locked) => {
                if let (Some(gateway), Some(attachment)) = (&mut self.gateway, &self.attachment) {
                    let others = self.record.as_ref().map_or(&[][..], |record| &record.other_ports);
                    let ports = self.waiting.ports();
                    let (all, host_ports) = ([&ports[..], others], &self.start.request.host_ports);
                    problems.extend(close(&locked, &mut host, gateway, &lease, attachment, all, host_ports));
                }
                // After the maps: the port must not be somebody else's while a rule still leads to the box.
                drop(std::mem::take(&mut self.waiting));
                let networks = self.attachment.as_ref().map_or(&[][..], |attachment| &attachment.networks);
                problems.extend(lease.end(&locked, networks));
                let found = census(locked.slots());
                let own = self.gateway.as_ref().filter(|_| found.users == 0);
                if let Some(newest) = own.and_then(|own| gateway::newest(&locked, &own.record)) {
                    was_last = true;
                    problems.extend(gateway::take_down(&locked, &mut host, &found, &newest));
                }
                if let Some(nft) = host.open_nft() {
                    lease.announce(&locked, Shared::HostNft, nft.as_fd());
                }
            }
            Err(error) => problems.push(error.to_string()),
        }
        let all_undone = problems.is_empty();
        let (gateway, watch) = (self.gateway.take(), self.watch);
        let networks = self.attachment.take().map(|attachment| attachment.networks).unwrap_or_default();
        Some(Remains { host, state, lease, gateway, networks, watch, was_last, all_undone })
    }
}
