//! The addresses that were asked for: settled under the run lock, where who has which is known.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use crate::error::{Error, Result};
use crate::kernel::process::wait_for_end;
use crate::kernel::slots::SlotState;
use crate::plan::place::{self, Wanted};
use crate::plan::pool;
use crate::plan::record::GatewayRecord;
use crate::plan::topology::{POOL6_PREFIX, SLOTS, Topology, slots_of};
use crate::plan::wiring::written;
use crate::spec::network::Join;
use crate::spec::request::RunRequest;

use super::census::{Census, census};
use super::gateway;
use super::lease::{self, DRAINING};
use super::networks;
use super::registry;
use super::seats;
use super::state::{Locked, State};

/// How long a run waits for an address whose box has ended, while its keeper sees its link off: 65 ms as a rule, and more
/// where the machine is busy.
const LEAVES: Duration = Duration::from_secs(5);

/// Where a box goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What is written down about the gateway, which need not live any more.
    pub record: Option<GatewayRecord>,
    /// What a gateway gets that has to be made.
    pub wanted: Wanted,
    /// How many slots the pool has.
    pub slots: u32,
    /// The slot that was asked for, and by which address.
    pub slot: Option<(u32, IpAddr)>,
}

/// Settles where a box goes. `None`: not behind the gateway.
///
/// # Errors
/// An address outside the pool, a pool that the living gateway has not: naming the pool.
pub fn settle(locked: &Locked<'_>, request: &RunRequest, census: &Census) -> Result<Option<Place>> {
    if !request.net.is_behind_gateway() {
        return Ok(None);
    }
    let record = gateway::record(locked);
    let pools = match record.as_ref().filter(|_| census.users > 0) {
        Some(living) => joining(locked, request, living)?,
        None => making(request)?,
    };
    place_in(request, pools, record).map(Some)
}

/// Where a box would go that were started now, as `--dry-run` says it, and the ranges that netbox has already.
///
/// # Errors
/// Those of [`settle`], and an address that is taken.
pub fn foresee(state: Option<&mut State>, request: &RunRequest) -> Result<(Place, Vec<IpNet>)> {
    let Some(state) = state else { return Ok((place_in(request, making(request)?, None)?, Vec::new())) };
    let locked = state.lock()?;
    let found = census(locked.slots());
    let living = gateway::record(&locked).filter(|_| found.users > 0);
    let pools = match &living {
        Some(living) => joining(&locked, request, living)?,
        None => making(request)?,
    };
    let place = place_in(request, pools, None)?;
    if let Some((slot, address)) = place.slot
        && locked.slots().note(slot as usize).bits & DRAINING == 0
    {
        lease::slot_is_free(&locked, slot, address)?;
    }
    let own = living.iter().flat_map(|living| living.topology.pools().map(|(pool, _)| pool)).collect();
    Ok((place, own))
}

fn place_in(request: &RunRequest, pools: Wanted, record: Option<GatewayRecord>) -> Result<Place> {
    let slots = pools.pool.map_or(SLOTS, slots_of);
    let four = match (request.pool_ip(), pools.pool) {
        (Some(address), Some(pool)) => Some((place::slot(pool, address)?, address)),
        _ => None,
    };
    let six = match (request.pool_ip6(), pools.pool6) {
        (Some(address), Some(pool)) => Some((place::slot6(pool, slots, address)?, address)),
        _ => None,
    };
    if let (Some(four), Some(six), Some(pool6)) = (four, six, pools.pool6) {
        place::same(pool6, four, six)?;
    }
    let four = four.map(|(slot, address)| (slot, IpAddr::V4(address)));
    let slot = four.or_else(|| six.map(|(slot, address)| (slot, IpAddr::V6(address))));
    // Where the gateway is found dead after all, the pools that the slot was counted in.
    let wanted = Wanted {
        pool: pools.pool.filter(|_| request.has_address() || request.pool.is_some()),
        pool6: pools.pool6.filter(|_| request.pool_ip6().is_some()),
    };
    Ok(Place { record, wanted, slots, slot })
}

/// The pools of the living gateway.
fn joining(locked: &Locked<'_>, request: &RunRequest, living: &GatewayRecord) -> Result<Wanted> {
    let topology: Topology = living.topology;
    if let Some(pool) = request.pool.filter(|pool| *pool != topology.pool) {
        return Err(Error::new(format!("cannot give boxes addresses of {pool}"))
            .because(format!("there are boxes with addresses of {} already{}", topology.pool, names(locked)))
            .hint("all boxes share one pool; another one can be chosen when they have ended"));
    }
    if let (Some(address), None) = (request.pool_ip6(), topology.pool6()) {
        let reason = living.without_ipv6.as_deref().unwrap_or("the gateway was made without");
        return Err(Error::new(format!("cannot give the box the address {address}"))
            .because(format!("boxes have no IPv6: {reason}")));
    }
    Ok(Wanted { pool: Some(topology.pool), pool6: topology.pool6() })
}

/// The pools of a gateway that has to be made: those that the addresses are of.
fn making(request: &RunRequest) -> Result<Wanted> {
    let pool = match (request.pool, request.pool_ip()) {
        (None, Some(_)) => Some(pool::choose(&crate::host::observe()?)?),
        (pool, _) => pool,
    };
    let pool6 = request.pool_ip6().and_then(|address| Ipv6Net::new(address, POOL6_PREFIX).ok());
    Ok(Wanted { pool, pool6: pool6.map(|net| net.trunc()) })
}

/// The boxes that hang off the gateway, as many as a line has room for. One that is just starting has no name yet.
fn names(locked: &Locked<'_>) -> String {
    const SHOWN: usize = 5;
    let living = |id: String| registry::look_up(locked.root(), &id).filter(|(_, alive)| *alive)?.0;
    let all: Vec<_> = registry::all_ids(locked.root())
        .into_iter()
        .filter_map(living)
        .filter(|record| record.attachment.is_some())
        .map(|record| record.name)
        .collect();
    let more = match all.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match all.get(..SHOWN).unwrap_or(&all) {
        [] => String::new(),
        shown => format!(": {}{more}", shown.join(", ")),
    }
}

/// Waits for the address that was asked for while the keeper of a box that has ended still sees its link off: once netbox
/// has returned, what a box had can be used again (promise L1). Without the run lock, which that keeper needs; and no longer
/// than there is somebody to run for, whose end `launcher` tells. Costs nothing where no address was asked for.
///
/// # Errors
/// Those of [`settle`], and of the state directory.
pub fn wait_until_left(
    state: &mut Option<State>,
    request: &RunRequest,
    launcher: BorrowedFd<'_>,
) -> Result<()> {
    let mut joins = request.joins();
    joins.retain(|(_, join)| join.ip.is_some() || join.ip6.is_some() || join.mac.is_some());
    if !request.has_address() && joins.is_empty() {
        return Ok(());
    }
    let locked = State::open_locked(state)?;
    let slots = locked.slots();
    let mut wanted = Vec::new();
    if request.has_address() {
        let place = settle(&locked, request, &census(slots))?;
        wanted.extend(place.and_then(|place| place.slot).map(|(slot, _)| slot));
    }
    for (_, join) in joins {
        wanted.extend(holders(&locked, &join)?);
    }
    // A damaged link may name any.
    wanted.retain(|slot| *slot < SLOTS);
    let of = |slot: u32| (slots.state(slot as usize), slots.note(slot as usize));
    let seen: Vec<_> = wanted.into_iter().map(of).collect();
    drop(locked);
    for (now, note) in seen {
        if let SlotState::Alive(keeper) = now
            && note.bits & DRAINING != 0
        {
            // What cannot be waited for shows when the slot is taken.
            let _ = wait_for_end(keeper, launcher, LEAVES);
        }
    }
    Ok(())
}

/// The slots of the boxes that have what was asked for in a network.
fn holders(locked: &Locked<'_>, join: &Join) -> Result<Vec<u32>> {
    // Without its lock: who removes a network takes that before the run lock.
    let network = networks::find(&join.name)?.id;
    let names =
        [join.ip.map(|ip| ip.to_string()), join.ip6.map(|ip6| ip6.to_string()), join.mac.map(written)];
    let holders = names.iter().flatten().filter_map(|name| seats::find(locked.root(), &network, name));
    Ok(holders.map(|taken| taken.slot).collect())
}
