//! Writes the shell completions to packaging/completions: `cargo run --example completions`.

use std::path::Path;

use clap_complete::Shell;

/// Each file's name and text.
pub(crate) fn all() -> [(&'static str, String); 3] {
    [("netbox.bash", Shell::Bash), ("_netbox", Shell::Zsh), ("netbox.fish", Shell::Fish)].map(
        |(name, shell)| {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut netbox::cli::command(), "netbox", &mut text);
            (name, String::from_utf8_lossy(&text).into_owned())
        },
    )
}

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/completions");
    std::fs::create_dir_all(&folder)?;
    all().iter().try_for_each(|(name, text)| std::fs::write(folder.join(name), text))
}
