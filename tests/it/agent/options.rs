//! A bad command line or file is refused, with everything that is wrong.

use crate::common::{Agent, Proxy, at};

#[test]
fn a_bad_command_line_is_one_sentence_and_exit_code_2() {
    let mut agent = Agent::start(&["--to", "app", "proxy"]);
    assert_eq!(agent.wait_exit().code(), Some(2));
    agent.await_log("cloudbridge-agent: \"app\" has no port; write ADDRESS:PORT or unix:PATH\n");
}

#[test]
fn a_check_says_what_is_wrong_and_serves_nothing() {
    let proxy = Proxy::start();
    let mut agent = Agent::start(&["-t", "--to", "3000", &at(&proxy)]);
    assert!(agent.wait_exit().success());
    assert_eq!(agent.log(), "cloudbridge-agent: nothing is wrong\n");
    proxy.write("agent.conf", "service 3000 n=0\n");
    let file = proxy.dir().join("agent.conf").display().to_string();
    let mut agent = Agent::start(&["-t", "-c", &file, "proxy"]);
    assert_eq!(agent.wait_exit().code(), Some(2));
    agent.await_log("agent.conf:1: service: -n is a number from 1 to 10000, not \"0\"\n");
}

#[test]
fn every_bad_line_of_a_file_is_named() {
    let proxy = Proxy::start();
    proxy.write("agent.conf", "service 3000 n=0\ngrace never\n");
    let file = proxy.dir().join("agent.conf").display().to_string();
    let mut agent = Agent::start(&["-c", &file, "proxy"]);
    assert_eq!(agent.wait_exit().code(), Some(2));
    agent.await_log("agent.conf:1: service: -n is a number from 1 to 10000, not \"0\"\n");
    agent.await_log("agent.conf:2: grace: \"never\" is not a time");
}
