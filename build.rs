//! Says what the programs are built from, for `--version`: commit, date, compiler, target and features.
//!
//! Everything is read from the source tree and the environment, and no clock, so that the same source
//! gives the same programs. The date is the commit's, or that of `SOURCE_DATE_EPOCH`
//! (<https://reproducible-builds.org/specs/source-date-epoch/>). `CLOUDBRIDGE_COMMIT` names the commit
//! where the source has no repository, as in a container. It runs again when the commit, one of these
//! variables or this file changes, and otherwise not. A debug build does not ask for the commit: everything
//! would be compiled again after each.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Commit and date, as `git archive` writes them here: see `.gitattributes`.
const ARCHIVED: &str = "$Format:%H %cs$";

/// Digits of a commit: enough to be the only one.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-env-changed=CLOUDBRIDGE_COMMIT");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let (commit, date) = source(&root);
    let date = env::var("SOURCE_DATE_EPOCH").ok().and_then(|at| day(at.parse().ok()?)).or(date);
    let mut parts = vec![match (commit, date) {
        (Some(commit), Some(date)) => format!("commit {commit} of {date}"),
        (Some(commit), None) => format!("commit {commit}"),
        (None, Some(date)) => format!("unknown commit of {date}"),
        (None, None) => "unknown commit".to_owned(),
    }];
    parts.extend(compiler());
    parts.extend(env::var("TARGET"));
    parts.extend(env::var("PROFILE"));
    parts.push(features());
    println!("cargo::rustc-env=CLOUDBRIDGE_BUILD={}", parts.join(", "));
}

/// The commit of the tree and its date, as far as they are known.
fn source(root: &Path) -> (Option<String>, Option<String>) {
    let words = |text: &str| {
        let mut words = text.split_whitespace();
        let commit = words.next().map(|commit| commit.get(..DIGITS).unwrap_or(commit));
        (commit.map(str::to_owned), words.next().map(str::to_owned))
    };
    if let Some(commit) = env::var("CLOUDBRIDGE_COMMIT").ok().filter(|commit| !commit.is_empty()) {
        return words(&commit);
    }
    // Not the repository of a folder above, in which a tarball may have been unpacked.
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if root.join(".git").exists() {
        if !is_release {
            return (None, None);
        }
        watch(root);
        let last = git(root, &["log", "-1", "--format=%H %cs"]);
        return last.map_or((None, None), |text| words(&text));
    }
    // A package of cargo.
    let packaged = root.join(".cargo_vcs_info.json");
    if let Ok(text) = fs::read_to_string(&packaged) {
        println!("cargo::rerun-if-changed={}", packaged.display());
        let digits = text.split("\"sha1\"").nth(1).and_then(|rest| rest.split('"').nth(1));
        return (digits.and_then(|digits| digits.get(..DIGITS)).map(str::to_owned), None);
    }
    if ARCHIVED.starts_with('$') { (None, None) } else { words(ARCHIVED) }
}

/// Has cargo run this again when another commit is checked out or made.
fn watch(root: &Path) {
    let mut names = vec!["HEAD".to_owned(), "logs/HEAD".to_owned(), "packed-refs".to_owned()];
    names.extend(git(root, &["symbolic-ref", "--quiet", "HEAD"]));
    for name in names {
        let Some(path) = git(root, &["rev-parse", "--git-path", &name]) else { continue };
        let path = root.join(path);
        // A file that is missing would make every build run this.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}

/// What git prints; `None` if it is not installed, or fails.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let done = Command::new("git").current_dir(root).args(arguments).output().ok()?;
    let text = String::from_utf8(done.stdout).ok()?;
    (done.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// `rustc 1.95.0`.
fn compiler() -> Option<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text =
        String::from_utf8(Command::new(rustc).arg("--version").output().ok()?.stdout).ok()?;
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    (words.len() == 2).then(|| words.join(" "))
}

/// `features a, b`, in the order of the alphabet.
fn features() -> String {
    let mut names: Vec<String> = env::vars()
        .filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_lowercase()))
        .filter(|name| name != "default")
        .map(|name| name.replace('_', "-"))
        .collect();
    names.sort();
    if names.is_empty() {
        "no features".to_owned()
    } else {
        format!("features {}", names.join(" "))
    }
}

/// The day of a Unix time, such as `2026-11-26`, by the civil calendar in UTC. By hand, because a crate
/// for it would be compiled a second time, for this alone.
fn day(seconds: i64) -> Option<String> {
    // Days are counted from 0000-03-01, so that a leap day is the last of its year.
    let days = seconds.div_euclid(86_400).checked_add(719_468)?;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) =
        (era * 400 + year + i64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 });
    Some(format!("{year:04}-{month:02}-{day:02}"))
}
