//! A network of a test's own, with another machine on it as far as the kernel is concerned.
//!
//! The test runs once more, as a child in an empty network namespace. Whatever it makes there is
//! gone with it, and nothing that it sends can leave.

use crate::common::{eventually, skipped};
use std::fs;
use std::process::{Child, Command, Stdio};

/// Set in the child.
const INSIDE: &str = "CLOUDBRIDGE_TEST_NETWORK";

/// The address at the near end of a [`Link`]. RFC 2544 sets the network aside for tests.
pub const NEAR: &str = "198.18.0.1";

/// Whether this process is alone in a network of its own. If not, runs `test`, by its whole name,
/// in one, or says that it is skipped.
#[track_caller]
pub fn alone(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let needs = "command -v ip && command -v nsenter && unshare --net true && test $(id -u) = 0";
    let mut command = Command::new("sh");
    command.args(["-c", needs]).stdout(Stdio::null()).stderr(Stdio::null());
    if !command.status().is_ok_and(|status| status.success()) {
        skipped("a network namespace needs root, unshare, nsenter and ip");
        return false;
    }
    let exe = std::env::current_exe().expect("the tests' own binary");
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(exe)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    eprintln!("{said}{complained}");
    assert!(output.status.success(), "failed in a network of its own");
    assert!(said.contains("1 passed"), "there is no test {test}");
    false
}

/// Runs a line of shell to a good end.
#[track_caller]
pub fn run(line: &str) {
    let output = Command::new("sh").args(["-ec", line]).output().expect("sh");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {complained}");
}

/// A cable between this network, at [`NEAR`], and another machine's.
pub struct Link {
    /// It holds the other network open.
    far: Child,
}

impl Link {
    /// Lays one, and switches it on.
    #[track_caller]
    pub fn lay() -> Link {
        let far = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().expect("unshare");
        let link = Link { far };
        let own = fs::read_link("/proc/self/ns/net").expect("/proc");
        let other = format!("/proc/{}/ns/net", link.far.id());
        eventually("the other network is there", || {
            fs::read_link(&other).is_ok_and(|other| other != own)
        });
        // Each end knows the other's hardware address for good: a machine that has gone answers
        // nothing, and nobody on the way says so.
        let pid = link.far.id();
        run(&format!(
            "ip link add near address 02:00:00:00:00:01 type veth \
                peer name far address 02:00:00:00:00:02 netns {pid}
             ip addr add {NEAR}/30 dev near
             ip link set near up
             ip neigh add 198.18.0.2 lladdr 02:00:00:00:00:02 dev near nud permanent
             nsenter --net={other} sh -ec '
                ip link set lo up
                ip addr add 198.18.0.2/30 dev far
                ip link set far up
                ip neigh add {NEAR} lladdr 02:00:00:00:00:01 dev far nud permanent'"
        ));
        link
    }

    /// Switches this machine's end off (`down`) or on (`up`): for the other it vanishes, without a
    /// word.
    #[track_caller]
    pub fn near(&self, what: &str) {
        run(&format!("ip link set near {what}"));
    }

    /// Switches the other machine's end off or on: for this one it vanishes.
    #[track_caller]
    pub fn far(&self, what: &str) {
        run(&format!("nsenter --net=/proc/{}/ns/net ip link set far {what}", self.far.id()));
    }

    /// A command that runs `program` on the other machine. They share their files, and so Unix
    /// sockets.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.far.id())).arg(program);
        command
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.far.kill();
        let _ = self.far.wait();
    }
}
