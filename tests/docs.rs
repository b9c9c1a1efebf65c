//! What is written about netbox is what netbox is.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what is wrong by failing")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;

/// The promises that today's netbox makes. Each has a section of docs/security.md.
const PROMISES: [&str; 19] = [
    "R1", "R2", "R3", "N1", "N2", "N3", "N4", "I1", "I2", "I3", "I4", "I5", "I6", "L1", "L2", "L3", "C1",
    "C2", "C3",
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Rust files below a folder.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The options of every command, by the command's name: `-p`, `--publish`.
fn options(root: &Command) -> BTreeMap<String, BTreeSet<String>> {
    let of = |command: &Command| {
        let mut all = BTreeSet::new();
        for argument in command.get_arguments() {
            all.extend(
                argument.get_short_and_visible_aliases().unwrap_or_default().iter().map(|c| format!("-{c}")),
            );
            all.extend(
                argument.get_long_and_visible_aliases().unwrap_or_default().iter().map(|w| format!("--{w}")),
            );
        }
        // Said once, for all.
        for help in ["-h", "--help"] {
            all.remove(help);
        }
        all
    };
    let mut found = BTreeMap::from([("netbox".to_owned(), of(root))]);
    for command in root.get_subcommands() {
        let name = command.get_name().to_owned();
        let below = command.get_subcommands().filter(|below| name != "help" && below.get_name() != "help");
        let below: Vec<_> = below.collect();
        found.extend(below.iter().map(|verb| (format!("{name} {}", verb.get_name()), of(verb))));
        // One with a page of its own for them is in the overview as a whole, too.
        if below.is_empty() || PAGES.iter().any(|(page, _)| *page == name) {
            found.insert(name, of(command));
        }
    }
    found
}

/// The manual page of a command that has one of its own; every other is in [`OVERVIEW`].
const PAGES: [(&str, &str); 2] = [("run", "man/netbox-run.1"), ("network", "man/netbox-network.1")];

/// The manual page of netbox itself.
const OVERVIEW: &str = "man/netbox.1";

/// Every manual page: what its options belong to, and where it is.
fn pages() -> impl Iterator<Item = (&'static str, &'static str)> {
    [("netbox", OVERVIEW)].into_iter().chain(PAGES)
}

/// The options as a manual page has them: its `.It Fl` lines, in the overview by section, each of which is about a command.
fn documented(command: &str, page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = command.to_owned();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix(".Ss ").filter(|_| ["netbox", "network"].contains(&command)) {
            section = if command == "netbox" { name.to_owned() } else { format!("{command} {name}") };
            found.entry(section.clone()).or_default();
        } else if line.starts_with(".Sh ") {
            section = command.to_owned();
        } else if let Some(item) = line.strip_prefix(".It ") {
            let words: Vec<_> = item.split_whitespace().collect();
            let flags = words.windows(2).filter(|pair| pair[0] == "Fl").map(|pair| format!("-{}", pair[1]));
            let flags = flags.filter(|flag| flag != "-h" && flag != "--help");
            found.entry(section.clone()).or_default().extend(flags);
        }
    }
    found
}

#[test]
fn the_manual_pages_have_the_options_of_every_command_and_no_others() {
    let mut command = netbox::cli::command();
    command.build();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (command, page) in pages() {
        for (section, flags) in documented(command, &read(page)) {
            found.entry(section).or_default().extend(flags);
        }
    }
    assert_eq!(found, options(&command));
}

#[test]
fn the_manual_pages_say_something_about_every_option() {
    for (_, page) in pages() {
        let text = read(page);
        let lines: Vec<_> = text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[0].starts_with(".It Fl ")) {
            assert!(![".It", ".El"].iter().any(|end| pair[1].starts_with(end)), "{page}: {}", pair[0]);
        }
    }
}

/// The section of a manual page with this name.
fn section<'a>(page: &'a str, name: &str) -> &'a str {
    let rest = page.split_once(&format!("\n.Sh {name}\n")).unwrap_or_else(|| panic!("no section {name}")).1;
    rest.split("\n.Sh ").next().unwrap()
}

/// What a reader is to type: the lines after a prompt, those that go on in the next one as one line.
fn examples(page: &str) -> Vec<String> {
    let lines = section(page, "EXAMPLES").lines();
    let typed =
        lines.filter_map(|line| ["# ", "$ ", "> "].iter().find_map(|prompt| line.strip_prefix(prompt)));
    // A backslash is `\e` to roff.
    let whole = typed.collect::<Vec<_>>().join("\n").replace("\\e\n", " ");
    whole.lines().map(str::to_owned).collect()
}

/// The command line of netbox's that is part of a line for a shell, with `true` in the place of the box's command.
fn command_line(line: &str) -> Option<Vec<OsString>> {
    let (_, rest) = line.split_once("netbox ")?;
    let (own, end): (_, &[&str]) = match rest.split_once(" -- ") {
        Some((own, _)) => (own, &["--", "true"]),
        None => (rest.split(['|', '&', ';', '>']).next()?, &[]),
    };
    // A variable is some word, and quotes are the shell's.
    let words = own.split_whitespace().map(|word| word.replace(['$', '\''], ""));
    Some(
        ["netbox".into()]
            .into_iter()
            .chain(words.map(OsString::from))
            .chain(end.iter().map(OsString::from))
            .collect(),
    )
}

#[test]
fn the_examples_of_the_manual_pages_are_command_lines() {
    for (_, page) in pages() {
        let lines = examples(&read(page));
        let found: Vec<_> = lines.iter().filter_map(|line| command_line(line)).collect();
        assert!(found.len() >= 2, "{page} has few examples");
        for arguments in found {
            if let Err(stop) = netbox::cli::parse(arguments.clone()) {
                panic!("{page}: {arguments:?}: {}", stop.text);
            }
        }
    }
}

#[test]
fn the_manual_pages_refer_to_pages_that_exist_and_to_each_other() {
    for (_, page) in pages() {
        let text = read(page);
        let references: BTreeSet<_> =
            text.lines().filter_map(|line| line.strip_prefix(".Xr netbox")).collect();
        for reference in references {
            let words: Vec<_> = reference.split_whitespace().collect();
            let (name, number) = match words[..] {
                // `.Xr netbox 1`
                [number, ..] if number.parse::<u8>().is_ok() => ("", number),
                [name, number, ..] => (name, number),
                _ => panic!("{page}: .Xr netbox{reference}"),
            };
            let path = format!("man/netbox{name}.{number}");
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path).exists(), "{page} refers to {path}");
        }
        for (_, other) in pages().filter(|(_, other)| *other != page) {
            let name = other.trim_start_matches("man/").replace('.', " ");
            assert!(section(&text, "SEE ALSO").contains(&format!(".Xr {name}")), "{page} lacks {name}");
        }
    }
    let readme = read("README.md");
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).unwrap() {
        let path = format!("man/{}", file.unwrap().file_name().to_string_lossy());
        assert!(pages().any(|(_, page)| page == path), "{path} is no page that is looked at here");
        assert!(readme.contains(&path), "README.md does not name {path}");
    }
}

#[test]
fn the_manual_page_has_the_exit_statuses_and_the_variables() {
    let page = read("man/netbox-run.1");
    for status in ["2", "124", "125", "126", "127"] {
        let item = format!("\n.It {status}\n");
        assert!(page.contains(&item) && read(OVERVIEW).contains(&item), "{status}");
    }
    for name in ["ID", "NAME", "IPV4", "IPV6", "GATEWAY"] {
        assert!(page.contains(&format!(".It Ev NETBOX_{name}\n")), "NETBOX_{name}");
    }
}

/// The names of the fields of a JSON value, less those that are not netbox's: of nft's form, and of variables.
/// The text of a source as the compiler sees its strings: continued lines put together.
fn with_whole_strings(source: &str) -> String {
    source
        .split("\\\n")
        .map(str::trim_start)
        .collect::<Vec<_>>()
        .join("")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The parts of a message that are the same whatever it is about: at least two words in a row without a number, a name or an
/// address of the example.
fn constant_parts(message: &str) -> Vec<String> {
    const EXAMPLES: [&str; 6] = ["web", "db", "web:", "nat", "jobb:", "..."];
    let is_example = |word: &&str| {
        EXAMPLES.contains(word)
            || word.starts_with(['-', '/', '.', '"', '('])
            || word.contains(|c: char| c.is_ascii_digit() || c == '_')
    };
    let mut parts = vec![Vec::new()];
    for word in message.split_whitespace() {
        if is_example(&word) {
            // Who it is about may be a box or a process.
            if let Some(part) = parts.last_mut() {
                part.pop_if(|last| *last == "box");
            }
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(word.trim_end_matches(':'));
            // What comes after a colon is written down elsewhere.
            if word.ends_with(':') {
                parts.push(Vec::new());
            }
        }
    }
    parts.into_iter().filter(|part| part.len() >= 2).map(|part| part.join(" ")).collect()
}

#[test]
fn the_diagnostics_of_the_manual_page_are_what_netbox_says() {
    let all: Vec<_> =
        sources("src").iter().map(|path| with_whole_strings(&fs::read_to_string(path).unwrap())).collect();
    // What the kernel says is told in small letters.
    let errors = (1..133).map(|errno| nix::errno::Errno::from_raw(errno).desc().to_lowercase());
    let all: Vec<_> = all.into_iter().chain(errors).collect();
    let page = read("man/netbox-run.1");
    let messages: Vec<_> =
        section(&page, "DIAGNOSTICS").lines().filter_map(|line| line.strip_prefix(".It ")).collect();
    assert!(messages.len() > 10, "{messages:?}");
    for message in messages {
        let text = message.trim_matches('"').replace("\"\"", "\"");
        let parts = constant_parts(&text);
        assert!(!parts.is_empty(), "nothing of {text:?} can be looked for");
        for part in parts {
            assert!(
                all.iter().any(|source| source.contains(&part)),
                "netbox never says {part:?}, as in {text:?}"
            );
        }
    }
}

fn fields(value: &serde_json::Value, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                found.insert(name.clone());
                if name != "nftables" && name != "set" {
                    fields(value, found);
                }
            }
        }
        serde_json::Value::Array(array) => array.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

#[test]
fn the_manual_page_has_every_field_of_the_plan() {
    let golden = read("tests/plan/run.json.txt");
    // The rules follow, in another form.
    let mut plan = serde_json::Deserializer::from_str(&golden).into_iter::<serde_json::Value>();
    let mut found = BTreeSet::new();
    fields(&plan.next().unwrap().unwrap(), &mut found);
    let page = read("man/netbox-run.1");
    let words: BTreeSet<_> = [section(&page, "DRY RUN"), section(&page, "STATUS MESSAGES")]
        .iter()
        .flat_map(|text| text.lines().filter(|line| line.contains("Cm ")))
        .flat_map(str::split_whitespace)
        .collect();
    let missing: Vec<_> = found.iter().filter(|name| !words.contains(name.as_str())).collect();
    assert!(missing.is_empty() && found.len() > 20, "not documented: {missing:?}");
}

/// `module::test` for every test: a function after `#[test]`, or named in `live_tests!`.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in sources("tests").into_iter().chain(sources("src")) {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let module = match stem.as_str() {
            "mod" | "tests" | "main" => {
                path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned()
            }
            _ => stem,
        };
        let text = fs::read_to_string(&path).unwrap();
        let mut is_next = false;
        for line in text.lines().map(str::trim) {
            if line == "#[test]" {
                is_next = true;
            } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_next) {
                found.insert(format!("{module}::{}", rest.split('(').next().unwrap()));
                is_next = false;
            }
        }
        if let Some((_, list)) = text.split_once("\nlive_tests![") {
            let list = list.split_once(']').unwrap().0;
            // `within LIMIT;` may stand before the names.
            let list = list.split_once(';').map_or(list, |(_, names)| names);
            let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
            found.extend(names.map(|name| format!("{module}::{name}")));
        }
    }
    found
}

/// The sections of docs/security.md that are about a promise, by its number.
fn promises() -> BTreeMap<String, String> {
    let text = read("docs/security.md");
    let sections = text.split("\n### ").skip(1).map(|section| {
        let section = section.split("\n## ").next().unwrap();
        (section.split_whitespace().next().unwrap().to_owned(), section.to_owned())
    });
    sections.collect()
}

/// What stands in backquotes and has the form of a test's name.
fn cited(text: &str) -> Vec<&str> {
    let is_name = |word: &str| {
        word.split_once("::").is_some_and(|(module, test)| {
            let plain =
                |part: &str| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            !module.is_empty() && !test.is_empty() && plain(module) && plain(test)
        })
    };
    text.split('`').skip(1).step_by(2).filter(|word| is_name(word)).collect()
}

#[test]
fn the_security_document_cites_tests_that_exist() {
    let (text, tests) = (read("docs/security.md"), tests());
    let missing: Vec<_> = cited(&text).into_iter().filter(|name| !tests.contains(*name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn the_security_document_has_every_promise_with_its_test() {
    let promises = promises();
    let numbers: Vec<_> = promises.keys().map(String::as_str).collect();
    let expected: BTreeSet<_> = PROMISES.into_iter().collect();
    assert_eq!(numbers, expected.into_iter().collect::<Vec<_>>());
    for (number, section) in promises {
        // The cost is measured, by benches, and not tested.
        assert!(number.starts_with('C') || !cited(&section).is_empty(), "{number} names no test");
        assert!(section.contains("Not promised:"), "{number} does not say what is not promised");
    }
}

#[test]
fn the_readme_points_at_files_that_exist() {
    let text = read("README.md");
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    for link in links.filter(|link| !link.starts_with("http")) {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(link).exists(), "{link}");
    }
    assert!(text.lines().count() <= 80, "the README is one screen");
}

#[test]
fn the_completions_are_those_of_the_command_line() {
    for (name, text) in completions::all() {
        let path = format!("packaging/completions/{name}");
        assert!(read(&path) == text, "{path} is old: cargo run --example completions");
    }
}

#[path = "../examples/completions.rs"]
#[allow(dead_code, reason = "its main is not for here")]
mod completions;
