//! A port spec means the ports that it names, or is refused with 2; merged with itself it means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netbox::spec::{PublishSpec, merge};

fuzz_target!(|text: &str| {
    match text.parse::<PublishSpec>() {
        Ok(spec) => {
            let requests = spec.requests();
            assert!(!requests.is_empty(), "{text:?}");
            if let Ok(merged) = merge(&[spec.clone()]) {
                assert_eq!(Ok(merged), merge(&[spec.clone(), spec]), "{text:?}");
            }
        }
        Err(error) => assert_eq!(error.exit_status(), 2, "{text:?}: {error}"),
    }
});
