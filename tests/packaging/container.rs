//! The container image, as far as it can be checked without an engine: what the image consists of runs in
//! a root that has nothing else.

use crate::tools::{Dir, eventually, has, is_root, programs, root, run, source};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The lines of the last stage, and the words of the first.
fn stages() -> (Vec<String>, Vec<String>) {
    let text = source("conf/Containerfile").replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    let last = lines.iter().rposition(|line| line.starts_with("FROM ")).unwrap();
    (lines[..last].to_vec(), lines[last..].to_vec())
}

#[test]
fn image_is_small_checked_and_not_roots() {
    let (build, image) = stages();
    let value = |name: &str| {
        let start = format!("{name} ");
        let mut found = image.iter().filter_map(|line| line.strip_prefix(&start));
        found.next_back().unwrap_or_else(|| panic!("no {name}")).to_owned()
    };
    assert!(value("FROM").contains("distroless"));
    assert_eq!(value("USER"), "65532:65532");
    assert_eq!(value("STOPSIGNAL"), "SIGTERM");
    // There is no shell in it: words in brackets only.
    let (_, check) = image
        .iter()
        .find_map(|line| line.strip_prefix("HEALTHCHECK "))
        .unwrap()
        .split_once("CMD ")
        .unwrap();
    for words in [check.to_owned(), value("ENTRYPOINT"), value("CMD")] {
        assert!(words.starts_with("[\"") && words.ends_with("\"]"), "{words}");
    }
    assert!(!image.iter().any(|line| line.starts_with("RUN ")), "there is no shell in the image");
    for line in image.iter().filter_map(|line| line.strip_prefix("COPY packaging/")) {
        let name = line.split(' ').next().unwrap();
        assert!(root().join("packaging").join(name).exists(), "{name}");
    }
    assert!(build.iter().any(|line| line.contains("cargo build --release --locked")));
    // The compiler of the image is new enough.
    let oldest: u32 = env!("CARGO_PKG_RUST_VERSION").split('.').nth(1).unwrap().parse().unwrap();
    let tag = build.iter().find_map(|line| line.strip_prefix("ARG RUST=")).unwrap();
    let version =
        tag.split('-').next().unwrap().split('.').nth(1).map(|minor| minor.parse::<u32>().unwrap());
    assert!(version.is_none_or(|version| version >= oldest), "{tag}");
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn image_runs_without_a_name_a_shell_or_rights() {
    if !is_root() || !has("ldd") || !has("unshare") {
        return;
    }
    let dir = Dir::new();
    let image = dir.path();
    for program in ["cloudbridge", "cloudbridge-agent", "cloudbridge-key"] {
        put(&programs().join(program), &image.join("usr/bin").join(program));
        let libraries = run(Command::new("ldd").arg(programs().join(program)));
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            put(Path::new(library), &image.join(&library[1..]));
        }
    }
    let settings =
        source("packaging/container.conf").replace("listen *:8079", "listen 127.0.0.1:0");
    dir.write("etc/cloudbridge/cloudbridge.conf", &settings);
    fs::create_dir_all(image.join("run/cloudbridge")).unwrap();
    run(Command::new("chown").arg("65532:65532").arg(image.join("run/cloudbridge")));
    run(Command::new("chmod").arg("755").arg(image));
    // As an engine does, it gives them /proc. The mount is gone with the process.
    fs::create_dir(image.join("proc")).unwrap();
    let script =
        "mount --rbind /proc \"$0/proc\" && exec chroot --userspec=65532:65532 \"$0\" \"$@\"";
    let inside = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(image).args(words);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    };
    if !inside(&["/usr/bin/cloudbridge", "-v"]).output().unwrap().status.success() {
        println!("skipped: nothing may be mounted here");
        return;
    }
    let check = || inside(&["/usr/bin/cloudbridge", "ctl", "hosts"]).output().unwrap().status;
    assert_eq!(check().code(), Some(3), "nothing runs yet");
    let mut proxy = inside(&["/usr/bin/cloudbridge", "-c", "/etc/cloudbridge/cloudbridge.conf"]);
    let mut proxy = Running(proxy.stderr(Stdio::null()).spawn().unwrap());
    eventually("it is healthy", || check().success().then_some(()));
    run(Command::new("kill").arg("-TERM").arg(proxy.0.id().to_string()));
    let status = eventually("it ends", || proxy.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

fn put(from: &Path, to: &Path) {
    if !to.exists() {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}
