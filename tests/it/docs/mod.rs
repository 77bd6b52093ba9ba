//! README.md and doc/, manual pages too: every block is run as it stands there, and every link leads
//! somewhere.
//!
//! A block of a page has an HTML comment in front of it that says how it is tested; `blocks.rs` has
//! what may be said. What is run is taken from the page, so a page that goes wrong fails here.

mod blocks;
mod links;
mod places;
mod session;

use blocks::{Block, Mark};
use session::Session;
use std::path::{Path, PathBuf};

/// Why a block is not run, and what such a block may be. The list is as short as it can be.
const REASONS: &[(&str, &str)] = &[
    ("root", "it changes the machine"),
    ("systemd", "it needs systemd, or is a part of a unit; `make guest` runs the units"),
    ("packages", "it installs packages"),
    ("another machine", "it needs several machines"),
    ("cargo", "it compiles, and the tests must not"),
    ("an hour", "it takes that long"),
    ("a terminal", "it is a program for a terminal"),
    ("Kubernetes", "it needs a cluster"),
    ("a fragment", "code that is not a program; the page names a test that has it whole"),
    ("a synopsis", "it is no command but the form of one"),
    ("the default port", "another program may have it"),
    ("old programs", "what it shows is there only after upgrades with tunnels"),
    ("a process ID", "the reader's own"),
    ("a Redis", "tests/it/proxy/redis.rs has one"),
];

/// Words that begin a command, so a block with one is more than a text.
const COMMANDS: &[&str] = &[
    "cloudbridge",
    "cloudbridge-agent",
    "cloudbridge-key",
    "curl",
    "make",
    "cargo",
    "kill",
    "sudo",
    "systemctl",
    "printf",
    "for",
    "python3",
    "gunicorn",
    "install",
    "haproxy",
    "apt-get",
    "$",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and what is in doc/, by their paths from the root.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![PathBuf::from("README.md")];
    for entry in std::fs::read_dir(root().join("doc")).expect("doc/") {
        let name = PathBuf::from(entry.expect("doc/").file_name());
        if name.extension().is_some_and(|ending| ending == "md" || ending == "1") {
            pages.push(Path::new("doc").join(name));
        }
    }
    pages.sort();
    pages
}

fn read(page: &Path) -> String {
    std::fs::read_to_string(root().join(page)).expect("a page")
}

fn blocks_of(page: &Path) -> Result<Vec<Block>, String> {
    match page.extension().is_some_and(|ending| ending == "md") {
        true => blocks::of(page, &read(page)),
        false => blocks::of_manual(page, &read(page)),
    }
}

/// Runs the blocks of a page in their order.
#[track_caller]
fn run(page: &str) {
    let page = Path::new(page);
    let blocks = blocks_of(page).unwrap_or_else(|problem| panic!("{problem}"));
    let mut session: Vec<Block> = Vec::new();
    let mut sessions = Vec::new();
    for block in blocks {
        if matches!(block.mark, Mark::Setup { afresh: true }) && !session.is_empty() {
            sessions.push(std::mem::take(&mut session));
        }
        session.push(block);
    }
    sessions.push(session);
    sessions.iter().for_each(|blocks| Session::new(blocks).run());
}

/// One test for each page, so that they run side by side and fail apart.
macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        $(#[test] fn $test() { run($page); })*

        #[test]
        fn every_page_has_a_test() {
            let mut tested: Vec<PathBuf> = [$($page),*].map(PathBuf::from).into();
            tested.sort();
            assert_eq!(pages(), tested, "a page without a line in `pages!`, or a line without a page");
        }
    };
}

pages! {
    readme: "README.md",
    admin: "doc/admin.md",
    agent: "doc/agent.md",
    backends: "doc/backends.md",
    agent_manual: "doc/cloudbridge-agent.1",
    key_manual: "doc/cloudbridge-key.1",
    proxy_manual: "doc/cloudbridge.1",
    design: "doc/design.md",
    files: "doc/files.md",
    forwarding: "doc/forwarding.md",
    haproxy: "doc/haproxy.md",
    kubernetes: "doc/kubernetes.md",
    lanes: "doc/lanes.md",
    logs: "doc/logs.md",
    open: "doc/open.md",
    operating: "doc/operating.md",
    performance: "doc/performance.md",
    protocol: "doc/protocol.md",
    ptth: "doc/ptth.md",
    reliability: "doc/reliability.md",
    scale: "doc/scale.md",
    scale_from_zero: "doc/scale-from-zero.md",
    swiftiply: "doc/swiftiply.md",
    systemd: "doc/systemd.md",
    tls: "doc/tls.md",
    upgrade: "doc/upgrade.md",
}

#[test]
fn every_block_says_how_it_is_tested() {
    let mut wrong = Vec::new();
    for page in pages() {
        let blocks = match blocks_of(&page) {
            Ok(blocks) => blocks,
            Err(problem) => {
                wrong.push(problem);
                continue;
            }
        };
        for block in blocks {
            let place = &block.place;
            match &block.mark {
                Mark::None(reason) if !REASONS.iter().any(|(known, _)| known == reason) => {
                    wrong.push(format!("{place}: {reason:?} is not one of the reasons"));
                }
                Mark::Text => {
                    let first = |line: &&str| {
                        let word = line.split(' ').next().unwrap_or("");
                        COMMANDS.contains(&word)
                    };
                    if let Some(line) = block.text.lines().find(first) {
                        wrong.push(format!("{place}: a text with a command: {line}"));
                    }
                }
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
