//! What systemd is told of an agent.

use crate::common::{Agent, App, Proxy, Systemd, at, ok};
use std::process::Command;

#[test]
fn systemd_knows_that_the_agent_is_there_alive_and_what_it_does() {
    let (systemd, proxy, app) = (Systemd::new(), Proxy::start(), App::start(|_| ok("served")));
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge-agent"));
    command.args(["--to", &app.to(), "-n3", &at(&proxy)]);
    command.env("NOTIFY_SOCKET", systemd.notify_socket()).env("WATCHDOG_USEC", "1000000");
    let mut agent = Agent::spawn(command);
    assert_eq!(systemd.next().lines, ["READY=1", &format!("MAINPID={}", agent.id())]);
    systemd.await_value("WATCHDOG", |value| value == "1");
    let parked = "3 bridges parked, 0 requests in progress";
    systemd.await_value("STATUS", |status| status == parked);
    agent.reload();
    assert_eq!(systemd.next_state().lines[0], "RELOADING=1");
    assert_eq!(systemd.next_state().lines, ["READY=1"]);
    systemd.await_value("WATCHDOG", |value| value == "1");
    agent.terminate();
    assert_eq!(systemd.next_state().lines, ["STOPPING=1"]);
    systemd.await_value("STATUS", |status| status.starts_with("shutting down: "));
    assert!(agent.wait_exit().success());
}
