//! What a state file says leads to no panic in whoever reads it: a sweep must be able to go by it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netbox::apply::attach;
use netbox::plan::record::{BoxRecord, GatewayRecord};
use netbox::plan::{routing, ruleset};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = serde_json::from_slice::<BoxRecord>(bytes)
        && let Some(attachment) = record.attachment
    {
        let _ = attach::gateway_elements(&attachment, &record.id, &record.ports);
        let _ = attach::host_elements(&attachment, &record.ports);
    }
    if let Ok(record) = serde_json::from_slice::<GatewayRecord>(bytes) {
        let _ = ruleset::host(&record.topology, 8192);
        let _ = ruleset::gateway(&record.topology, 8192);
        let _ = routing::host_rules(&record.topology, &record.switched, &record.switched6);
        let _ = routing::host_routes(&record.topology);
        assert!(record.topology.host_link().len() < 16);
    }
});
