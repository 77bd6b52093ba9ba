//! The package for Debian and Ubuntu: what is in it, what lintian says, and what dpkg makes of it in a root of its own.
//! `make guest` does the same under a real systemd.

use crate::tools::{Dir, has, is_root, programs, root, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How long lintian may take. It is other people's program, and not what is tested.
const LINTIAN_SECONDS: &str = "60";

/// Whether the tools are there that `make deb` needs.
fn can_package() -> bool {
    has("dpkg-deb") && has("dpkg-shlibdeps")
}

/// What `make deb` makes of the programs under test.
fn package(dir: &Dir) -> PathBuf {
    let mut command = Command::new(root().join("packaging/deb"));
    command.env("TARGET", dir.path().join("target")).env("BIN", programs());
    // The time of the files, so that the same source gives the same package.
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    // Small is not what matters here.
    command.env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

/// The same package as its next version.
fn next(dir: &Dir, first: &Path) -> PathBuf {
    let (tree, second) = (dir.path().join("second"), dir.path().join("second.deb"));
    run(Command::new("dpkg-deb").arg("--raw-extract").arg(first).arg(&tree));
    let control = tree.join("DEBIAN/control");
    let fields = fs::read_to_string(&control).unwrap();
    let version = fields.lines().find(|line| line.starts_with("Version: ")).unwrap();
    fs::write(&control, fields.replace(version, &format!("{version}+next"))).unwrap();
    let mut build = Command::new("dpkg-deb");
    run(build.args(["--root-owner-group", "-Znone", "--build"]).arg(&tree).arg(&second));
    second
}

#[test]
fn a_package_is_made_and_has_no_errors() {
    if !can_package() {
        return;
    }
    let dir = Dir::new();
    let path = package(&dir);
    let contents = run(Command::new("dpkg-deb").arg("--contents").arg(&path));
    for (file, mode) in [
        ("usr/bin/cloudbridge", "-rwxr-xr-x root/root"),
        ("usr/bin/cloudbridge-agent", "-rwxr-xr-x root/root"),
        ("usr/bin/cloudbridge-key", "-rwxr-xr-x root/root"),
        ("etc/cloudbridge/cloudbridge.conf", "-rw-r--r-- root/root"),
        ("etc/logrotate.d/cloudbridge", "-rw-r--r-- root/root"),
        ("usr/share/doc/cloudbridge/copyright", "-rw-r--r-- root/root"),
        ("usr/share/lintian/overrides/cloudbridge", "-rw-r--r-- root/root"),
        ("usr/lib/systemd/system/cloudbridge.service", "-rw-r--r-- root/root"),
        ("usr/lib/systemd/system/cloudbridge-agent@.service", "-rw-r--r-- root/root"),
        ("usr/lib/sysusers.d/cloudbridge.conf", "-rw-r--r-- root/root"),
        ("usr/share/man/man5/cloudbridge.conf.5.gz", "-rw-r--r-- root/root"),
        ("usr/share/zsh/vendor-completions/_cloudbridge", "-rw-r--r-- root/root"),
    ] {
        let found = contents
            .lines()
            .any(|line| line.starts_with(mode) && line.ends_with(&format!("./{file}")));
        assert!(found, "no {mode} {file} in {contents}");
    }
    let control = dir.path().join("control");
    run(Command::new("dpkg-deb").arg("--control").arg(&path).arg(&control));
    let conffiles = fs::read_to_string(control.join("conffiles")).unwrap();
    let mut conffiles: Vec<&str> = conffiles.split_whitespace().collect();
    conffiles.sort_unstable();
    assert_eq!(conffiles, ["/etc/cloudbridge/cloudbridge.conf", "/etc/logrotate.d/cloudbridge"]);
    let fields = fs::read_to_string(control.join("control")).unwrap();
    assert!(fields.contains("libc6 (>= "), "{fields}");
    check(&path);
}

/// Has lintian look at the package, if it is installed.
fn check(package: &Path) {
    if !has("lintian") || !has("timeout") {
        return;
    }
    let mut lintian = Command::new("timeout");
    lintian.args([LINTIAN_SECONDS, "lintian", "--fail-on=error", "--allow-root"]);
    let output = lintian.arg(package).output().unwrap();
    if output.status.code() == Some(124) {
        println!("skipped: lintian took more than {LINTIAN_SECONDS} s");
        return;
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
}

/// Puts the package through its life, with this machine as the lower layer of an overlay whose upper layer is in memory.
/// All of it is gone with the shell. /run is empty there, so that the scripts of the package see no systemd.
const LIFE: &str = r#"
set -eu
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
if ! mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"; then
    echo 'skipped: an overlay of / cannot be mounted here'
    exit
fi
cp "$2" "$1/root/first.deb"
cp "$3" "$1/root/second.deb"
cd "$1/root"
mount -t tmpfs tmpfs run
mount --rbind /dev dev
mount --rbind /proc proc
if [ -e etc/cloudbridge ]; then
    echo 'skipped: the package is installed here already'
    exit
fi
inside() { chroot . "$@"; }
# What it depends on may be missing here; that is for apt. Pages of manuals are not indexed.
dpkg() { inside dpkg --force-depends --no-triggers "$@" </dev/null >&2; }
say() { echo "== $*"; }
there() { for file in "$@"; do if [ -e "$file" ]; then echo "there: $file"; else echo "gone: $file"; fi; done; }
version() { inside dpkg-query --show --showformat '${db:Status-Status} ${Version}\n' cloudbridge; }

say install
dpkg --install /first.deb
version
inside stat --format '%A %U:%G %n' /etc/cloudbridge /etc/cloudbridge-agent /etc/cloudbridge/cloudbridge.conf
inside cloudbridge-key add /etc/cloudbridge/secrets >&2
inside stat --format '%A %U:%G %n' /etc/cloudbridge/secrets
inside cloudbridge -t -c /etc/cloudbridge/cloudbridge.conf >&2

say start
sed -i -e 's/^listen \*:8079/listen 127.0.0.1:0/' -e 's/^#\(secrets\|access-log\)/\1/' etc/cloudbridge/cloudbridge.conf
# As the unit would.
for folder in run/cloudbridge var/log/cloudbridge; do
    inside install -d -m 750 -o cloudbridge -g cloudbridge "/$folder"
done
chroot --userspec=cloudbridge:cloudbridge . cloudbridge -c /etc/cloudbridge/cloudbridge.conf >/dev/null 2>&1 &
proxy=$!
trap 'kill -KILL $proxy 2>/dev/null || true' EXIT
tries=0
until inside cloudbridge ctl hosts >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { echo 'not in time: it answers'; exit 1; }
    sleep 0.1
done
echo "it answers as $(stat --format %u "/proc/$proxy" | sed "s/^$(inside id -u cloudbridge)\$/cloudbridge/")"

say upgrade
before=$(cksum <etc/cloudbridge/cloudbridge.conf)
dpkg --install /second.deb
version
[ "$(cksum <etc/cloudbridge/cloudbridge.conf)" = "$before" ] && echo 'the settings are as they were'
inside cloudbridge ctl hosts >/dev/null && echo 'it answers'
kill -TERM $proxy
wait $proxy && echo 'it ends'

say remove
dpkg --remove cloudbridge
there usr/bin/cloudbridge usr/lib/systemd/system/cloudbridge.service etc/cloudbridge/cloudbridge.conf \
    etc/cloudbridge/secrets var/log/cloudbridge

say purge
dpkg --purge cloudbridge
there etc/cloudbridge/cloudbridge.conf etc/logrotate.d/cloudbridge etc/cloudbridge/secrets etc/cloudbridge-agent \
    var/log/cloudbridge
"#;

#[test]
fn a_package_is_installed_started_upgraded_removed_and_purged() {
    let tools = ["dpkg", "unshare", "timeout", "systemd-sysusers", "systemd-tmpfiles"];
    if !is_root() || !can_package() || !tools.iter().all(|tool| has(tool)) {
        return;
    }
    let dir = Dir::new();
    let first = package(&dir);
    let second = next(&dir, &first);
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    if !Command::new("unshare").args(["--mount", "true"]).output().unwrap().status.success() {
        println!("skipped: nothing may be mounted here");
        return;
    }
    let mut life = Command::new("timeout");
    life.args(["--kill-after=5", "300", "unshare", "--mount", "sh", "-c", LIFE, "sh"]);
    life.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    let output = life.arg(&place).arg(&first).arg(&second).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}{errors}", output.status);
    if said.starts_with("skipped") {
        print!("{said}");
        return;
    }
    let name = first.file_name().unwrap().to_str().unwrap();
    let version = name.split('_').nth(1).unwrap();
    let expected = format!(
        "\
== install
installed {version}
drwxr-s--- root:cloudbridge /etc/cloudbridge
drwxr-s--- root:cloudbridge-agent /etc/cloudbridge-agent
-rw-r--r-- root:root /etc/cloudbridge/cloudbridge.conf
-rw-r----- root:cloudbridge /etc/cloudbridge/secrets
== start
it answers as cloudbridge
== upgrade
installed {version}+next
the settings are as they were
it answers
it ends
== remove
gone: usr/bin/cloudbridge
gone: usr/lib/systemd/system/cloudbridge.service
there: etc/cloudbridge/cloudbridge.conf
there: etc/cloudbridge/secrets
there: var/log/cloudbridge
== purge
gone: etc/cloudbridge/cloudbridge.conf
gone: etc/logrotate.d/cloudbridge
there: etc/cloudbridge/secrets
gone: etc/cloudbridge-agent
gone: var/log/cloudbridge
"
    );
    assert_eq!(said, expected, "{errors}");
}
