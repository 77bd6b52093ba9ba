//! The example of a sign-up page, from its one command: a visitor gets a name and a key, serves a
//! page with them, and sees what the proxy knows of it.

use crate::common::{
    Agent, App, Browser, Client, Message, Process, child_of, eventually, installed, is_alive, ok,
    quoted, run_well,
};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/open-cloudbridge")
}

/// The folder of the programs that are tested.
fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_cloudbridge")).parent().expect("a folder")
}

/// The example, running. It ends with this.
struct Example {
    process: Process,
    address: SocketAddr,
    /// Where its files are.
    files: String,
}

impl Example {
    /// Starts it, unless there is no Python.
    #[track_caller]
    fn start() -> Option<Example> {
        if !installed("Python", &["python3", "-c", "import sqlite3"]) {
            return None;
        }
        let mut command = Command::new(folder().join("run"));
        command
            .args(["--port", "0", "--max-age", "1", "--programs"])
            .arg(programs())
            .env_remove("RUST_LOG");
        let process = Process::spawn("open-cloudbridge", &mut command);
        process.await_log("open-cloudbridge: http://cloud.localhost:");
        let log = process.log();
        let (_, said) = log.split_once("http://cloud.localhost:").expect("its address");
        let (port, rest) = said.split_once("/ (files in ").expect("a port");
        let address = format!("127.0.0.1:{port}").parse().expect("an address");
        let files = rest.split(';').next().expect("a folder").to_owned();
        Some(Example { process, address, files })
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/", self.address.port())
    }

    #[track_caller]
    fn ask(&self, request: &str) -> Message {
        let mut client = Client::connect_to(self.address);
        client.send(request);
        client.read_response()
    }

    /// What `host` answers.
    #[track_caller]
    fn get(&self, host: &str) -> Message {
        self.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    /// Asks for a name without a browser. Returns the command for the agent.
    #[track_caller]
    fn sign_up(&self, name: &str) -> String {
        let body = format!("name={name}");
        let answer = self.ask(&format!(
            "POST /names HTTP/1.1\r\nHost: cloud.localhost\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(answer.status(), 200, "{answer:?}");
        let text = answer.text();
        let (_, rest) = text.split_once("<pre id=\"command\">").expect("a command");
        rest.split('<').next().expect("its end").replace("&#x27;", "'")
    }

    /// Runs a command of the operator's.
    #[track_caller]
    fn operate(&self, words: &[&str]) -> String {
        let mut command = Command::new(folder().join("open_cloudbridge.py"));
        command.args(["--folder", &self.files, "--domain", "cloud.localhost"]).args(words);
        run_well(&mut command)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // Its own children end with it then. It may have ended already.
        if self.process.exit_status().is_none() && is_alive(self.process.id()) {
            self.process.terminate();
            self.process.wait_exit();
        }
    }
}

/// Runs a command for the agent, as a visitor is shown it, with an application elsewhere.
#[track_caller]
fn serve(command: &str, app: &App) -> Agent {
    let line = command.replacen("--to 3000", &format!("--to {}", app.to()), 1);
    assert_ne!(line, command);
    let path = format!("{}:{}", programs().display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    Agent::spawn({
        shell.args(["-c", &format!("exec env {line}")]).env("PATH", path);
        shell
    })
}

#[test]
fn its_parts_do_what_they_should() {
    if installed("Python", &["python3", "-c", "import sqlite3"]) {
        run_well(Command::new("python3").arg(folder().join("tests.py")));
    }
}

#[test]
fn a_visitor_gets_a_name_and_a_key_and_serves_a_page() {
    let Some(mut browser) = Browser::start() else { return };
    let Some(mut example) = Example::start() else { return };
    browser.open(&example.url("cloud.localhost"));
    browser.picture("open-cloudbridge");
    // What is not to be had is said, and what was written is text.
    for (name, why) in [("www", "reserved"), ("a<b>\"c", "3 to 32 letters")] {
        enter(&mut browser, "#name", name);
        browser.wait_text(".wrong", why);
    }
    enter(&mut browser, "#name", "shop");
    browser.wait_text("#host", "shop.cloud.localhost");
    browser.wait(COMPLETE);
    browser.picture("open-cloudbridge-key");
    let key = browser.eval("document.querySelector('#key').value");
    let key = key.as_str().expect("a key").to_owned();
    let command = browser.text("#command");
    let begins = format!("BRIDGE_KEYS='{key}' cloudbridge-agent --to 3000 ");
    assert!(command.starts_with(&begins), "{command}");
    // The same name is not to be had again.
    let link = browser.eval("document.querySelector('#link').href");
    let to_state = browser.eval("document.querySelector('#tenant').href");
    assert_eq!(link, example.url("shop.cloud.localhost"));
    let (app, other_app) = (App::start(|_| ok("from the shop")), App::start(|_| ok("other")));
    let agent = serve(&command, &app);
    let _other = serve(&example.sign_up("others"), &other_app);
    for (host, text) in [("shop", "from the shop"), ("others", "other")] {
        let host = format!("{host}.cloud.localhost");
        eventually("it is served", || example.get(&host).status() == 200);
        assert_eq!(example.get(&host).text(), text);
    }
    browser.open(link.as_str().expect("a link"));
    browser.wait_text("body", "from the shop");
    // With the key the visitor sees this name, and not the other's.
    browser.open(to_state.as_str().expect("a link"));
    enter(&mut browser, "#key", &key);
    browser.wait_text("article h2", "shop.cloud.localhost");
    browser.wait_text("dl", "free\n8");
    assert!(!browser.text("body").contains("others"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let all = example.operate(&["list"]);
    assert!(all.lines().count() == 2 && all.contains("shop  from 127.0.0.1  since "), "{all}");
    // The operator closes the shop. The other one goes on.
    example.operate(&["suspend", "shop", "it sells nothing"]);
    let is_refused = || {
        agent.log().contains(
            "403 this bridge is not allowed: the name shop is suspended: it sells nothing",
        )
    };
    eventually("no bridge is let in", || {
        let mut client = Client::connect_to(example.address);
        client.send("GET / HTTP/1.1\r\nHost: shop.cloud.localhost\r\n\r\n");
        eventually("it is served, or waits in vain", || client.has_bytes() || is_refused());
        is_refused()
    });
    assert_eq!(example.get("others.cloud.localhost").text(), "other");
    // Its first child. Another program may have its port as soon as it has ended.
    let proxy = child_of(example.process.id()).expect("the proxy");
    example.process.terminate();
    assert!(example.process.wait_exit().success());
    assert!(!is_alive(proxy), "the proxy has ended, too");
    assert!(!Path::new(&example.files).exists(), "its files have gone");
}

/// The page is there to its end, and not only what has been waited for.
const COMPLETE: &str = "document.readyState === 'complete'";

/// Writes into a field of a form, and sends the form.
#[track_caller]
fn enter(browser: &mut Browser, field: &str, text: &str) {
    browser.wait(COMPLETE);
    browser.eval(&format!("document.querySelector({}).value = ''", quoted(field)));
    // The browser itself would not send what the form does not allow.
    browser.eval(&format!("document.querySelector({}).form.noValidate = true", quoted(field)));
    browser.click(field);
    browser.type_text(text);
    browser.press("Enter");
}
