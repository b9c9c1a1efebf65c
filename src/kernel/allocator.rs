//! Where memory comes from while a run starts.
//!
//! malloc(3) writes to its books, which lie among the blocks, whenever it gives or takes one. After a fork each such write
//! copies a page of the parent's; a run has two forks, and did this some thirty times. Here the first memory is
//! dealt out in a row: what a forked process allocates lies together, in pages that nobody has written to.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// So many bytes are dealt out in a row; a start needs a fifth of them. What is not touched takes no memory.
const SIZE: usize = 512 << 10;
const PAGE: usize = 4096;
/// What malloc(3) aligns to at least, whatever is asked for. Not all code that runs here asks: nix writes control messages
/// to a `Vec<u8>`.
const ALIGN: usize = 16;

/// The first half MiB in a row, and what is allocated when they are used up from the C library.
///
/// Of the row only the last block can be given back; others are used up. So a process that runs for long ends with the C
/// library's allocator, and has lost a row's length at most.
#[repr(align(4096))]
pub struct InARow {
    row: UnsafeCell<MaybeUninit<[u8; SIZE]>>,
    /// What of it is dealt out, in bytes from the beginning.
    dealt: AtomicUsize,
}

// SAFETY: `dealt` only ever moves over a byte by a compare-and-exchange, so each byte of the row belongs to one caller.
unsafe impl Sync for InARow {}

impl fmt::Debug for InARow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("InARow").field("dealt", &self.dealt).finish_non_exhaustive()
    }
}

impl Default for InARow {
    fn default() -> Self {
        Self::new()
    }
}

impl InARow {
    /// Nothing is dealt out yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { row: UnsafeCell::new(MaybeUninit::uninit()), dealt: AtomicUsize::new(0) }
    }

    fn base(&self) -> *mut u8 {
        self.row.get().cast()
    }

    /// Where in the row a block is; none where the C library gave it.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        Some(block.addr().wrapping_sub(self.base().addr())).filter(|offset| *offset < SIZE)
    }

    /// Moves the end of what is dealt out, if it is at `from`.
    fn move_end(&self, from: usize, to: usize) -> bool {
        to <= SIZE && self.dealt.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
    }

    fn deal(&self, layout: Layout) -> Option<*mut u8> {
        // The row begins at a page.
        let align = Some(layout.align().max(ALIGN)).filter(|align| *align <= PAGE)?;
        let mut end = self.dealt.load(Relaxed);
        loop {
            let start = end.checked_next_multiple_of(align)?;
            let after = start.checked_add(layout.size()).filter(|after| *after <= SIZE)?;
            match self.dealt.compare_exchange_weak(end, after, Relaxed, Relaxed) {
                Ok(_) => return Some(self.base().wrapping_add(start)),
                Err(now) => end = now,
            }
        }
    }
}

// SAFETY: a block is either of the row, where `deal` aligned it and gave it to nobody else, until it is given back as the
// last one; or the C library's, and goes back there: the addresses tell which.
unsafe impl GlobalAlloc for InARow {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.deal(layout).unwrap_or_else(|| {
            // SAFETY: the caller's promises, handed on.
            unsafe { System.alloc(layout) }
        })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(block) = self.deal(layout) else {
            // Not `alloc` and writing zeros: large blocks come from mmap(2) and take memory only where they are touched.
            // SAFETY: the caller's promises, handed on.
            return unsafe { System.alloc_zeroed(layout) };
        };
        // It may have been given back before.
        // SAFETY: `deal` gave so many bytes of the row to this caller alone.
        unsafe { block.write_bytes(0, layout.size()) };
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(offset) = self.offset(block) {
            // Not the last: used up.
            let _ = self.move_end(offset + layout.size(), offset);
        } else {
            // SAFETY: not of the row, so the C library's.
            unsafe { System.dealloc(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = self.offset(block) else {
            // SAFETY: not of the row, so the C library's.
            return unsafe { System.realloc(block, layout, size) };
        };
        let in_place = offset.checked_add(size).is_some_and(|end| self.move_end(offset + layout.size(), end));
        if in_place || size <= layout.size() {
            return block;
        }
        // SAFETY: the caller promises that `size` is legal for this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: `size` is more than the old one, so not 0.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both have the old size at least, and the new one is nobody else's.
            unsafe { std::ptr::copy_nonoverlapping(block, new, layout.size()) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    fn take(row: &InARow, size: usize, align: usize) -> *mut u8 {
        // SAFETY: no test asks for a size of 0.
        unsafe { row.alloc(layout(size, align)) }
    }

    fn resize(row: &InARow, block: *mut u8, old: usize, new: usize) -> *mut u8 {
        // SAFETY: a block of this allocator, taken with this size and this alignment.
        unsafe { row.realloc(block, layout(old, 8), new) }
    }

    fn give_back(row: &InARow, block: *mut u8, size: usize) {
        // SAFETY: as above, and nobody uses it from here on.
        unsafe { row.dealloc(block, layout(size, 8)) }
    }

    #[test]
    fn blocks_lie_in_a_row_each_aligned_as_malloc_would_at_least() {
        let row = Box::leak(Box::new(InARow::new()));
        let blocks = [take(row, 3, 1), take(row, 3, 1), take(row, 8, 64)];
        assert_eq!(blocks.map(|block| row.offset(block)), [Some(0), Some(16), Some(64)]);
        assert!(blocks[2].addr().is_multiple_of(64));
    }

    #[test]
    fn the_last_block_is_dealt_out_again_and_grows_where_it_is() {
        let row = Box::leak(Box::new(InARow::new()));
        let first = take(row, 16, 8);
        assert_eq!(resize(row, first, 16, 4000), first);
        let second = take(row, 16, 8);
        // SAFETY: the block is this test's own, of 4000 bytes.
        unsafe { first.write(7) };
        let moved = resize(row, first, 4000, 4001);
        assert_ne!(moved, first, "there is a block behind it");
        // SAFETY: the block is this test's own, of 4001 bytes, the first of which was written.
        assert_eq!(unsafe { moved.read() }, 7);
        give_back(row, moved, 4001);
        give_back(row, second, 16);
        assert_eq!(take(row, 16, 8), second);
    }

    #[test]
    fn zeroed_blocks_are_zero_though_their_bytes_were_used_before() {
        let row = Box::leak(Box::new(InARow::new()));
        let used = take(row, 64, 8);
        // SAFETY: the block is this test's own, of 64 bytes.
        unsafe { used.write_bytes(7, 64) };
        give_back(row, used, 64);
        // SAFETY: the size is not 0.
        let zeroed = unsafe { row.alloc_zeroed(layout(64, 8)) };
        assert_eq!(zeroed, used);
        // SAFETY: the block is this test's own, of 64 bytes, all of them written.
        assert!(unsafe { std::slice::from_raw_parts(zeroed, 64) }.iter().all(|&byte| byte == 0));
    }

    /// C3. The relay's connections have large buffers, of which most use little.
    #[test]
    fn a_large_zeroed_block_takes_no_memory_before_it_is_used() {
        const LARGE: usize = 128 << 10;
        let row = Box::leak(Box::new(InARow::new()));
        take(row, SIZE, 8);
        // A huge page would be there as a whole once the C library's own words before the block are written.
        // SAFETY: numbers only.
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
        // SAFETY: the size is not 0.
        let block = unsafe { row.alloc_zeroed(layout(LARGE, 1)) };
        let first =
            std::ptr::NonNull::new(block.map_addr(|address| address.next_multiple_of(PAGE)).cast()).unwrap();
        let mut there = [0; LARGE / PAGE - 1];
        // SAFETY: whole pages within the block, and a byte for each of them.
        let asked = unsafe { libc::mincore(first.as_ptr(), LARGE - PAGE, there.as_mut_ptr()) };
        assert_eq!((asked, there), (0, [0; LARGE / PAGE - 1]));
    }

    #[test]
    fn what_does_not_fit_any_more_comes_from_the_c_library_and_goes_back_there() {
        let row = Box::leak(Box::new(InARow::new()));
        let (most, small, other) = (take(row, SIZE - 16, 8), take(row, 8, 8), take(row, 8, 8));
        assert_eq!(
            (row.offset(most), row.offset(small), row.offset(other)),
            (Some(0), Some(SIZE - 16), None)
        );
        let other = resize(row, other, 8, 1 << 20);
        assert!(!other.is_null());
        give_back(row, other, 1 << 20);
        assert_ne!(resize(row, small, 8, 17), small, "past the end of the row");
        assert_eq!(row.offset(take(row, 1, 2 * PAGE)), None, "aligned to more than the row is");
    }
}
