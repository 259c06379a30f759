//! The shape of the house: who may import whom, and what the pure crates may not touch.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate with the crates of the workspace it may depend on.
const IMPORTS: &[(&str, &[&str])] = &[
    ("node/causal", &[]),
    ("node/storage", &[]),
    ("proto", &[]),
    ("node/core", &["meridian-causal", "meridian-storage"]),
    ("client", &["meridian-proto"]),
    (
        "node",
        &[
            "meridian-causal",
            "meridian-storage",
            "meridian-core",
            "meridian-proto",
            "meridian-client",
        ],
    ),
    ("cli", &["meridian-client"]),
];

/// Crates that may import anything.
const FREE: &[&str] = &["chaos", "benches"];

/// Crates without clocks, threads, sockets, a runtime or chance of their own.
const PURE: &[&str] = &["node/core", "node/causal"];

/// Words that no line of code of a pure crate holds.
const FORBIDDEN_WORDS: &[&str] = &[
    "tokio",
    "Instant",
    "SystemTime",
    "std::thread",
    "thread::",
    "std::net",
    "HashMap",
    "HashSet",
    "rand::rng",
    "thread_rng",
    "std::env",
    "std::fs",
    "std::process",
    "OsRng",
    "getrandom",
    ".await",
];

/// Dependencies that no pure crate declares.
const FORBIDDEN_CRATES: &[&str] = &[
    "tokio",
    "tonic",
    "futures",
    "async-trait",
    "getrandom",
    "mio",
    "socket2",
    "chrono",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn manifest(of: &str) -> toml::Table {
    fs::read_to_string(root().join(of).join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap()
}

/// Names under the given sections of a manifest.
fn dependencies(of: &str, sections: &[&str]) -> Vec<String> {
    let manifest = manifest(of);
    let tables = sections
        .iter()
        .filter_map(|section| manifest.get(*section)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Lines of code that hold a forbidden word; comments may name what is not used.
fn offences(file: &str, text: &str) -> Vec<String> {
    let code = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"));
    let found = code.filter_map(|(number, line)| {
        let line = line.split("//").next().unwrap_or(line);
        let word = FORBIDDEN_WORDS.iter().find(|word| holds(line, word))?;
        Some(format!("{file}:{}: {word}: {}", number + 1, line.trim()))
    });
    found.collect()
}

/// Whether a line holds a word, not as part of a longer one.
fn holds(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        let after = line
            .get(at + word.len()..)
            .and_then(|after| after.chars().next());
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !(part(before) && word.starts_with(char::is_alphanumeric)
            || part(after) && word.ends_with(char::is_alphanumeric))
    })
}

#[test]
fn pure_crates_have_no_clock_thread_socket_runtime_or_chance_of_their_own() {
    let mut found = Vec::new();
    for name in PURE {
        let mut files = Vec::new();
        sources(&root().join(name).join("src"), &mut files);
        assert!(!files.is_empty(), "{name} has sources");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            found.extend(offences(&file.display().to_string(), &text));
        }
    }
    assert!(
        found.is_empty(),
        "forbidden in pure crates:\n{}",
        found.join("\n")
    );
}

#[test]
fn pure_crates_declare_no_runtime() {
    for name in PURE {
        for dependency in dependencies(name, &["dependencies", "build-dependencies"]) {
            assert!(
                !FORBIDDEN_CRATES.contains(&dependency.as_str()),
                "{name} depends on {dependency}"
            );
        }
    }
}

#[test]
fn crates_import_only_what_stands_below_them() {
    for (name, allowed) in IMPORTS {
        for dependency in dependencies(name, &["dependencies", "build-dependencies"]) {
            let own = dependency.starts_with("meridian-");
            assert!(
                !own || allowed.contains(&dependency.as_str()),
                "{name} must not import {dependency}"
            );
        }
    }
}

#[test]
fn every_crate_of_the_workspace_has_its_place() {
    let manifest = manifest(".");
    let members = manifest
        .get("workspace")
        .unwrap()
        .get("members")
        .unwrap()
        .as_array()
        .unwrap();
    let placed: BTreeSet<&str> = IMPORTS
        .iter()
        .map(|(name, _)| *name)
        .chain(FREE.iter().copied())
        .collect();
    for member in members {
        let member = member.as_str().unwrap();
        assert!(
            placed.contains(member),
            "{member} has no place in the direction of imports"
        );
    }
    assert_eq!(members.len(), placed.len());
}

#[test]
fn a_forbidden_word_is_found_in_code_and_not_in_comments_or_longer_words() {
    assert_eq!(offences("f", "let t = Instant::now();").len(), 1);
    assert_eq!(offences("f", "use std::collections::HashMap;").len(), 1);
    assert_eq!(offences("f", "let mut rng = rand::rng();").len(), 1);
    assert!(offences("f", "// no Instant here\nlet x = 1; // nor SystemTime").is_empty());
    assert!(offences("f", "use rand::rngs::StdRng;").is_empty());
}
