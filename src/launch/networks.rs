//! The networks of a box that runs, changed by its keeper: `netbox network connect` and `disconnect`.
//!
//! The record first, so that whoever has to take the box down knows what there may be; it names the network before the box has a seat
//! there, and the seat before anything else. What takes the box out of a network is the same whether somebody asked for it or a step on
//! its way in failed, and can be done again. A keeper that is killed takes its box along, at whatever step.

use std::os::fd::AsFd;

use crate::apply::lease::Lease;
use crate::apply::names::MemberNames;
use crate::apply::networks::{self, Kept};
use crate::apply::{attach, bridge, connections, seats, wiring};
use crate::error::{Context, Error, Result};
use crate::kernel::namespace;
use crate::kernel::route::{Route, link};
use crate::plan::network::Member;
use crate::plan::network6;
use crate::plan::record::{Attachment, BoxRecord};
use crate::plan::settings;
use crate::plan::topology::{ETH, MOST_LINKS, Topology, box_link, eth_index};
use crate::plan::wiring::{BoxLink, of_link, to_member};
use crate::serve::resolver::ToResolver;
use crate::spec::network::{Join, NetworkName};

use super::control::message::Answer;
use super::helper::Helper;
use super::living::Living;

impl Living<'_> {
    /// Does what another netbox command asks. `resolver`: the box's, running or not.
    pub(super) fn answer_connect(&mut self, network: &str, resolver: Option<&mut Helper<'_>>) -> Answer {
        let done = network.parse().and_then(|join| self.connect(&join, resolver));
        done.map_or_else(Answer::Failed, |()| Answer::Done)
    }

    /// The same.
    pub(super) fn answer_disconnect(&mut self, name: &str, resolver: Option<&mut Helper<'_>>) -> Answer {
        let done = NetworkName::parse(name).and_then(|name| self.disconnect(&name, resolver));
        done.map_or_else(Answer::Failed, |()| Answer::Done)
    }

    /// Takes the box into a further network.
    ///
    /// # Errors
    /// When it is in it already, has too many links, or cannot have what was asked for. Everything is as before then, or the record
    /// names what is left.
    fn connect(&mut self, join: &Join, resolver: Option<&mut Helper<'_>>) -> Result<()> {
        // Before the run lock, as who removes a network takes them.
        let kept = networks::keep(&join.name)?;
        let (link, interface) = self.free_link(&kept, join)?;
        let join = Join { interface: Some(interface), ..join.clone() };
        if let Err(error) = self.sit_down(&kept, &join, link).and_then(|()| self.wire(link)) {
            // What cannot be undone stays written down, and goes with the box.
            let _ = self.part(link);
            return Err(error);
        }
        self.tell(resolver);
        Ok(())
    }

    /// Takes the box out of a network again.
    ///
    /// # Errors
    /// When it is not in it, or has its way out there; when something cannot be undone: it can be tried again.
    fn disconnect(&mut self, name: &NetworkName, resolver: Option<&mut Helper<'_>>) -> Result<()> {
        let cannot = || Error::new(format!("cannot disconnect box {} from network {name}", self.record.name));
        let member = self.attachment.networks.iter().find(|member| member.name == *name);
        let Some(member) = member else {
            return Err(cannot()
                .because(format!("it is not in it, but in {}", self.record.net))
                .hint("`netbox network inspect` lists the boxes of a network"));
        };
        if member.link == 0 {
            return Err(cannot()
                .because("its way out leads through that network, and its ports are published there")
                .hint("start it with another network first: netbox run --net OTHER --net …"));
        }
        let link = member.link;
        // Nobody is to be sent there any more, nor told of it.
        self.members.borrow_mut().retain(|members| members.network != name.as_str());
        self.tell_list(resolver);
        self.part(link)
    }

    /// The lowest number that none of its links has, and what its interface is to be called.
    fn free_link(&self, kept: &Kept, join: &Join) -> Result<(u32, String)> {
        let name = &join.name;
        let cannot = || Error::new(format!("cannot connect box {} to network {name}", self.record.name));
        let networks = &self.attachment.networks;
        if networks.iter().any(|member| member.network == kept.network.id) {
            return Err(cannot().because("it is in it already"));
        }
        if self.record.joining.is_some() {
            return Err(cannot().because("an earlier change failed, and could not be undone"));
        }
        let link = (1..MOST_LINKS).find(|link| networks.iter().all(|member| member.link != *link));
        let link =
            link.ok_or_else(|| cannot().because(format!("a box is in {MOST_LINKS} networks at most")))?;
        let own = self.attachment.way_out().map_or(ETH, |member| member.interface.as_str());
        let taken: Vec<_> = networks.iter().map(|member| member.interface.as_str()).chain([own]).collect();
        match join.free_interface(&taken) {
            Ok(interface) => Ok((link, interface)),
            Err(interface) => Err(cannot()
                .because(format!("it has an interface {interface} already"))
                .hint("--ifname chooses another name")),
        }
    }

    /// A seat in the network, at a bridge that is there then; all of it written down.
    fn sit_down(&mut self, Kept { network, .. }: &Kept, join: &Join, link: u32) -> Result<()> {
        let locked = self.state.lock()?;
        bridge::look_again(&locked, self.gateway)?;
        let topology = self.gateway.record.topology;
        let ipv6 = network6::is_had(network, &topology, join.ip6, self.no_ipv6)?;
        let bridge = bridge::join_or_make(&locked, self.host, self.gateway, network)?;
        self.record.joining = Some(network.id);
        self.lease.write(self.record).inspect_err(|_| self.record.joining = None)?;
        let own = (self.lease.id, self.lease.slot, self.lease.name.as_ref());
        let seat = match seats::take(&locked, network, (link, join, ipv6), own) {
            Ok(seat) => seat,
            Err(error) => {
                // It has given back what it took.
                self.record.joining = None;
                // Where this cannot be written, what is written names a network where the box has no seat.
                let _ = self.lease.write(self.record);
                return Err(error);
            }
        };
        self.attachment.networks.push(Member::new(network, &seat, join, bridge, topology.mtu));
        write_down(self.lease, self.attachment, self.record)
    }

    /// The link, and what lets in what comes by it: rules first, then the gateway's end, then the box's.
    fn wire(&mut self, link: u32) -> Result<()> {
        let Some(member) = self.member(link) else { return Ok(()) };
        let (id, slot) = (self.lease.id.as_str(), self.attachment.slot);
        {
            let locked = self.state.lock()?;
            attach::let_in(&locked, self.gateway, id, self.attachment)?;
        }
        let network = self.first.network()?;
        let topology = self.attachment.topology;
        let (pair, wires) = to_member(id, slot, &member, &topology);
        let requests = wiring::link(&pair, &wires, network.as_fd());
        wiring::pipeline(&mut self.gateway.route, &requests, "the gateway")?;
        let is_second = self.attachment.links().count() == 2;
        let prepare = || -> Result<Route> {
            if is_second {
                wiring::set(&settings::of_several_links(), "in the box")?;
            }
            if member.ipv6.is_some() {
                // The box may have inherited that it is off.
                wiring::set(&[settings::ipv6_of_link(&member.interface)], "in the box")?;
            }
            Route::open().context(|| "cannot open netlink in the box")
        };
        let mut inside = namespace::inside(network.as_fd(), self.host.network().as_fd(), prepare)
            .context(|| "cannot enter the box's network namespace")??;
        let wires = of_link(&BoxLink::into_network(&member, &topology));
        let mut requests = wiring::requests(&wires, eth_index(link));
        requests.push(link::settle(eth_index(link)));
        wiring::pipeline(&mut inside, &requests, "the box")?;
        let settle = [link::settle(Topology::link_index(slot, link))];
        wiring::pipeline(&mut self.gateway.route, &settle, "the gateway")
    }

    /// Takes away all that the box has in the network that this link leads to. What is gone is as it should be.
    fn part(&mut self, link: u32) -> Result<()> {
        let Some(member) = self.member(link) else { return Ok(()) };
        let (id, seat) = (self.lease.id, member.seat());
        let name = box_link(id.as_str(), link);
        {
            let locked = self.state.lock()?;
            problem(seats::forget_names(&locked, &seat, id.as_str()))?;
            attach::let_out(&locked, self.gateway, id.as_str(), self.attachment, &member)?;
            let down = attach::shut_link(self.gateway, &name);
            down.context(|| format!("cannot take down the link {name} in the gateway"))?;
            attach::leave(&locked, self.gateway, &member)
                .context(|| "cannot remove the box's neighbour entry in the gateway")?;
            connections::forget_member(&locked, self.host, self.gateway, &member)?;
        }
        // Waits for RCU: not under the lock. Nothing passes the link any more.
        let removed = self.gateway.route.remove_link(&name);
        removed.context(|| format!("cannot remove the link {name} in the gateway"))?;
        let locked = self.state.lock()?;
        // After the link, so that the next with that address has no other beside it.
        problem(seats::give_back(&locked, &seat, id.as_str()))?;
        self.attachment.networks.retain(|member| member.link != link);
        write_down(self.lease, self.attachment, self.record)
    }

    fn member(&self, link: u32) -> Option<Member> {
        self.attachment.networks.iter().find(|member| member.link == link).cloned()
    }

    /// Has the box's resolver know of the network that the box has just joined.
    fn tell(&mut self, resolver: Option<&mut Helper<'_>>) {
        let known: Vec<_> = self.members.borrow().iter().map(|members| members.network.clone()).collect();
        let mut all = self.members.borrow_mut();
        for member in &self.attachment.networks {
            if !known.iter().any(|name| *name == member.name.as_str()) {
                // Without it, names of that network do not resolve; the box is in it all the same.
                all.extend(MemberNames::open(self.state, member).ok());
            }
        }
        drop(all);
        self.tell_list(resolver);
    }

    fn tell_list(&self, resolver: Option<&mut Helper<'_>>) {
        let Some(resolver) = resolver else { return };
        let all = self.members.borrow();
        let networks = all.iter().map(|members| (members.network.clone(), members.subnets.clone())).collect();
        let directories: Vec<_> = all.iter().map(|members| members.directory.as_fd()).collect();
        resolver.tell_or_end(&ToResolver::Networks(networks), &directories);
    }
}

/// The networks as they are, in the record.
fn write_down(lease: &Lease, attachment: &Attachment, record: &mut BoxRecord) -> Result<()> {
    record.attachment = Some(attachment.clone());
    record.net = attachment.net();
    record.joining = None;
    lease.write(record)
}

/// The first of them.
fn problem(problems: Vec<String>) -> Result<()> {
    problems.into_iter().next().map_or(Ok(()), |problem| Err(Error::new(problem)))
}
