//! Runs every input of `tests/fuzz/corpus` again.
#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{TARGETS, run};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Says which input it was, if a check fails.
struct Name<'a>(&'a Path);

impl Drop for Name<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with {}", self.0.display());
        }
    }
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = folder().join("corpus").join(target);
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_has_a_program_and_inputs() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder().join("targets")), targets);
    assert_eq!(names(&folder().join("corpus")), targets);
    for target in &targets {
        assert!(!inputs(target).is_empty(), "{target} has none");
    }
}

#[test]
fn nothing_in_the_corpus_breaks_its_target() {
    for (target, _) in TARGETS {
        for file in inputs(target) {
            let _name = Name(&file);
            run(target, &fs::read(&file).unwrap());
        }
    }
}

#[test]
fn inputs_may_end_anywhere() {
    for (target, _) in TARGETS.iter().filter(|(name, _)| *name != "exchange") {
        for file in inputs(target) {
            let _name = Name(&file);
            let bytes = fs::read(&file).unwrap();
            let step = bytes.len() / 64 + 1;
            (0..bytes.len()).step_by(step).for_each(|end| run(target, &bytes[..end]));
        }
    }
}
