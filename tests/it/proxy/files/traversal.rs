//! Whatever a path looks like, and whatever happens in the folder meanwhile, nothing outside it is served.

use super::tree::Tree;
use crate::common::{App, Client, Message, Proxy, eventually, ok};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

const SECRET: &str = "the secret outside";

/// A proxy for a folder beside which the secret lies, with a backend that answers `backend`.
struct Guarded {
    tree: Tree,
    proxy: Proxy,
    _app: App,
}

impl Guarded {
    fn new(options: &str) -> Guarded {
        let tree = Tree::new(&[
            ("secret", SECRET),
            ("root/a", "inside"),
            ("root/sub/b", "inside"),
            ("root-beside/secret", SECRET),
        ]);
        let app = App::start(|_| ok("backend"));
        let root = tree.path().join("root");
        let proxy = Proxy::with(&format!(
            "site a.test docroot={} servers={} {options}",
            root.display(),
            app.address()
        ));
        Guarded { tree, proxy, _app: app }
    }
}

#[track_caller]
fn is_harmless(path: &str, answer: &Message) {
    let text = answer.text();
    assert!(!text.contains(SECRET) && !text.contains("root:"), "{path}: {answer:?}");
    let is_known = answer.status() >= 400 || text == "backend" || text == "inside";
    assert!(is_known, "{path}: {answer:?}");
}

/// Ways to write "the folder above", and the slash behind it.
const UP: [&str; 20] = [
    "..",
    "%2e%2e",
    "%2E%2E",
    ".%2e",
    "%2e.",
    "%252e%252e",
    "%c0%ae%c0%ae",
    "%e0%80%ae%e0%80%ae",
    "%f0%80%80%ae%f0%80%80%ae",
    "%u002e%u002e",
    "..%00",
    "%00..",
    "..%20",
    "..;",
    "...",
    "....",
    "..%0a",
    "%ff..",
    "..%5c",
    ".%00.",
];
const SLASH: [&str; 7] = ["/", "%2f", "%2F", "\\", "%5c", "%c0%af", "%252f"];

#[test]
fn no_form_of_a_path_leads_out() {
    let guarded = Guarded::new("");
    let mut client = Client::connect(&guarded.proxy);
    let mut asked = 0;
    let outside = guarded.tree.path().join("secret").display().to_string();
    let mut ask = |path: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        let answer = client.read_response();
        is_harmless(path, &answer);
        asked += 1;
        if answer.field("connection") == Some("close") {
            client = Client::connect(&guarded.proxy);
        }
    };
    for up in UP {
        for slash in SLASH {
            for target in ["secret", "../../../../../../etc/passwd"] {
                ask(&format!("/{up}{slash}{target}"));
                ask(&format!("/sub{slash}{up}{slash}{up}{slash}{target}"));
            }
        }
    }
    for path in [
        &outside,
        "//etc/passwd",
        "/etc/passwd",
        "///secret",
        "/a/../../secret",
        "/root-beside/secret",
        "/../root-beside/secret",
        "/sub/../../secret",
        "/./../secret",
        "/sub/./../../secret",
        "/proc/self/root/etc/passwd",
        "/a%00../secret",
        "/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    ] {
        ask(path);
    }
    ask("http://a.test/../secret");
    ask("http://a.test/%2e%2e/secret");
    ask("/a");
    assert!(asked >= 400, "{asked}");
}

/// A thread swaps a folder for a link that leads out, as fast as it can.
#[test]
fn a_link_that_comes_and_goes_leads_nowhere() {
    for options in ["", "symlinks=yes"] {
        let guarded = Guarded::new(options);
        let root = guarded.tree.path().join("root");
        let (swap, real, away) = (root.join("swap"), root.join("real"), root.join("away"));
        // Inside a folder that is a link for half of the time, and out of it for the other.
        fs::create_dir(&real).unwrap();
        fs::write(real.join("secret"), "inside").unwrap();
        symlink("..", &away).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    fs::rename(&real, &swap).unwrap();
                    fs::rename(&swap, &real).unwrap();
                    fs::rename(&away, &swap).unwrap();
                    fs::rename(&swap, &away).unwrap();
                }
            });
            let mut counts = [0; 2];
            // Both must be seen, or nothing was shown: the file, and that it is not there.
            eventually("both", || {
                let mut client = Client::connect(&guarded.proxy);
                for _ in 0..50 {
                    client.send_get("a.test", "/swap/secret");
                    let answer = client.read_response();
                    is_harmless("/swap/secret", &answer);
                    counts[usize::from(answer.text() == "inside")] += 1;
                }
                counts[0] + counts[1] >= 400
            });
            over.store(true, Ordering::Relaxed);
        });
    }
}
