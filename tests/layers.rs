//! The layers of docs/architecture.md are those of the code.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test says what is wrong by failing")]

use std::fs;
use std::path::{Path, PathBuf};

const LONGEST: usize = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The layers, in order: the first column of the document's table.
fn layers() -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let table = text.split("\n| layer").nth(1).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').nth(1).unwrap().trim().to_owned()).collect()
}

/// Every Rust file below a folder: its path there, and its text.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let source = root().join(folder);
    let (mut found, mut folders) = (Vec::new(), vec![source.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(&source).unwrap().to_owned(), text));
            }
        }
    }
    assert!(found.len() > 50, "{} files", found.len());
    found
}

/// Those below src, without their tests.
fn sources() -> Vec<(PathBuf, String)> {
    let own = files("src").into_iter().filter(|(path, _)| !path.ends_with("tests.rs"));
    own.map(|(path, text)| {
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
        (path, code)
    })
    .collect()
}

/// The layer that a file belongs to: its folder, or its own name.
fn layer_of(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// The modules that a line of code names: `a` in `crate::a`, `a` and `b` in `crate::{a::x, b}`.
fn used(line: &str) -> Vec<String> {
    let name =
        |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut found = Vec::new();
    for rest in without_comment(line).split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => found.extend(list.split(',').map(|part| name(part.trim()))),
            None => found.push(name(rest)),
        }
    }
    found.retain(|module| !module.is_empty());
    found
}

#[test]
fn the_map_has_the_layers_in_their_order() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let modules: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(modules, layers());
}

#[test]
fn imports_go_to_earlier_layers_only() {
    let layers = layers();
    let place = |name: &str| layers.iter().position(|layer| layer == name);
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        let layer = layer_of(&path);
        // The binary and the map use them all.
        let Some(own) = place(&layer) else {
            assert!(["main", "lib"].contains(&layer.as_str()), "{layer} is no layer of docs/architecture.md");
            continue;
        };
        for (number, line) in code.lines().enumerate() {
            for module in used(line) {
                if place(&module).is_none_or(|other| other > own) {
                    wrong.push(format!("src/{}:{}: {layer} uses {module}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_is_in_the_kernel_layer_only() {
    for (path, code) in sources() {
        let has = code.lines().map(without_comment).any(|line| {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.any(|word| word == "unsafe")
        });
        assert!(!has || path.starts_with("kernel"), "src/{}", path.display());
    }
}

#[test]
fn only_the_report_prints() {
    for (path, code) in sources() {
        let prints = |line: &str| {
            ["print!(", "println!(", "dbg!("].iter().any(|macro_call| line.contains(macro_call))
                || (line.contains("write") && (line.contains("stdout()") || line.contains("stderr()")))
        };
        let has = code.lines().map(without_comment).any(prints);
        assert!(!has || path == Path::new("report.rs"), "src/{}", path.display());
    }
}

#[test]
fn the_tests_sleep_in_one_place() {
    let sleeping = ["thread", "time"].map(|module| format!("{module}::sleep"));
    for (path, text) in files("tests") {
        let has =
            text.lines().map(without_comment).any(|line| sleeping.iter().any(|call| line.contains(call)));
        assert_eq!(has, path == Path::new("support/lab/waiting.rs"), "tests/{}", path.display());
    }
}

/// Neither blank lines nor comments make a file too long.
fn lines_of_code(code: &str) -> usize {
    code.lines().filter(|line| !without_comment(line).trim().is_empty()).count()
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(path, code)| (path, lines_of_code(&code)))
        .filter(|(_, lines)| *lines > LONGEST)
        .collect();
    assert!(long.is_empty(), "more than {LONGEST} lines of code: {long:?}");
}
