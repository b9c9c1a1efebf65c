//! Every step fails once. `NETBOX_KILL=all` tries every point with every error, else a choice.

use std::time::Duration;

use crate::lab::live_tests;

live_tests![within Duration::from_secs(3600);];
