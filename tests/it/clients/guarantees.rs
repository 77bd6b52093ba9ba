//! What the libraries guarantee, as the table in `doc/` says, which names a test for each cell.

use super::language::Language;
use super::program::Program;
use crate::common::{ACK, Client, Played, Proxy, SWITCH, WELCOME, at, eventually, run_well};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const RECEIPT: &str = "HTTP/1.1 102 Processing\r\nCloudbridge-Receipt: application\r\n\r\n";

pub fn extensions_are_announced_as_the_table_says(language: Language) {
    let proxy = Played::start();
    let _program = Program::start(language, &proxy.at(), 1, &[]);
    let (_bridge, head) = proxy.bridge();
    assert_eq!(head.field("cloudbridge-extensions"), language.extensions());
}

/// The proxy trusts them only of a backend that takes them from its application; if it did here, the
/// request would be sent to another bridge.
pub fn fields_of_the_backend_are_not_taken_from_the_application(language: Language) {
    let proxy = Proxy::start();
    let _program = Program::parked(language, &proxy, 2);
    for _ in 0..3 {
        let answer = Client::ask(
            &proxy,
            "POST /forged HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n",
        );
        assert_eq!((answer.status(), answer.text()), (503, "forged".to_owned()));
        assert!(!answer.has("cloudbridge-undelivered"), "{answer:?}");
    }
    assert_eq!(proxy.info().number(&["counters", "undelivered"]), 0);
}

/// What is left of a body would be the next request, and its answer the next client's.
pub fn unread_body_does_not_reach_the_next_request(language: Language) {
    let proxy = Proxy::start();
    let _program = Program::parked(language, &proxy, 1);
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for length in [hidden.len(), 100 * hidden.len(), 30_000 * hidden.len()] {
        let mut client = Client::request(
            &proxy,
            format!("POST /unread HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n"),
        );
        client.send_if_open(hidden.repeat(length / hidden.len()));
        assert_eq!(client.read_response().text(), "not read");
        for _ in 0..3 {
            let answer = Client::get(&proxy, "a.test", "/after").read_response();
            assert_eq!(answer.text(), "GET /after for a.test");
        }
    }
    assert!(!proxy.log().contains("without a request"), "{}", proxy.log());
}

pub fn receipt_precedes_what_must_not_be_repeated(language: Language) {
    let proxy = Played::start();
    let _program = Program::start(language, &proxy.at(), 1, &[]);
    let (mut bridge, _) = proxy.bridge();
    bridge.send("HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: leave, receipts\r\n\r\n");
    bridge.send(SWITCH);
    bridge.expect_exact(ACK);
    for (method, receipt) in [("POST", RECEIPT), ("PATCH", RECEIPT), ("PUT", ""), ("GET", "")] {
        bridge.send(format!("{method} /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n"));
        bridge.expect_exact(receipt);
        let mut answer = bridge.read_head();
        assert_eq!(answer.status(), 200, "{method}: {answer:?}");
        bridge.read_body(&mut answer, false);
    }
    // To a proxy that does not know them, none is sent.
    drop(bridge);
    let (mut bridge, _) = proxy.bridge();
    bridge.send(WELCOME);
    bridge.send(SWITCH);
    bridge.expect_exact(ACK);
    bridge.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(bridge.read_head().status(), 200);
}

/// The POST is with the program, but not with its application.
pub fn post_of_a_program_that_is_killed_is_served_by_another(language: Language) {
    let proxy = Proxy::start();
    let killed = Program::parked(language, &proxy, 1);
    let mut client = Client::connect(&proxy);
    client.send_get("a.test", "/");
    assert_eq!(client.read_response().status(), 200);
    proxy.await_count("b", 1);
    killed.freeze();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody");
    eventually("the request has come", || proxy.count("c") + proxy.count("C") == 1);
    drop(killed);
    let _other = Program::start(language, &at(&proxy), 1, &[]);
    let answer = client.read_response();
    assert_eq!((answer.status(), answer.text()), (200, "body".to_owned()));
}

/// Either side of a tunnel may end first.
pub fn tunnel_goes_on_after_the_clients_end(language: Language) {
    let proxy = Proxy::start();
    let _program = Program::start(language, &at(&proxy), 1, &[("WEBSOCKETS", "yes")]);
    let mut client = Client::request(
        &proxy,
        "GET /tunnel HTTP/1.1\r\nHost: a.test\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n",
    );
    assert_eq!(client.read_head().status(), 101);
    client.send("said");
    client.half_close();
    client.expect_exact("said and done");
    client.expect_closed();
}

/// The tests of this program, by their names.
fn tests() -> BTreeSet<String> {
    let listed = run_well(Command::new(std::env::current_exe().expect("a path")).arg("--list"));
    listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// The part of the manual for backends with this heading.
fn section(heading: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("doc/backends.md");
    let text = std::fs::read_to_string(page).expect("the page");
    let found = text.split_once(heading).expect("the section");
    found.1.split("\n## ").next().unwrap_or_default().to_owned()
}

#[test]
fn every_cell_of_the_table_has_its_test() {
    let text = section("## What each guarantees\n");
    let tests = tests();
    // The lines that begin so are those of the two tables.
    let rows = |begin: &'static str| {
        let lines = text.lines().filter(move |line| line.starts_with(begin));
        lines.map(|line| line.split('|').map(str::trim).map(str::to_owned).collect::<Vec<_>>())
    };
    let quoted = |cell: &str| cell.trim_matches('`').to_owned();
    // Which test shows a column.
    let columns: Vec<(String, String)> =
        rows("| *").map(|row| (row[1].clone(), quoted(&row[2]))).collect();
    let heads: Vec<String> = text
        .lines()
        .find(|line| line.starts_with("| library |"))
        .expect("the head of the table")
        .split('|')
        .map(|cell| cell.trim().to_owned())
        .collect();
    let mut cells = 0;
    for row in rows("| **") {
        let name = quoted(&row[2]);
        for (head, cell) in heads.iter().zip(&row).skip(3).filter(|(head, _)| !head.is_empty()) {
            if cell == "n/a" {
                continue;
            }
            assert!(cell == "yes" || cell == "no", "{row:?}: {cell}");
            let (_, test) =
                columns.iter().find(|(column, _)| column == &format!("*{head}*")).expect(head);
            let wanted = |found: &String| {
                found.ends_with(&format!("::{test}")) && found.split("::").any(|part| part == name)
            };
            assert!(tests.iter().any(wanted), "no test {test} of {name} for {head}");
            cells += 1;
        }
    }
    assert!(cells > 40, "{cells} cells");
}
