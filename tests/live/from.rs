//! docs/from-ip-netns-and-docker.md: its lines work.

use std::process::{Command, Stdio};

use crate::lab::{Lab, NETBOX, Shape, live_tests, use_names, words};

live_tests![the_lines_of_the_document_work];

/// The blocks of code, each as its lines.
fn blocks(document: &str) -> Vec<String> {
    document.split("```\n").skip(1).step_by(2).map(str::to_owned).collect()
}

fn the_lines_of_the_document_work() {
    let blocks = blocks(include_str!("../../docs/from-ip-netns-and-docker.md"));
    assert_eq!(blocks.len(), 3, "{blocks:?}");
    let lab = Lab::before(Shape::OwnLan, use_names);
    for block in blocks {
        assert!(block.lines().filter(|line| line.starts_with("netbox ")).count() >= 5, "{block}");
        let lines = block.lines().map(|line| match line.strip_prefix("netbox ") {
            Some(rest) => format!("{NETBOX} {rest}\n"),
            None => format!("{line}\n"),
        });
        // What goes on in the background ends with the block.
        let script = format!(
            "set -ex\ntrap 'for job in $(jobs -p); do kill $job; done' EXIT\n{}",
            lines.collect::<String>()
        );
        let mut command = Command::new("bash");
        command.args(["-c", &script]).stdin(Stdio::null());
        for variable in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
            command.env_remove(variable);
        }
        let output = command.output().expect("a shell");
        assert!(output.status.success(), "{}", words(&output));
    }
    drop(lab);
}
