//! What `build.rs` says, with and without a repository, and when it has to run again.

use crate::tools::{Dir, has, root, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles the script.
fn built(dir: &Dir) -> PathBuf {
    let script = dir.path().join("script");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    run(Command::new(rustc)
        .args(["--edition", "2024", "-o"])
        .arg(&script)
        .arg(root().join("build.rs")));
    script
}

/// What it tells cargo for this source. It finds the variables of cargo, and these.
fn told(script: &Path, source: &Path, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(script);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command
        .env("CARGO_MANIFEST_DIR", source)
        .env("TARGET", "some-target")
        .env("PROFILE", "release");
    run(command.envs(variables.iter().copied()))
}

fn build(told: &str) -> &str {
    let start = "cargo::rustc-env=CLOUDBRIDGE_BUILD=";
    told.lines().find_map(|line| line.strip_prefix(start)).expect("what it was built from")
}

#[test]
fn a_tarball_has_no_commit_and_the_date_that_it_is_told() {
    let dir = Dir::new();
    let (script, source) = (built(&dir), dir.path().join("source"));
    std::fs::create_dir(&source).unwrap();
    let plain = told(&script, &source, &[]);
    let build_of = build(&plain);
    assert!(build_of.starts_with("unknown commit, rustc 1."), "{plain}");
    assert!(build_of.ends_with(", some-target, release, no features"), "{plain}");
    for (epoch, date) in [
        ("0", "1970-01-01"),
        ("951782399", "2000-02-28"),
        ("951782400", "2000-02-29"),
        ("1798761599", "2026-12-31"),
        ("4107542400", "2100-03-01"),
    ] {
        let told = told(&script, &source, &[("SOURCE_DATE_EPOCH", epoch)]);
        assert!(build(&told).starts_with(&format!("unknown commit of {date}, ")), "{told}");
    }
    let given = [
        ("CLOUDBRIDGE_COMMIT", "0123456789abcdef"),
        ("CARGO_FEATURE_B_C", "1"),
        ("CARGO_FEATURE_A", "1"),
    ];
    let given = told(&script, &source, &given);
    assert!(build(&given).starts_with("commit 0123456789ab, "), "{given}");
    assert!(build(&given).ends_with(", features a b-c"), "{given}");
    // The same, whenever it is.
    assert_eq!(plain, told(&script, &source, &[]));
}

#[test]
fn a_package_of_cargo_has_its_commit() {
    let dir = Dir::new();
    let script = built(&dir);
    let text =
        r#"{ "git": { "sha1": "89abcdef0123456789abcdef0123456789abcdef" }, "path_in_vcs": "" }"#;
    dir.write("source/.cargo_vcs_info.json", text);
    let told = told(&script, &dir.path().join("source"), &[]);
    assert!(build(&told).starts_with("commit 89abcdef0123, "), "{told}");
}

#[test]
fn a_repository_has_its_commit_and_what_changes_with_it() {
    if !has("git") {
        return;
    }
    let dir = Dir::new();
    let (script, source) = (built(&dir), dir.path().join("source"));
    let git = |words: &[&str]| {
        let names =
            ["-c", "user.name=a", "-c", "user.email=a@a.test", "-c", "commit.gpgsign=false"];
        let mut command = Command::new("git");
        command.arg("-C").arg(&source).args(names).args(words);
        run(command.env("GIT_COMMITTER_DATE", "2020-02-03T00:00:00Z"))
    };
    run(Command::new("git").args(["init", "--quiet", "--initial-branch=trunk"]).arg(&source));
    dir.write("source/file", "text");
    git(&["add", "file"]);
    git(&["commit", "--quiet", "-m", "first"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let told_now = told(&script, &source, &[]);
    assert!(
        build(&told_now).starts_with(&format!("commit {} of 2020-02-03, ", &commit[..12])),
        "{told_now}"
    );
    let debug = told(&script, &source, &[("PROFILE", "debug")]);
    assert!(build(&debug).starts_with("unknown commit, ") && !debug.contains(".git"), "{debug}");
    // A file that is missing would have cargo run it each time.
    let watched: Vec<&Path> = told_now
        .lines()
        .filter_map(|line| line.strip_prefix("cargo::rerun-if-changed="))
        .filter(|path| *path != "build.rs")
        .map(Path::new)
        .collect();
    assert!(watched.len() >= 3 && watched.iter().all(|path| path.exists()), "{watched:?}");
    // A folder in it that is no repository itself, as where a tarball was unpacked, is none.
    std::fs::create_dir(source.join("unpacked")).unwrap();
    let inside = told(&script, &source.join("unpacked"), &[]);
    assert!(build(&inside).starts_with("unknown commit, "), "{inside}");
}

#[test]
fn an_archive_of_git_has_its_commit() {
    if !has("git") || !has("tar") || !root().join(".git").exists() {
        println!("skipped: no repository");
        return;
    }
    let dir = Dir::new();
    let unpack =
        format!("git archive HEAD build.rs .gitattributes | tar -x -C {}", dir.path().display());
    let done = Command::new("sh").current_dir(root()).args(["-c", &unpack]).status().unwrap();
    assert!(done.success());
    let commit = run(Command::new("git").current_dir(root()).args(["rev-parse", "HEAD"]));
    let text = std::fs::read_to_string(dir.path().join("build.rs")).unwrap();
    assert!(text.contains(&format!("const ARCHIVED: &str = \"{} ", commit.trim())), "{text}");
}

#[test]
fn every_program_says_what_it_is() {
    for name in ["cloudbridge", "cloudbridge-agent", "cloudbridge-key"] {
        for flag in ["-v", "--version"] {
            let text = run(Command::new(crate::tools::programs().join(name)).arg(flag));
            let start = format!("{name} {} (", env!("CARGO_PKG_VERSION"));
            assert!(text.starts_with(&start) && text.ends_with(")\n"), "{text}");
            assert!(text.contains(", rustc 1.") && text.contains("commit"), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }
}
