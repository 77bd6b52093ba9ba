//! The agent as a child process.

use super::{Process, Proxy, encryption};
use std::ops::{Deref, DerefMut};
use std::process::{Command, Stdio};

/// A running agent, and a [`Process`].
#[derive(Debug)]
pub struct Agent(Process);

impl Agent {
    /// Starts it with these arguments.
    #[track_caller]
    pub fn start<S: AsRef<str>>(args: &[S]) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge-agent"));
        let args: Vec<String> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        command.args(encryption::agent_arguments(&args)).env_remove("RUST_LOG");
        Agent::spawn(command)
    }

    /// Starts what `command` says.
    #[track_caller]
    pub fn spawn(mut command: Command) -> Agent {
        command
            .env_remove("BRIDGE_HOSTS")
            .env_remove("BRIDGE_KEYS")
            .env_remove("BRIDGE_BEARER_KEYS")
            .stdin(Stdio::null());
        Agent(Process::spawn("the agent", &mut command))
    }

    /// Starts it in front of the application at `to`, for every host, with up to `limit` requests
    /// at once.
    #[track_caller]
    pub fn serve(to: &str, limit: usize, proxies: &[String]) -> Agent {
        let mut args = vec!["--to".to_owned(), to.to_owned(), format!("-n{limit}")];
        args.extend_from_slice(proxies);
        Agent::start(&args)
    }

    /// Starts one that answers every request itself, with four bridges for each of these hosts.
    #[track_caller]
    pub fn echo(proxy: &Proxy, hosts: &[&str]) -> Agent {
        let proxy = at(proxy);
        let mut args = vec!["--echo", "-n4"];
        args.extend(hosts.iter().flat_map(|host| ["--host", host]));
        args.push(&proxy);
        Agent::start(&args)
    }
}

/// Where a proxy takes bridges, as an argument.
#[track_caller]
pub fn at(proxy: &Proxy) -> String {
    proxy.for_bridges().to_string()
}

impl Deref for Agent {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Agent {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}
