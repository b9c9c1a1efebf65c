//! The host's side of a living gateway, put right when somebody else changed the host.
//!
//! Looks at what there is, and does only what is missing: its own changes do not call for another look. It keeps the order
//! of making a gateway (restrictions before forwarding) and can be killed at any point: what is to be undone is written
//! down before it is done, and whoever is next looks at everything.

use std::io;

use crate::error::{Context, Error, Result};
use crate::host::observe;
use crate::kernel::nft::{Batch, Nft};
use crate::kernel::route::{Route, link};
use crate::plan::changes::{Concern, View};
use crate::plan::facts::Facts;
use crate::plan::record::{Attachment, BoxRecord, GatewayRecord, PortMap};
use crate::plan::ruleset::{self, Element, Family};
use crate::plan::topology::{CLOSED_TABLE, HOST_MAC, OUT, TABLE, Topology};
use crate::plan::upkeep::{Upkeep, upkeep};
use crate::plan::{self, routing, settings};

use super::attach::host_elements;
use super::census::Census;
use super::gateway::{self, Gateway};
use super::host::Host;
use super::state::Locked;
use super::{publish, registry, routed, wiring};

/// How it went.
#[derive(Debug)]
pub struct Healed {
    /// The host as it was seen.
    pub view: View,
    /// Where netbox followed the host, in words for people.
    pub followed: Vec<String>,
    /// What somebody had taken away and netbox put back.
    pub repaired: Vec<String>,
    /// What could not be.
    pub problems: Vec<Error>,
}

/// Looks at the host and puts right what is netbox's there. `before`: how it was seen last. `None`: there is no gateway
/// any more.
///
/// # Errors
/// When the host cannot be looked at, or the gateway not be entered.
pub fn heal(
    locked: &Locked<'_>,
    host: &mut Host,
    census: &Census,
    before: Option<&View>,
    concern: Concern,
) -> Result<Option<Healed>> {
    let Some(record) = gateway::record(locked) else { return Ok(None) };
    let Some(gateway) = gateway::join(&record, host, census)? else { return Ok(None) };
    let facts = observe()?;
    let todo = upkeep(&facts, &record, before);
    let view = View::of(&facts, &record.topology);
    let mut site = Site { locked, host, census, gateway, record, followed: Vec::new(), repaired: Vec::new() };
    let mut problems = Vec::new();
    let closed = site.fence(&facts, &todo, concern);
    if closed.is_ok() {
        // Only now: what forwards without the fence would forward for anybody.
        problems.extend(site.forward(&todo).err());
        problems.extend(site.let_go(&todo).err());
    }
    problems.extend(closed.err());
    problems.extend(site.host_addresses(todo).err());
    Ok(Some(Healed { view, followed: site.followed, repaired: site.repaired, problems }))
}

/// Maps the ports of a box, and the address that it sends with, which its record tells already, also where somebody has just removed netbox's rules.
///
/// # Errors
/// A table of that name that is somebody else's; those of nf_tables.
pub fn map_ports(
    locked: &Locked<'_>,
    nft: &mut Nft,
    attachment: &Attachment,
    ports: &[PortMap],
) -> Result<()> {
    let Err(error) = publish::map(locked, nft, attachment, ports) else { return Ok(()) };
    match gateway::record(locked).filter(|_| error.errno() == Some(libc::ENOENT)) {
        Some(record) => install(locked, nft, &record),
        None => Err(error),
    }
}

/// Changes what the host's maps have of a box in one transaction, also where somebody has just removed netbox's rules: what the
/// box's record tells is then put back first.
///
/// # Errors
/// As [`map_ports`].
pub fn change_ports(locked: &Locked<'_>, nft: &mut Nft, gone: &[Element], come: &[Element]) -> Result<()> {
    let Err(error) = publish::change(locked, nft, gone, come) else { return Ok(()) };
    match gateway::record(locked).filter(|_| error.errno() == libc::ENOENT) {
        Some(record) => {
            install(locked, nft, &record)?;
            Ok(publish::change(locked, nft, gone, come)?)
        }
        None => Err(error.into()),
    }
}

/// Puts elements in that the gateway's record tells already, also where somebody has just removed netbox's rules.
///
/// # Errors
/// As [`map_ports`].
pub(super) fn put(locked: &Locked<'_>, nft: &mut Nft, elements: &[Element]) -> Result<()> {
    let mut batch = Batch::new();
    for element in elements {
        batch.put_element(Family::Inet, TABLE, element);
    }
    let Err(error) = nft.commit(batch) else { return Ok(()) };
    match gateway::record(locked).filter(|_| error.errno() == libc::ENOENT) {
        Some(record) => install(locked, nft, &record),
        None => Err(error.into()),
    }
}

fn install(locked: &Locked<'_>, nft: &mut Nft, record: &GatewayRecord) -> Result<()> {
    gateway::refuse_foreign_tables(nft)?;
    gateway::host_rules(nft, record, &published(locked, &record.topology))
}

/// What the host's maps have of all living boxes of the gateway. Takes time for each of them.
fn published(locked: &Locked<'_>, topology: &Topology) -> Vec<Element> {
    let living = |id: String| -> Option<BoxRecord> {
        registry::look_up(locked.root(), &id).filter(|(_, alive)| *alive).and_then(|(record, _)| record)
    };
    let boxes = registry::all_ids(locked.root()).into_iter().filter_map(living);
    let elements = boxes.filter_map(|record| {
        let attachment = record.attachment.as_ref();
        let attachment = attachment.filter(|attachment| attachment.topology == *topology)?;
        Some(host_elements(attachment, &record.ports))
    });
    elements.flatten().collect()
}

struct Site<'a> {
    locked: &'a Locked<'a>,
    host: &'a mut Host,
    census: &'a Census,
    gateway: Gateway,
    /// As it is written down.
    record: GatewayRecord,
    followed: Vec<String>,
    repaired: Vec<String>,
}

/// How the host's end of the link was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    Up,
    Down,
    Remade,
}

impl Site<'_> {
    /// Everything that restricts: rules, routing rules, routes; and the link, which must not be up without them.
    fn fence(&mut self, facts: &Facts, todo: &Upkeep, concern: Concern) -> Result<()> {
        let mut route = Route::open().context(|| "cannot open netlink")?;
        // What is let go stays written down, and restricted, until it is let go.
        let four = add_missing(&mut self.record.switched, &todo.four.all);
        let six = add_missing(&mut self.record.switched6, &todo.six.all);
        let new = [four, six].concat();
        if !new.is_empty() {
            gateway::write_record(self.locked, &self.record)?;
        }
        let own = self.link(&mut route)?;
        self.rules(concern, !new.is_empty(), own == Own::Remade)?;
        let index = self.routing(&mut route, &new)?;
        match own {
            Own::Up => self.forward_own(facts),
            Own::Down | Own::Remade => wiring::pipeline(&mut route, &[link::settle(index)], "the host"),
        }
    }

    /// Both ends of the link, the host's still down where it is not up; a new link where there is none of that name that is
    /// netbox's.
    fn link(&mut self, route: &mut Route) -> Result<Own> {
        let topology = self.record.topology;
        let name = topology.host_link();
        let found = route.link_by_name(&name).context(|| format!("cannot look at the link {name}"))?;
        let own = match found.filter(|link| link.mac == Some(HOST_MAC)) {
            Some(link) if link.up => Own::Up,
            Some(_) => Own::Down,
            None => {
                // Takes the other end with it, whatever it is called by now and wherever it was moved.
                let removed = self.gateway.route.remove_link(OUT);
                removed.context(|| format!("cannot remove the gateway's link {OUT}"))?;
                gateway::add_link(&mut self.gateway.route, &self.gateway.network, route, &topology)?;
                self.repaired.push(format!("made the link {name} again"));
                Own::Remade
            }
        };
        if own != Own::Up {
            // Up is the last thing that a new link becomes: whoever made this one may not have come so far.
            wiring::set(&settings::of_host_link(&name, topology.ipv6), "on the host")?;
            let inner = self.gateway.route.link_index(OUT);
            let inner = inner.context(|| format!("cannot find the gateway's link {OUT}"))?;
            gateway::gateway_routing(&mut self.gateway.route, &topology, inner)?;
        }
        Ok(own)
    }

    fn rules(&mut self, concern: Concern, more_switched: bool, link_remade: bool) -> Result<()> {
        let nft = self.host.nft(self.locked, self.census)?;
        let lost = concern.rules || link_remade || (concern.rules_perhaps && !are_intact(nft, &self.record)?);
        if lost {
            install(self.locked, nft, &self.record)?;
            self.repaired.push("put the host's rules back".to_owned());
        } else if more_switched {
            let mut batch = Batch::new();
            for (family, interface) in gateway::switched(&self.record) {
                batch.put_element(Family::Inet, TABLE, &restriction(family, interface));
            }
            if nft.commit(batch).is_err() {
                // Whatever it was that did not let an element in.
                install(self.locked, nft, &self.record)?;
                self.repaired.push("put the host's rules back".to_owned());
            }
        }
        Ok(())
    }

    /// Routing rules, the link up, routes: what is missing of them. Nothing is listed, since a router's tables are long:
    /// the kernel says of each what is there already. `new`: interfaces that had no rule yet.
    fn routing(&mut self, route: &mut Route, new: &[String]) -> Result<u32> {
        let topology = self.record.topology;
        let name = topology.host_link();
        let link = route.link_index(&name).context(|| format!("cannot find the link {name}"))?;
        for wanted in routing::host_rules(&topology, &self.record.switched, &self.record.switched6) {
            if is_new(route.add_rule(&wiring::rule_spec(&wanted)))
                .context(|| format!("cannot add the routing rule {wanted}"))?
            {
                let lost = wanted.iif.as_ref().is_none_or(|iif| !new.contains(iif));
                let words = if lost { &mut self.repaired } else { &mut self.followed };
                words.push(format!("added the routing rule {wanted}"));
            }
        }
        wiring::pipeline(route, &wiring::requests(&plan::wiring::host_link_up(&topology), link), "the host")?;
        for wanted in routing::host_routes(&topology) {
            if is_new(route.add_route(&wiring::route_spec(&wanted, link)))
                .context(|| format!("cannot add the route {wanted}"))?
            {
                self.repaired.push(format!("added the route {wanted}"));
            }
        }
        self.repaired.extend(routed::put_back(route, &self.record, link)?);
        Ok(link)
    }

    /// Forwarding of the gateway's own link, which is closed by what is around it.
    fn forward_own(&mut self, facts: &Facts) -> Result<()> {
        let own = self.record.topology.host_link();
        let four = facts.forwarding.links.get(&own) == Some(&false);
        let six = facts.ipv6.as_ref().and_then(|ipv6| ipv6.force_forwarding.get(&own)) == Some(&false);
        let six = six && self.record.topology.pool6().is_some();
        for (family, is_off) in [(settings::Family::Ipv4, four), (settings::Family::Ipv6, six)] {
            if is_off {
                wiring::switch_forwarding(family, &own)?;
                self.repaired.push(format!("switched {family:?} forwarding on {own} on again"));
            }
        }
        Ok(())
    }

    fn forward(&mut self, todo: &Upkeep) -> Result<()> {
        let four = todo.four.to_switch.iter().map(|name| (settings::Family::Ipv4, name));
        let six = todo.six.to_switch.iter().map(|name| (settings::Family::Ipv6, name));
        for (family, name) in four.chain(six) {
            match wiring::switch_forwarding(family, name) {
                Ok(()) => self.followed.push(format!("switched {family:?} forwarding on {name} on")),
                // It went while this was under way.
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is not netbox's any more: interfaces that are gone, or that somebody has switched with all others. First the
    /// restrictions go, then what is written down.
    fn let_go(&mut self, todo: &Upkeep) -> Result<()> {
        let four = without(&self.record.switched, &todo.four.all);
        let six = without(&self.record.switched6, &todo.six.all);
        if four.is_empty() && six.is_empty() {
            return Ok(());
        }
        for name in &six {
            // The switch of IPv6 is a second one: the one for all goes on without it.
            let switched_back = wiring::switch_forwarding_back(settings::Family::Ipv6, name);
            switched_back.context(|| format!("cannot switch IPv6 forwarding off on {name}"))?;
        }
        let mut batch = Batch::new();
        for (family, names) in [(settings::Family::Ipv4, &four), (settings::Family::Ipv6, &six)] {
            for name in names {
                batch.delete_element(Family::Inet, TABLE, &restriction(family, name));
            }
        }
        self.host.nft(self.locked, self.census)?.commit(batch)?;
        let mut route = Route::open().context(|| "cannot open netlink")?;
        let all = routing::host_rules(&self.record.topology, &four, &six);
        for rule in all.iter().filter(|rule| rule.table == CLOSED_TABLE) {
            let removed = route.remove_rule(&wiring::rule_spec(rule));
            removed.context(|| format!("cannot remove the routing rule {rule}"))?;
        }
        self.record.switched.retain(|name| !four.contains(name));
        self.record.switched6.retain(|name| !six.contains(name));
        gateway::write_record(self.locked, &self.record)?;
        let names = [four, six].concat().join(", ");
        self.followed.push(format!("forwarding on {names} is not netbox's any more"));
        Ok(())
    }

    /// The gateway's set of the host's addresses. Written down last: who is next adds and removes again what was done.
    fn host_addresses(&mut self, todo: Upkeep) -> Result<()> {
        if todo.added.is_empty() && todo.removed.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for address in &todo.added {
            batch.put_element(Family::Inet, TABLE, &ruleset::host_address(*address));
        }
        for address in &todo.removed {
            batch.delete_element(Family::Inet, TABLE, &ruleset::host_address(*address));
        }
        self.gateway.nft.commit(batch)?;
        self.followed.push(format!("addresses of the host: {:?} came, {:?} went", todo.added, todo.removed));
        self.record.host_addresses = todo.host_addresses;
        gateway::write_record(self.locked, &self.record)
    }
}

/// Adds those that are not there yet, and returns them.
fn add_missing(names: &mut Vec<String>, wanted: &[String]) -> Vec<String> {
    let missing = without(wanted, names);
    names.extend(missing.iter().cloned());
    missing
}

fn without(names: &[String], others: &[String]) -> Vec<String> {
    names.iter().filter(|name| !others.contains(name)).cloned().collect()
}

/// The element that restricts an interface that netbox makes forward to boxes' traffic.
fn restriction(family: settings::Family, interface: &str) -> Element {
    match family {
        settings::Family::Ipv4 => ruleset::switched(interface),
        settings::Family::Ipv6 => ruleset::switched6(interface),
    }
}

fn are_intact(nft: &mut Nft, record: &GatewayRecord) -> Result<bool> {
    for table in ruleset::host(&record.topology, record.connections) {
        if nft.table_is_ours(table.family, table.name)? != Some(true) || !nft.has_chains_of(&table)? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn is_new(added: io::Result<()>) -> io::Result<bool> {
    match added {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}
