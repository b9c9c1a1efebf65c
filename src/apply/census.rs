//! Who lives, in one pass over the slot table.

use crate::kernel::slots::{SlotNote, SlotState, Slots};

use super::lease::{DRAINING, Shared, USES_GATEWAY};

/// So many keepers to ask: one of them is alive.
const ENOUGH: usize = 8;

/// What the slot table says.
#[derive(Debug, Default)]
pub struct Census {
    /// Slots whose keeper died without taking its box down.
    pub dead: Vec<(usize, SlotNote)>,
    /// Keepers that hold the gateway: process id and their note.
    pub holders: Vec<(u32, SlotNote)>,
    /// Any keepers, those that only linger too: they may hold a socket on the host.
    pub anybody: Vec<(u32, SlotNote)>,
    /// How many living boxes hang off the gateway.
    pub users: usize,
}

/// Looks at every slot: memory only, the same few microseconds for one box and for a thousand.
#[must_use]
pub fn census(slots: &Slots) -> Census {
    let mut census = Census::default();
    for slot in slots.taken() {
        match slots.state(slot) {
            SlotState::Free => {}
            SlotState::Dead => census.dead.push((slot, slots.note(slot))),
            SlotState::Alive(tid) => {
                let note = slots.note(slot);
                if note.descriptors[Shared::HostNft as usize] != 0 && census.anybody.len() < ENOUGH {
                    census.anybody.push((tid, note));
                }
                if note.bits & USES_GATEWAY == 0 || note.bits & DRAINING != 0 {
                    continue;
                }
                census.users += 1;
                if note.descriptors[Shared::Network as usize] != 0 && census.holders.len() < ENOUGH {
                    census.holders.push((tid, note));
                }
            }
        }
    }
    census
}
