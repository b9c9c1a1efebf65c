//! The plan for people.

use std::fmt::{self, Write};

use super::{RunPlan, Step, box_steps, bridge_rules, gateway_rules, gateway_steps, host_rules, namespaces};
use crate::plan::privileges::OF_ROOT;
use crate::plan::ruleset;
use crate::plan::topology::{Topology, box_link};
use crate::spec::capability::Capabilities;
use crate::spec::host_port::{HOST_NAME, HostPortSpec};

/// The plan: the steps in their order, then both rulesets, then the command.
#[must_use]
pub fn to_text(plan: &RunPlan<'_>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail: fmt::Error only comes from the sink.
    let _ = write_plan(&mut text, plan);
    text
}

fn write_plan(out: &mut String, plan: &RunPlan<'_>) -> fmt::Result {
    if let Some((gateway, _)) = &plan.attached {
        writeln!(out, "# the gateway: a network namespace between boxes and host, made with the first box")?;
        if let Some(reason) = &gateway.without_ipv6 {
            writeln!(out, "# no IPv6: {reason}")?;
        }
        write_steps(out, &gateway_steps(gateway))?;
        writeln!(out, "# the box: its id and its addresses are examples")?;
    }
    write_steps(out, &box_steps(plan))?;
    if let Some((gateway, one)) = &plan.attached {
        let (address, resolver) = (one.link.address, Topology::resolver_address(one.attachment.slot));
        writeln!(
            out,
            "# the resolver: {resolver} port 53 in the gateway, for {} alone",
            box_link(one.id, 0)
        )?;
        for port in &plan.request.host_ports {
            let HostPortSpec { protocol, host_port, box_port } = port;
            writeln!(
                out,
                "# {HOST_NAME}:{box_port}/{protocol} ({resolver}) of the box, relayed to 127.0.0.1:{host_port} of the host"
            )?;
        }
        for port in one.ports {
            writeln!(out, "# {port} of {address}")?;
        }
        for (place, (tables, elements)) in
            [("on the host", host_rules(gateway, one)), ("in the gateway", gateway_rules(gateway, one))]
        {
            writeln!(out, "# RULES {place}\n{}", ruleset::to_text(&tables, &elements))?;
        }
        if let Some((tables, elements)) = bridge_rules(one) {
            writeln!(out, "# BRIDGE-RULES in the gateway\n{}", ruleset::to_text(&tables, &elements))?;
        }
    }
    write_command(out, plan)
}

fn write_steps(out: &mut String, steps: &[Step]) -> fmt::Result {
    steps.iter().try_for_each(|step| writeln!(out, "{}", step.command))
}

/// Who the command runs as, in which namespaces, and what it runs.
fn write_command(out: &mut String, plan: &RunPlan<'_>) -> fmt::Result {
    let (identity, privileges) = (plan.identity, plan.privileges);
    let rights = match privileges.held {
        Capabilities::NONE => "no capabilities".to_owned(),
        OF_ROOT => "Docker's default capabilities less NET_RAW and MKNOD".to_owned(),
        other => other.to_string(),
    };
    let gain = if privileges.may_gain { "without no_new_privs" } else { "with no_new_privs" };
    writeln!(out, "# as user {}, group {}, with {rights}, {gain}", identity.uid, identity.gid)?;
    let kinds: Vec<_> = namespaces(plan).iter().map(|(name, _)| *name).collect();
    if !kinds.is_empty() {
        writeln!(out, "# namespaces of its own: {}", kinds.join(", "))?;
    }
    if plan.request.command.is_empty() {
        return writeln!(out, "# no command: the box waits for SIGTERM");
    }
    let words: Vec<_> = plan.request.command.iter().map(|word| word.to_string_lossy()).collect();
    // Shown, where it would drive a terminal.
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    writeln!(out, "exec {}", words.join(" ").chars().map(shown).collect::<String>())
}
