//! `make install` and `make uninstall`, and what packages are made of.

use crate::tools::{Dir, has, programs, root, run, source};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn make(dir: &Dir, target: &str, prefix: &str) -> String {
    let set = |name: &str, value: &dyn std::fmt::Display| format!("{name}={value}");
    let mut command = Command::new("make");
    command.current_dir(root()).args(["--silent", target]);
    command.arg(set("DESTDIR", &dir.path().display())).arg(set("PREFIX", &prefix));
    run(command.arg(set("BIN", &programs().display())))
}

/// Every file below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn names(dir: &Dir) -> Vec<String> {
    let name = |path: PathBuf| path.strip_prefix(dir.path()).unwrap().display().to_string();
    files(dir.path()).into_iter().map(name).collect()
}

#[test]
fn everything_is_installed_and_taken_away() {
    if !has("make") {
        return;
    }
    let dir = Dir::new();
    make(&dir, "install", "/usr/local");
    let found = names(&dir);
    let (pages, others): (Vec<&str>, Vec<&str>) =
        found.iter().map(String::as_str).partition(|name| name.contains("/cloudbridge/doc/"));
    assert!(pages.contains(&"usr/local/share/doc/cloudbridge/doc/systemd.md"), "{pages:?}");
    assert_eq!(
        others,
        [
            "etc/cloudbridge/cloudbridge.conf",
            "etc/logrotate.d/cloudbridge",
            "usr/local/bin/cloudbridge",
            "usr/local/bin/cloudbridge-agent",
            "usr/local/bin/cloudbridge-key",
            "usr/local/lib/systemd/system/cloudbridge-agent@.service",
            "usr/local/lib/systemd/system/cloudbridge.service",
            "usr/local/lib/systemd/system/cloudbridge.socket",
            "usr/local/lib/sysusers.d/cloudbridge.conf",
            "usr/local/lib/tmpfiles.d/cloudbridge.conf",
            "usr/local/share/bash-completion/completions/cloudbridge",
            "usr/local/share/bash-completion/completions/cloudbridge-agent",
            "usr/local/share/bash-completion/completions/cloudbridge-key",
            "usr/local/share/doc/cloudbridge/README.md",
            "usr/local/share/doc/cloudbridge/examples/agent.conf",
            "usr/local/share/doc/cloudbridge/examples/cloudbridge.conf",
            "usr/local/share/doc/cloudbridge/examples/sysctl.conf",
            "usr/local/share/fish/vendor_completions.d/cloudbridge-agent.fish",
            "usr/local/share/fish/vendor_completions.d/cloudbridge-key.fish",
            "usr/local/share/fish/vendor_completions.d/cloudbridge.fish",
            "usr/local/share/man/man1/cloudbridge-agent.1",
            "usr/local/share/man/man1/cloudbridge-key.1",
            "usr/local/share/man/man1/cloudbridge.1",
            "usr/local/share/man/man5/cloudbridge.conf.5",
            "usr/local/share/zsh/site-functions/_cloudbridge",
            "usr/local/share/zsh/site-functions/_cloudbridge-agent",
            "usr/local/share/zsh/site-functions/_cloudbridge-key",
        ]
    );
    for path in files(dir.path()) {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let expected = if path.parent().unwrap().ends_with("bin") { 0o755 } else { 0o644 };
        assert_eq!(mode, expected, "{}", path.display());
    }
    let program = dir.path().join("usr/local/bin/cloudbridge");
    assert!(run(Command::new(program).arg("--version")).starts_with("cloudbridge "));

    // The operator's settings outlive another installation, and the programs' end.
    let settings = dir.write("etc/cloudbridge/cloudbridge.conf", "listen *:1\n");
    let said = make(&dir, "install", "/usr/local");
    assert!(
        said.contains("etc/cloudbridge/cloudbridge.conf is there, and stays as it is"),
        "{said}"
    );
    assert_eq!(names(&dir), found);
    assert_eq!(fs::read_to_string(&settings).unwrap(), "listen *:1\n");
    make(&dir, "uninstall", "/usr/local");
    assert_eq!(names(&dir), ["etc/cloudbridge/cloudbridge.conf", "etc/logrotate.d/cloudbridge"]);
    assert!(!dir.path().join("usr/local/share/doc/cloudbridge").exists());
}

#[test]
fn units_run_the_programs_of_their_prefix() {
    if !has("make") {
        return;
    }
    for (prefix, etc) in [("/usr", "/etc"), ("/opt/bridge", "/opt/bridge/etc")] {
        let dir = Dir::new();
        make(&dir, "install", prefix);
        for unit in ["cloudbridge.service", "cloudbridge-agent@.service"] {
            let path = format!("{}/{prefix}/lib/systemd/system/{unit}", dir.path().display());
            let text = fs::read_to_string(path).unwrap();
            assert!(!text.contains("/usr/local"), "{text}");
            assert!(text.contains(&format!("\nExecStart={prefix}/bin/cloudbridge")), "{text}");
            assert!(text.contains(&format!(" -c {etc}/cloudbridge")), "{text}");
        }
        let settings = dir.path().join(&etc[1..]).join("cloudbridge/cloudbridge.conf");
        assert!(settings.exists(), "{}", settings.display());
    }
}

#[test]
fn what_has_not_been_built_is_not_installed() {
    if !has("make") {
        return;
    }
    let dir = Dir::new();
    let mut command = Command::new("make");
    command.current_dir(root()).args(["--silent", "install", "BIN=/nonexistent"]);
    let output = command.arg(format!("DESTDIR={}", dir.path().display())).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("run make first"), "{said}");
    assert_eq!(names(&dir), [""; 0]);
}

#[test]
fn packaged_settings_are_good() {
    for name in ["packaging/cloudbridge.conf", "packaging/container.conf"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
        run(command.arg("-t").arg("-c").arg(root().join(name)));
        // The lines that somebody may use are good, too.
        let text = source(name)
            .replace("\n#access-log", "\naccess-log")
            .replace("\n#secrets", "\nsecrets");
        let dir = Dir::new();
        let secrets = dir.path().join("secrets").display().to_string();
        run(Command::new(env!("CARGO_BIN_EXE_cloudbridge-key")).args(["add", &secrets]));
        let text = text.replace("/etc/cloudbridge/secrets", &secrets);
        let text = text.replace("/var/log/cloudbridge", &dir.path().display().to_string());
        let file = dir.write("conf", &text);
        run(Command::new(env!("CARGO_BIN_EXE_cloudbridge")).arg("-t").arg("-c").arg(file));
    }
}

#[test]
fn all_packages_are_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let first = source("packaging/debian/changelog").lines().next().unwrap().to_owned();
    assert!(first.starts_with(&format!("cloudbridge ({version}-")), "{first}");
    let changelog = source("CHANGELOG.md");
    let sections: Vec<&str> = changelog.lines().filter(|line| line.starts_with("## ")).collect();
    assert_eq!(sections[0], "## Unreleased");
    assert!(sections[1].starts_with(&format!("## {version} ")), "{sections:?}");
    for (file, line) in [
        ("src/clients/node/cloudbridge.js", format!("const VERSION = '{version}';")),
        ("src/clients/python/cloudbridge.py", format!("VERSION = \"{version}\"")),
        ("src/clients/ruby/cloudbridge.rb", format!("VERSION = '{version}'")),
    ] {
        assert!(source(file).contains(&line), "{file}: not {line}");
    }
}
