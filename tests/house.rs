//! The rooms of the house depend on each other one way only.

use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms each room may use. Whoever adds to this table changes the house.
const MAY_USE: &[(&str, &[&str])] = &[
    ("backoff", &[]),
    ("http", &[]),
    ("time", &[]),
    ("bridge", &["http"]),
    ("config", &["bridge", "http"]),
    ("routing", &["time"]),
    ("net", &["time"]),
    ("exchange", &["http", "net", "time"]),
    ("process", &["net"]),
    ("import", &["config"]),
    (
        "proxy",
        &["backoff", "config", "exchange", "http", "routing", "process", "bridge", "net", "time"],
    ),
    ("client", &["backoff", "bridge"]),
    ("keytool", &["config", "bridge"]),
    ("agent", &["backoff", "client", "config", "exchange", "http", "bridge", "net", "time"]),
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

fn all_sources() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&root).unwrap();
            let first = inside.components().next().unwrap();
            let room = Path::new(first.as_os_str()).file_stem().unwrap();
            (room.to_str().unwrap().to_owned(), path.clone())
        })
        .collect()
}

/// The rooms that a line of code names by `crate::`.
fn rooms_named(line: &str) -> Vec<String> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect())
        .filter(|name: &String| !name.is_empty())
        .collect()
}

#[test]
fn a_room_uses_only_the_rooms_below_it() {
    let mut wrong = Vec::new();
    for (room, path) in all_sources() {
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else { continue };
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for (number, line) in code.enumerate() {
            for used in rooms_named(line) {
                let known = MAY_USE.iter().any(|(name, _)| *name == used);
                if known && used != room && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{}:{number}: {room} uses {used}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_has_its_row() {
    let outside = ["main", "lib", "bin"];
    for (room, path) in all_sources() {
        let known = MAY_USE.iter().any(|(name, _)| *name == room);
        assert!(known || outside.contains(&room.as_str()), "{} has no row", path.display());
    }
}

#[test]
fn unsafe_code_is_in_one_file() {
    for (_, path) in all_sources() {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let is_unsafe = code.into_iter().any(|line| line.contains("unsafe {"));
        assert_eq!(is_unsafe, path.ends_with("net/sys.rs"), "{}", path.display());
    }
}
