//! Whatever is typed is a request, or is refused with help, version, or 2.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;
use netbox::cli;

fuzz_target!(|bytes: &[u8]| {
    let typed = bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let words = std::iter::once(OsString::from("netbox")).chain(typed);
    if let Err(stop) = cli::parse(words) {
        assert!(stop.status == 2 || (stop.status == 0 && stop.to_stdout), "{}", stop.text);
        assert!(!stop.text.is_empty());
    }
});
