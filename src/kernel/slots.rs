//! A table of who is alive, in a file that all runs share, which the kernel itself corrects when one dies.
//!
//! Each slot has a word that holds the thread id of its keeper. The word is registered as a *robust
//! futex*: when the keeper dies, by whatever, the kernel sets `FUTEX_OWNER_DIED` in it
//! (get_robust_list(2), Documentation/locking/robust-futexes.rst). So a start sees in one pass over
//! memory, without a system call per box, which slots are free, which are alive and which were left by
//! the dead. It is a hint to look, not a proof: the proof is the lock on the box's directory.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};

/// FUTEX_OWNER_DIED and FUTEX_TID_MASK of include/uapi/linux/futex.h.
const OWNER_DIED: u32 = 0x4000_0000;
const TID_MASK: u32 = 0x3fff_ffff;

/// What a slot's words say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// Nobody's.
    Free,
    /// Its keeper, of this thread id, lives.
    Alive(u32),
    /// Its keeper died without giving it back.
    Dead,
}

/// What is written beside the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotNote {
    /// The id of the box, 8 bytes of ASCII.
    pub id: [u8; 8],
    /// What the box holds on to: bits that the caller defines.
    pub bits: u16,
    /// The numbers under which the keeper holds descriptors that others may share, or 0: what each is for is the
    /// caller's business.
    pub descriptors: [u16; 3],
}

/// The file, mapped: `count` words, then `count` notes of two u64, the counters, a bit for each slot that may not
/// be free, and `count` u64 with two processes each.
#[derive(Debug)]
pub struct Slots {
    base: NonNull<u8>,
    count: usize,
    /// The slot that was taken, the word in it, and the list that the kernel has.
    taken: Option<(usize, u32, Box<Robust>)>,
}

/// `struct robust_list_head` and the one entry of its list (include/uapi/linux/futex.h).
#[derive(Debug)]
#[repr(C)]
struct Robust {
    list: *const *const u8,
    futex_offset: libc::c_long,
    pending: *const u8,
    entry: *const u8,
}

/// How many counters follow the notes.
const COUNTERS: usize = 2;

/// So many slots are marked in one u64.
const BITS: usize = u64::BITS as usize;

impl Slots {
    /// The size of the file, in bytes, for `count` slots.
    #[must_use]
    pub const fn file_size(count: usize) -> usize {
        Self::processes_at(count) + count * 8
    }

    const fn notes_at(count: usize) -> usize {
        (count * 4).next_multiple_of(8)
    }

    const fn counters_at(count: usize) -> usize {
        Self::notes_at(count) + count * 16
    }

    const fn marks_at(count: usize) -> usize {
        Self::counters_at(count) + COUNTERS * 8
    }

    const fn processes_at(count: usize) -> usize {
        Self::marks_at(count) + count.div_ceil(BITS) * 8
    }

    /// Maps `file`, growing it first when it is shorter than the table. What is in it is never trusted: every
    /// bit pattern is a legal table.
    ///
    /// It is full of holes: only where a slot was ever taken does it take room, and only there is it looked at.
    ///
    /// # Errors
    /// ENOSPC, ENOMEM; InvalidInput for a table of no slots.
    pub fn map(file: &File, count: usize) -> io::Result<Self> {
        let size = Self::file_size(count);
        if file.metadata()?.len() < size as u64 {
            file.set_len(size as u64)?;
        }
        let length = NonZeroUsize::new(size).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: no address is asked for, so nothing that is mapped is replaced. The file is netbox's own,
        // never shortened, so the pages stay valid as long as the mapping.
        let base = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, file.as_fd(), 0) }?;
        let slots = Self { base: base.cast(), count, taken: None };
        slots.make_room(Self::counters_at(count)..Self::processes_at(count))?;
        Ok(slots)
    }

    /// Has the file system give these bytes of the file room: to touch a hole of a full one is SIGBUS.
    fn make_room(&self, bytes: Range<usize>) -> io::Result<()> {
        const PAGE: usize = 4096;
        let start = bytes.start / PAGE * PAGE;
        let Some(first) = NonNull::new(self.base.as_ptr().wrapping_add(start)) else { return Ok(()) };
        // SAFETY: within the mapping, from a page's beginning, and a write fault changes no byte.
        match unsafe { madvise(first.cast(), bytes.end - start, MmapAdvise::MADV_POPULATE_WRITE) } {
            // madvise(2): where touching it would be SIGBUS.
            Err(Errno::EFAULT) => Err(Errno::ENOSPC.into()),
            other => Ok(other?),
        }
    }

    fn word(&self, slot: usize) -> &AtomicU32 {
        assert!(slot < self.count);
        let word = self.base.as_ptr().wrapping_add(slot * 4).cast();
        // SAFETY: within the mapping (slot < count), 4-aligned because the mapping is page-aligned, and only
        // ever accessed atomically, by us and by the kernel.
        unsafe { AtomicU32::from_ptr(word) }
    }

    fn wide(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= Self::file_size(self.count));
        let word = self.base.as_ptr().wrapping_add(offset).cast();
        // SAFETY: within the mapping and 8-aligned (asserted; the mapping is page-aligned), and only ever
        // accessed atomically.
        unsafe { AtomicU64::from_ptr(word) }
    }

    /// How many slots there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// What slot `slot` is.
    #[must_use]
    pub fn state(&self, slot: usize) -> SlotState {
        if !self.is_marked(slot) {
            return SlotState::Free;
        }
        match self.word(slot).load(SeqCst) {
            0 => SlotState::Free,
            word if word & OWNER_DIED != 0 => SlotState::Dead,
            word => SlotState::Alive(word & TID_MASK),
        }
    }

    /// The slots that are not free, in their order. Only marked ones are looked at: to pass over the others costs
    /// two kilobytes of memory for 16384.
    pub fn taken(&self) -> impl Iterator<Item = usize> {
        (0..self.count.div_ceil(BITS))
            .flat_map(|group| {
                let mut marks = self.marks(group).load(SeqCst);
                std::iter::from_fn(move || {
                    let lowest = marks.trailing_zeros() as usize;
                    // What is marked when its slot is free is passed over: its keeper was killed in between.
                    marks &= marks.wrapping_sub(1);
                    (lowest < BITS).then_some(group * BITS + lowest)
                })
            })
            .filter(|slot| *slot < self.count && self.state(*slot) != SlotState::Free)
    }

    fn is_marked(&self, slot: usize) -> bool {
        self.marks(slot / BITS).load(SeqCst) & (1 << (slot % BITS)) != 0
    }

    fn marks(&self, group: usize) -> &AtomicU64 {
        self.wide(Self::marks_at(self.count) + group * 8)
    }

    /// The note beside slot `slot`.
    #[must_use]
    pub fn note(&self, slot: usize) -> SlotNote {
        if !self.is_marked(slot) {
            return SlotNote::default();
        }
        let at = Self::notes_at(self.count) + slot * 16;
        let [a, b, c, d, e, f, g, h] = self.wide(at + 8).load(SeqCst).to_ne_bytes();
        SlotNote {
            id: self.wide(at).load(SeqCst).to_ne_bytes(),
            bits: u16::from_ne_bytes([a, b]),
            descriptors: [[c, d], [e, f], [g, h]].map(u16::from_ne_bytes),
        }
    }

    /// Writes the note beside slot `slot`, which somebody has taken.
    pub fn set_note(&self, slot: usize, note: &SlotNote) {
        let at = Self::notes_at(self.count) + slot * 16;
        let [a, b] = note.bits.to_ne_bytes();
        let [[c, d], [e, f], [g, h]] = note.descriptors.map(u16::to_ne_bytes);
        self.wide(at).store(u64::from_ne_bytes(note.id), SeqCst);
        self.wide(at + 8).store(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), SeqCst);
    }

    /// The processes beside slot `slot`, 0 for one that is not known.
    #[must_use]
    pub fn processes(&self, slot: usize) -> [u32; 2] {
        if !self.is_marked(slot) {
            return [0; 2];
        }
        let [a, b, c, d, e, f, g, h] = self.processes_of(slot).load(SeqCst).to_ne_bytes();
        [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes)
    }

    /// Writes two processes beside slot `slot`, which this process has taken.
    pub fn set_processes(&self, slot: usize, processes: [u32; 2]) {
        let [[a, b, c, d], [e, f, g, h]] = processes.map(u32::to_ne_bytes);
        self.processes_of(slot).store(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), SeqCst);
    }

    fn processes_of(&self, slot: usize) -> &AtomicU64 {
        self.wide(Self::processes_at(self.count) + slot * 8)
    }

    /// Counter `which` (below 2), as it was, and one more from now on.
    pub fn count_up(&self, which: usize) -> u64 {
        assert!(which < COUNTERS);
        self.wide(Self::counters_at(self.count) + which * 8).fetch_add(1, SeqCst)
    }

    /// Sets counter `which` (below 2).
    pub fn set_counter(&self, which: usize, value: u64) {
        assert!(which < COUNTERS);
        self.wide(Self::counters_at(self.count) + which * 8).store(value, SeqCst);
    }

    /// Counter `which` (below 2).
    #[must_use]
    pub fn counter(&self, which: usize) -> u64 {
        assert!(which < COUNTERS);
        self.wide(Self::counters_at(self.count) + which * 8).load(SeqCst)
    }

    /// Makes this thread the keeper of `slot`: from the moment the word is written, its death shows in it.
    ///
    /// # Errors
    /// ENOSPC; those of set_robust_list(2): ENOSYS where futexes are missing.
    pub fn take(&mut self, slot: usize, note: &SlotNote) -> io::Result<()> {
        self.make_room_for(slot)?;
        let word: *const u8 = self.word(slot).as_ptr().cast();
        let mut robust = Box::new(Robust {
            list: std::ptr::null(),
            futex_offset: 0,
            pending: std::ptr::null(),
            entry: std::ptr::null(),
        });
        // A circular list of one entry. The kernel finds the word at the entry's address plus the offset.
        robust.list = &raw const robust.entry;
        robust.entry = (&raw const robust.list).cast();
        let entry = (&raw const robust.entry).addr();
        robust.futex_offset = word.addr().wrapping_sub(entry).cast_signed() as libc::c_long;
        set_robust_list(&raw const *robust)?;
        let tid = rustix::thread::gettid().as_raw_pid().cast_unsigned() & TID_MASK;
        self.taken = Some((slot, tid, robust));
        self.set_note(slot, note);
        self.set_processes(slot, [0; 2]);
        self.set_word(slot, tid);
        Ok(())
    }

    fn make_room_for(&self, slot: usize) -> io::Result<()> {
        let (word, note) = (slot * 4, Self::notes_at(self.count) + slot * 16);
        let processes = Self::processes_at(self.count) + slot * 8;
        self.make_room(word..word + 4)?;
        self.make_room(note..note + 16)?;
        self.make_room(processes..processes + 8)
    }

    fn set_word(&self, slot: usize, tid: u32) {
        // Marked first: a word without a mark would be seen by nobody.
        self.marks(slot / BITS).fetch_or(1 << (slot % BITS), SeqCst);
        self.word(slot).store(tid, SeqCst);
    }

    /// As if a keeper of this thread id had taken the slot.
    #[cfg(test)]
    pub(crate) fn pretend(&self, slot: usize, tid: u32) {
        self.make_room_for(slot).expect("room");
        self.set_word(slot, tid);
    }

    /// Gives `slot` back, whoever had it.
    pub fn give_back(&self, slot: usize) {
        if self.is_marked(slot) {
            self.word(slot).store(0, SeqCst);
            self.set_note(slot, &SlotNote::default());
            self.marks(slot / BITS).fetch_and(!(1 << (slot % BITS)), SeqCst);
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        if let Some((slot, tid, _)) = &self.taken {
            // Not given back: what the kernel would write if this thread ended here. Another word is not ours any more.
            let _ = self.word(*slot).compare_exchange(*tid, tid | OWNER_DIED, SeqCst, SeqCst);
            // The list is about to be freed. Failure is impossible for a null list.
            let _ = set_robust_list(std::ptr::null());
        }
        // SAFETY: the mapping is this value's own, of exactly this size, and no reference into it is left.
        let _ = unsafe { munmap(self.base.cast(), Self::file_size(self.count)) };
    }
}

fn set_robust_list(head: *const Robust) -> io::Result<()> {
    const HEAD: usize = 3 * size_of::<usize>();
    // SAFETY: the kernel keeps the pointer and reads it when this thread ends; `Slots` keeps the list in a
    // box until it takes the registration back. libc's own list serves robust mutexes, of which there are none.
    nix::errno::Errno::result(unsafe { libc::syscall(libc::SYS_set_robust_list, head, HEAD) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> (File, Slots) {
        let file = table_of(16);
        let slots = Slots::map(&file, 16).unwrap();
        (file, slots)
    }

    fn table_of(count: usize) -> File {
        let path = std::env::temp_dir().join(format!(
            "netbox-slots-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        Slots::map(&file, count).unwrap();
        file
    }

    #[test]
    fn the_kernel_marks_the_slot_of_a_thread_that_ends_without_giving_it_back() {
        let (file, slots) = table();
        let again = file.try_clone().unwrap();
        let note = SlotNote { id: *b"abcdefgh", bits: 1, descriptors: [9, 10, 11] };
        std::thread::spawn(move || {
            let mut own = Slots::map(&file, 16).unwrap();
            own.take(3, &note).unwrap();
            assert!(matches!(own.state(3), SlotState::Alive(_)));
            own.set_processes(3, [20, 21]);
            // A killed keeper drops nothing.
            let _held = std::mem::ManuallyDrop::new(own);
        })
        .join()
        .unwrap();
        assert_eq!(slots.state(3), SlotState::Dead);
        assert_eq!(slots.note(3), note);
        assert_eq!(slots.processes(3), [20, 21]);
        assert_eq!(slots.state(2), SlotState::Free);
        slots.give_back(3);
        assert_eq!((slots.state(3), slots.processes(3)), (SlotState::Free, [0; 2]));
        let mut next = Slots::map(&again, 16).unwrap();
        next.take(3, &note).unwrap();
        assert_eq!(slots.processes(3), [0; 2], "another box's");
    }

    #[test]
    fn a_slot_that_is_dropped_without_being_given_back_is_dead() {
        let (file, slots) = table();
        let mut own = Slots::map(&file, 16).unwrap();
        own.take(4, &SlotNote::default()).unwrap();
        drop(own);
        assert_eq!(slots.state(4), SlotState::Dead);
    }

    #[test]
    fn those_that_are_not_free_are_found_wherever_they_are() {
        let file = table_of(200);
        let mut keepers = Vec::new();
        for slot in [199, 0, 64, 63, 130] {
            let mut own = Slots::map(&file, 200).unwrap();
            own.take(slot, &SlotNote::default()).unwrap();
            keepers.push(own);
        }
        let all = Slots::map(&file, 200).unwrap();
        assert_eq!(all.taken().collect::<Vec<_>>(), [0, 63, 64, 130, 199]);
        // One dies, one leaves.
        keepers.truncate(4);
        all.give_back(64);
        assert_eq!(all.taken().collect::<Vec<_>>(), [0, 63, 130, 199]);
        assert_eq!(all.state(130), SlotState::Dead);
    }

    #[test]
    fn a_slot_that_was_given_back_is_free_after_its_keepers_end() {
        let (file, slots) = table();
        std::thread::spawn(move || {
            let mut own = Slots::map(&file, 16).unwrap();
            own.take(5, &SlotNote::default()).unwrap();
            own.give_back(5);
        })
        .join()
        .unwrap();
        assert_eq!(slots.state(5), SlotState::Free);
    }
}
