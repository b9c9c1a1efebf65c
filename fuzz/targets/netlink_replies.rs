//! Whatever bytes come out of a netlink socket, they are read to their end or left.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| netbox::kernel::fuzzing::replies(bytes));
