//! The line in which keepers wait for their turn to look after the host: the first in it does, each of the others waits
//! for the end of the one before it. So one end wakes one keeper, however many there are.
//!
//! A keeper's place is a number in its slot's note, written under the run lock. It ends with the box, or with the
//! keeper, whose death the kernel writes into the slot.

use crate::kernel::slots::{SlotState, Slots};

use super::lease::{DRAINING, USES_GATEWAY};
use super::state::Locked;

/// The bits of a note below those of the number.
const FLAGS: u16 = USES_GATEWAY | DRAINING;
const SHIFT: u32 = FLAGS.count_ones();
/// More than the slots of a pool: there is a number for each.
const LAST: u16 = u16::MAX >> SHIFT;

const fn number(bits: u16) -> u16 {
    bits >> SHIFT
}

/// The living keepers that stand in the line: slot, process, number.
fn line(slots: &Slots) -> impl Iterator<Item = (usize, u32, u16)> {
    slots.taken().filter_map(|slot| match slots.state(slot) {
        SlotState::Alive(pid) => Some((slot, pid, number(slots.note(slot).bits))).filter(|(.., n)| *n != 0),
        SlotState::Free | SlotState::Dead => None,
    })
}

fn place(slots: &Slots, slot: usize, number: u16) {
    let mut note = slots.note(slot);
    note.bits = (note.bits & FLAGS) | (number << SHIFT);
    slots.set_note(slot, &note);
}

/// Lets the keeper of `slot` stand at the end of the line.
pub fn stand_in_line(locked: &Locked<'_>, slot: u32) {
    append(locked.slots(), slot);
}

fn append(slots: &Slots, slot: u32) {
    let mut last = line(slots).map(|(.., number)| number).max().unwrap_or(0);
    if last == LAST {
        // Closes the gaps, in the order that there is.
        let mut all: Vec<_> = line(slots).collect();
        all.sort_unstable_by_key(|(.., number)| *number);
        for (own, (other, ..)) in (1..).zip(all) {
            place(slots, other, own);
            last = own;
        }
    }
    place(slots, slot as usize, last + 1);
}

/// The keepers in front of `slot`'s, the nearest first, as slot and process. None: it is the first.
#[must_use]
pub fn in_front_of(locked: &Locked<'_>, slot: u32) -> Vec<(usize, u32)> {
    before(locked.slots(), slot)
}

fn before(slots: &Slots, slot: u32) -> Vec<(usize, u32)> {
    let own = number(slots.note(slot as usize).bits);
    let mut in_front: Vec<_> = line(slots).filter(|(.., number)| *number < own).collect();
    in_front.sort_unstable_by_key(|(.., number)| std::cmp::Reverse(*number));
    in_front.into_iter().map(|(slot, pid, _)| (slot, pid)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]
    use super::*;
    use crate::kernel::slots::SlotNote;
    use std::fs::File;

    const COUNT: usize = 64;

    /// A table of keepers that never lived: process 100 + n in slot n.
    fn table(alive: &[u32]) -> (File, Slots) {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = File::from(rustix::fs::memfd_create("slots", flags).unwrap());
        let slots = Slots::map(&file, COUNT).unwrap();
        for slot in alive {
            slots.pretend(*slot as usize, 100 + slot);
        }
        (file, slots)
    }

    fn pids(slots: &Slots, slot: u32) -> Vec<u32> {
        before(slots, slot).into_iter().map(|(_, pid)| pid).collect()
    }

    #[test]
    fn who_came_first_is_first_whatever_the_slot() {
        let (_file, slots) = table(&[9, 3, 30]);
        for slot in [9, 3, 30] {
            append(&slots, slot);
        }
        assert_eq!(pids(&slots, 9), [0; 0]);
        assert_eq!(pids(&slots, 3), [109]);
        assert_eq!(pids(&slots, 30), [103, 109]);
    }

    #[test]
    fn who_dies_or_ends_leaves_the_line() {
        let (_file, slots) = table(&[1, 2, 3]);
        for slot in 1..=3 {
            append(&slots, slot);
        }
        slots.give_back(1);
        assert_eq!(pids(&slots, 2), [0; 0]);
        // As `Lease::end` does.
        slots.set_note(2, &SlotNote { bits: DRAINING, ..slots.note(2) });
        assert_eq!(pids(&slots, 3), [0; 0]);
    }

    #[test]
    fn who_has_not_come_stands_nowhere() {
        let (_file, slots) = table(&[1, 2]);
        append(&slots, 2);
        assert_eq!(pids(&slots, 2), [0; 0]);
        assert_eq!(slots.note(1).bits, 0);
    }

    #[test]
    fn numbers_that_run_out_begin_again_in_the_same_order() {
        let (_file, slots) = table(&[1, 2, 3]);
        append(&slots, 2);
        append(&slots, 1);
        place(&slots, 1, LAST);
        slots.set_note(3, &SlotNote { bits: USES_GATEWAY, ..slots.note(3) });
        append(&slots, 3);
        assert_eq!(pids(&slots, 3), [101, 102]);
        assert_eq!(number(slots.note(3).bits), 3);
        assert_eq!(slots.note(3).bits & FLAGS, USES_GATEWAY);
    }
}
