//! The published ports of a box that runs, changed by its keeper: `netbox port add` and `port rm`.
//!
//! The record first, so that whoever has to take the box down knows what there may be; then rules and connections; then the record
//! once more; all under the run lock. A keeper that is killed takes its box along, at whatever step. A port is held before a rule leads
//! to the box, and for as long as one does.

use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::Pid;

use crate::apply::census::census;
use crate::apply::lease::Shared;
use crate::apply::ports::PortChange;
use crate::apply::reserve::{self, Held};
use crate::error::{Context, Error, Result};
use crate::kernel::channel::MOST_DESCRIPTORS;
use crate::kernel::namespace;
use crate::kernel::sock_diag::TcpConnections;
use crate::plan::ports::{Fate, addition, removal};
use crate::plan::record::PortMap;
use crate::serve::relay::{ToRelay, name_for_relay};
use crate::spec::PortRequest;

use super::control::message::{Answer, Request};
use super::helper::Helper;
use super::living::Living;

impl Living<'_> {
    /// Does what another netbox command asks. `relay`: the box's, running or not.
    pub(super) fn answer_ports(&mut self, request: Request, relay: Option<&mut Helper<'_>>) -> Answer {
        let done = match request {
            Request::AddPorts(specs) => read(&specs).and_then(|specs| self.add(&addition(&specs)?, relay)),
            Request::RemovePorts(specs) => read(&specs).and_then(|specs| {
                let places = removal(&self.waiting.maps(), &specs)?;
                self.remove(&places, Fate::End, relay)
            }),
            _ => Err(Error::new("that is not about ports")),
        };
        done.map_or_else(Answer::Failed, Answer::Ports)
    }

    /// Publishes ports, all or none.
    ///
    /// # Errors
    /// A port that is taken; rules that cannot be changed. Everything is as before then.
    pub(super) fn add(
        &mut self,
        requests: &[PortRequest],
        relay: Option<&mut Helper<'_>>,
    ) -> Result<Vec<PortMap>> {
        if self.attachment.way_out().is_some_and(|member| member.internal) {
            return Err(Error::new(format!("cannot publish a port of box {}", self.record.name))
                .because(format!("its network, {}, is internal: nothing leads into it", self.record.net)));
        }
        let before = self.waiting.maps().len();
        let held = reserve::reserve_more(requests, before)?;
        let places: Vec<_> = (before..before + held.len()).collect();
        let added: Vec<_> = held.iter().flat_map(|held| held.maps.iter().copied()).collect();
        let relay = relay.filter(|relay| relay.is_running());
        let copies = if relay.is_some() { copies(&held)? } else { Vec::new() };
        self.waiting.add(held).context(|| "cannot watch the published ports")?;
        let new = [&self.record.ports[..], &added].concat();
        if let Err(error) = self.change(new, Fate::End) {
            // Where a rule may still lead to the box, the port stays held: nobody else must have it.
            if self.record.other_ports.is_empty() {
                drop(self.waiting.remove(&places));
            }
            return Err(error);
        }
        if let Some(relay) = relay {
            for some in copies.chunks(MOST_DESCRIPTORS) {
                let (names, sockets): (Vec<_>, Vec<_>) =
                    some.iter().map(|(name, socket)| (*name, socket.as_fd())).unzip();
                relay.tell(&ToRelay::Add(names), &sockets);
            }
        }
        Ok(added)
    }

    /// Gives up the ports that have one of these among what they are published as. Their connections go on.
    ///
    /// # Errors
    /// When rules cannot be changed. Everything is as before then.
    pub(super) fn give_up(
        &mut self,
        maps: &[PortMap],
        relay: Option<&mut Helper<'_>>,
    ) -> Result<Vec<PortMap>> {
        let all = self.waiting.maps().into_iter().enumerate();
        let places = all.filter(|(_, own)| own.iter().any(|map| maps.contains(map)));
        let places: Vec<_> = places.map(|(place, _)| place).collect();
        self.remove(&places, Fate::GoOn, relay)
    }

    fn remove(
        &mut self,
        places: &[usize],
        fate: Fate,
        relay: Option<&mut Helper<'_>>,
    ) -> Result<Vec<PortMap>> {
        let maps = self.waiting.maps();
        let removed: Vec<_> = places.iter().filter_map(|place| maps.get(*place)).flatten().copied().collect();
        let new = self.record.ports.iter().filter(|port| !removed.contains(port)).copied().collect();
        self.change(new, fate)?;
        let held = self.waiting.remove(places);
        if let Some(relay) = relay {
            relay.tell(&ToRelay::Remove(held.iter().filter_map(name_for_relay).collect(), fate), &[]);
            // Free for others when this has answered: the relay has the sockets too.
            relay.await_answer();
        }
        drop(held);
        Ok(removed)
    }

    /// Makes the rules and the record those of `new`. After a failure they are as before, or the record names what may be left in the
    /// rules.
    fn change(&mut self, new: Vec<PortMap>, fate: Fate) -> Result<()> {
        let locked = self.state.lock()?;
        let host = self.host.nft(&locked, &census(locked.slots()))?;
        self.lease.announce(&locked, Shared::HostNft, host.as_fd());
        if !self.record.other_ports.is_empty() {
            return Err(Error::new("cannot change the ports of the box")
                .because("an earlier change failed, and could not be undone"));
        }
        let old = self.record.ports.clone();
        self.record.other_ports.clone_from(&new);
        self.lease.write(self.record).inspect_err(|_| self.record.other_ports.clear())?;
        let change = PortChange { attachment: self.attachment, old: &old, new: &new, fate };
        let inside = || connections_of(self.first.process.pid);
        let changed = change.carry_out(&locked, host, &mut self.gateway.nft, inside);
        let changed = changed.map_err(|failure| (failure.error, failure.undone));
        let changed = changed.and_then(|()| {
            self.record.ports = new.clone();
            self.record.other_ports.clear();
            self.lease.write(self.record).map_err(|error| {
                let back = PortChange { old: &new, new: &old, ..change };
                (error, back.carry_out(&locked, host, &mut self.gateway.nft, inside).is_ok())
            })
        });
        changed.map_err(|(error, undone)| {
            self.record.ports.clone_from(&old);
            self.record.other_ports = if undone { Vec::new() } else { new.clone() };
            // Where this cannot be written, what was written before names both.
            let _ = self.lease.write(self.record);
            error
        })
    }
}

/// The TCP connections of the network namespace of a box's first process.
fn connections_of(first: Pid) -> Result<TcpConnections> {
    let cannot = || "cannot look at the connections of the box";
    let network = namespace::network_of(first.as_raw()).context(cannot)?;
    let home = namespace::own_network().context(cannot)?;
    namespace::inside(network.as_fd(), home.as_fd(), TcpConnections::open).context(cannot)?.context(cannot)
}

/// Ports to be published or given up, as they were typed.
fn read<T: std::str::FromStr<Err = Error>>(specs: &[String]) -> Result<Vec<T>> {
    specs.iter().map(|spec| spec.parse()).collect()
}

/// For the relay: what it calls them, and sockets of its own.
fn copies(held: &[Held]) -> Result<Vec<(PortMap, OwnedFd)>> {
    let copies = held.iter().filter_map(|held| {
        let name = name_for_relay(held)?;
        Some(held.socket.try_clone().map(|socket| (name, socket)))
    });
    copies.collect::<std::io::Result<_>>().context(|| "cannot keep the published ports")
}
