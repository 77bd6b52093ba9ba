//! The agent's binary as a backend: a process of its own.

use crate::common::Proxy;
use std::process::{Child, Command, Stdio};

/// A running `cloudbridge-agent --echo`. It is killed (SIGKILL) when this is dropped.
#[derive(Debug)]
pub struct Agent(Child);

impl Agent {
    /// Starts one with four bridges for each of these hosts, and does not wait until they are parked.
    #[track_caller]
    pub fn start(proxy: &Proxy, hosts: &[&str]) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge-agent"));
        command.args(["--echo", "-n", "4"]);
        hosts.iter().for_each(|host| _ = command.args(["--host", host]));
        command.arg(proxy.for_bridges().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Agent(command.spawn().expect("the agent's binary can be started"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It closes nothing in good order, the kernel does it for it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
