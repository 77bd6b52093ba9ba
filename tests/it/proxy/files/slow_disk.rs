//! A disk that stops, under the folder of one site.

use super::tree::Tree;
use crate::common::{Bridge, Client, Dir, Proxy, Setup, eventually, installed, skipped};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A file system that waits where its names say so, until [`SlowDisk::go_on`].
struct SlowDisk {
    dir: Dir,
    server: Child,
}

impl SlowDisk {
    fn mount() -> Option<SlowDisk> {
        if !installed("Python", &["python3", "-V"]) {
            return None;
        }
        let dir = Dir::new();
        let script = dir.write("disk.py", include_str!("disk.py"));
        fs::create_dir(dir.path().join("mounted")).expect("a folder");
        let mut server = Command::new("python3")
            .arg(script)
            .args([dir.path().join("mounted"), dir.path().join("gate")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut said = String::new();
        BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut said).expect("a line");
        let disk = SlowDisk { dir, server };
        if said.trim() != "mounted" {
            skipped(&format!("a slow disk: {}", said.trim()));
            return None;
        }
        Some(disk)
    }

    /// A proxy with one worker, and a site `slow.test` of this disk.
    fn serve(&self, more: &str) -> Proxy {
        let mounted = self.dir.path().join("mounted");
        let settings = format!("workers 1\nsite slow.test docroot={}\n{more}", mounted.display());
        Setup::new().settings(&settings).start()
    }

    /// Everything that waits goes on.
    fn go_on(&self) {
        File::create(self.gate()).expect("a file");
    }

    fn gate(&self) -> PathBuf {
        self.dir.path().join("gate")
    }

    /// What has everything go on when a test is over, even if it fails: the proxy cannot end before.
    fn goes_on_at_last(&self) -> GoesOn {
        GoesOn(self.gate())
    }
}

struct GoesOn(PathBuf);

impl Drop for GoesOn {
    fn drop(&mut self) {
        // The test fails anyway if it cannot be made.
        let _ = File::create(&self.0);
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        self.go_on();
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}

#[test]
fn other_sites_and_other_requests_do_not_wait_for_a_disk() {
    let Some(disk) = SlowDisk::mount() else { return };
    let tree = Tree::new(&[("a", "other site")]);
    let proxy = disk.serve(&format!("site fast.test docroot={}", tree.path().display()));
    let _at_last = disk.goes_on_at_last();
    let paths = [
        ("/slow-lookup.txt", "looked up"),
        ("/slow-open.txt", "opened"),
        ("/slow-read.txt", "read"),
    ];
    let mut slow: Vec<Client> =
        paths.iter().map(|(path, _)| Client::get(&proxy, "slow.test", path)).collect();
    eventually("threads wait for the disk", || {
        // One to open each, and one to read the last.
        proxy.info().number(&["counters", "file_reads"]) >= 4
    });
    let mut fast = Client::connect(&proxy);
    let mut bridge = Bridge::park(&proxy, &["slow.test"]);
    for _ in 0..500 {
        fast.send_get("fast.test", "/a");
        assert_eq!(fast.read_response().text(), "other site");
    }
    for _ in 0..10 {
        // The same disk, which does not stop for these.
        fast.send_get("slow.test", "/fast.txt");
        assert_eq!(fast.read_response().text(), "fast");
        fast.send("POST / HTTP/1.1\r\nHost: slow.test\r\nContent-Length: 2\r\n\r\nhi");
        bridge.serve_to(&mut fast, "backend");
    }
    assert!(slow.iter().all(|client| !client.has_bytes()), "the disk did not stop");
    disk.go_on();
    for (client, (path, text)) in slow.iter_mut().zip(paths) {
        assert_eq!(client.read_response().text(), text, "{path}");
        client.send_get("fast.test", "/a");
        assert_eq!(client.read_response().text(), "other site");
    }
}

#[test]
fn a_large_file_is_read_by_threads_and_whole() {
    let Some(disk) = SlowDisk::mount() else { return };
    let proxy = disk.serve("");
    let _at_last = disk.goes_on_at_last();
    let mut client = Client::get(&proxy, "slow.test", "/slow-read-large");
    let mut part = Client::request(
        &proxy,
        "GET /slow-read-large HTTP/1.1\r\nHost: slow.test\r\nRange: bytes=300000-300009,5-6\r\n\r\n",
    );
    disk.go_on();
    let byte = |at: usize| (at % 256) as u8;
    let body = client.read_response().body;
    assert!(body.len() == 1 << 20 && body.iter().enumerate().all(|(at, own)| *own == byte(at)));
    let parts = part.read_response();
    assert_eq!(parts.status(), 206);
    let expected: Vec<u8> = (300_000..300_010).map(byte).collect();
    assert!(parts.body.windows(10).any(|own| own == expected), "{parts:?}");
}

#[test]
fn a_disk_that_has_stopped_collects_only_so_many_requests() {
    /// The threads of a folder, and the tasks that may wait for them.
    const TAKEN: usize = 4 + 512;
    const ALL: usize = TAKEN + 40;
    let Some(disk) = SlowDisk::mount() else { return };
    let proxy = disk.serve("");
    let _at_last = disk.goes_on_at_last();
    let begun = Instant::now();
    let clients: Vec<Client> =
        (0..ALL).map(|_| Client::get(&proxy, "slow.test", "/slow-open.txt")).collect();
    eventually("all of them have come", || {
        proxy.info().number(&["counters", "file_reads"]) >= ALL as u64
    });
    let seconds = begun.elapsed().as_secs() as usize;
    disk.go_on();
    let mut opened = 0;
    for mut client in clients {
        let answer = client.read_response();
        if answer.status() == 200 {
            assert_eq!(answer.text(), "opened");
            opened += 1;
        } else {
            answer.assert_own_reply(503);
            let why = answer.field("proxy-status").unwrap_or_default();
            assert!(why.contains("files-busy"), "{answer:?}");
        }
    }
    // Each second a task of the folder's own is among them.
    assert!((TAKEN - 10 - seconds..=TAKEN).contains(&opened), "{opened} in {seconds} s");
}

#[test]
fn a_file_that_does_not_come_in_time_is_504_or_cut_off() {
    let Some(disk) = SlowDisk::mount() else { return };
    let proxy = disk.serve("response-timeout 1s");
    let _at_last = disk.goes_on_at_last();
    for path in ["/slow-open.txt", "/slow-read.txt"] {
        let answer = Client::ask(&proxy, format!("GET {path} HTTP/1.1\r\nHost: slow.test\r\n\r\n"));
        answer.assert_own_reply(504);
        let why = answer.field("proxy-status").unwrap_or_default();
        assert!(why.contains("file-timeout"), "{answer:?}");
    }
    // The answer to a HEAD has no body.
    let mut client = Client::connect(&proxy);
    client.send("HEAD /slow-open.txt HTTP/1.1\r\nHost: slow.test\r\n\r\n");
    let answer = String::from_utf8(client.read_to_end().0).expect("a head");
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.ends_with("\r\n\r\n"), "{answer:?}");
    // What comes late finds nobody, and harms nobody.
    disk.go_on();
    eventually("it is served in time", || {
        let answer = Client::ask(&proxy, "GET /fast.txt HTTP/1.1\r\nHost: slow.test\r\n\r\n");
        answer.text() == "fast"
    });
}

#[test]
fn a_file_that_a_backend_names_may_be_slow_too() {
    let Some(disk) = SlowDisk::mount() else { return };
    let mounted = disk.dir.path().join("mounted");
    let proxy = Proxy::with(&format!("site a.test sendfile-root={}", mounted.display()));
    let _at_last = disk.goes_on_at_last();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut clients = ["slow-open.txt", "slow-read.txt", "slow-lookup-none"].map(|name| {
        let mut client = Client::connect(&proxy);
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\nRange: bytes=1-2\r\n\r\n");
        bridge.accept_request();
        bridge.send(format!(
            "HTTP/1.1 200 OK\r\nX-Sendfile: {name}\r\nContent-Type: a/b\r\nContent-Length: 0\r\n\r\n"
        ));
        client
    });
    // The bridge is free for others while the disk is not there.
    let mut other = Client::get(&proxy, "a.test", "/other");
    bridge.serve_to(&mut other, "other");
    disk.go_on();
    for (client, (status, text)) in
        clients.iter_mut().zip([(206, "pe"), (206, "ea"), (404, "there is no such file\n")])
    {
        let response = client.read_response();
        assert_eq!((response.status(), &*response.text()), (status, text));
        crate::common::exchange(client, &mut bridge);
    }
}
