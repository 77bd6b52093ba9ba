//! nginx and the proxy serve the same folder: the same answers, but for the listed ones.

use super::tree::Tree;
use crate::common::{App, Client, Message, Proxy, eventually, free_address, installed, pattern};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

/// A running nginx, ended when this is dropped.
struct Nginx(Child);

impl Nginx {
    fn start(proxy: &Proxy, root: &str) -> (Nginx, SocketAddr) {
        let dir = proxy.dir().display().to_string();
        let address = free_address();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {dir}/{kind};"))
            .concat();
        proxy.write(
            "nginx.conf",
            &format!(
                "daemon off;\npid {dir}/nginx.pid;\nerror_log stderr;\nworker_processes 1;\n\
                 events {{ worker_connections 256; }}\n\
                 http {{ {temporary} access_log off; sendfile on; include /etc/nginx/mime.types;\n\
                 default_type application/octet-stream; charset utf-8; charset_types text/css \
                 text/plain application/javascript; gzip_static on; gzip_vary on;\n\
                 if_modified_since before;\n\
                 server {{ listen {address}; root {root}; }} }}\n"
            ),
        );
        let log = File::create(proxy.dir().join("nginx.log")).expect("a file of the test");
        let child = Command::new("nginx")
            .args(["-p", &dir, "-e", "stderr", "-c", "nginx.conf"])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nginx");
        let nginx = Nginx(child);
        eventually("nginx listens", || TcpStream::connect(address).is_ok());
        (nginx, address)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends with it.
        crate::common::signal(self.0.id(), "TERM");
        let _ = self.0.wait();
    }
}

/// What of a response must be the same.
#[derive(Debug, PartialEq)]
struct Same {
    status: u16,
    fields: Vec<(&'static str, Option<String>)>,
    body: Vec<u8>,
}

fn seen(message: &Message) -> Same {
    let status = message.status();
    let value = |name: &'static str| {
        let value = message.field(name)?.to_owned();
        let kind = value.split(';').next().unwrap_or_default();
        match (name, kind) {
            // RFC 9239 has made the one the other.
            ("content-type", "application/javascript") => {
                Some(value.replace("application/javascript", "text/javascript"))
            }
            ("content-type", "multipart/byteranges") => Some(kind.to_owned()),
            _ => Some(value),
        }
    };
    let names: &[&'static str] = match status {
        200 => &[
            "content-type",
            "content-length",
            "last-modified",
            "content-encoding",
            "vary",
            "accept-ranges",
        ],
        206 => &["content-type", "content-range", "last-modified", "content-encoding"],
        304 => &["last-modified", "content-length", "content-encoding"],
        416 => &["content-range"],
        // Their bodies are pages of nginx's, and a line of the backend's.
        _ => &[],
    };
    // nginx has no ranges of what gzip_static sends.
    let is_coded = message.has("content-encoding");
    let names = names.iter().filter(|name| !(is_coded && **name == "accept-ranges"));
    let fields = names.map(|name| (*name, value(name))).collect();
    let body = match status {
        200 | 206 => body(message),
        _ => Vec::new(),
    };
    Same { status, fields, body }
}

/// The body without the boundary of several parts, which is another each time.
fn body(message: &Message) -> Vec<u8> {
    let kind = message.field("content-type").unwrap_or_default();
    let Some((_, boundary)) = kind.split_once("boundary=") else { return message.body.clone() };
    // The types of files here are ASCII, and so are the parts that are asked for in several.
    let text = message.text();
    let text = text.replace(boundary, "BOUNDARY");
    text.replace("application/javascript", "text/javascript").into_bytes()
}

/// Requests that the two answer differently, and why it stays so. Each is asked, and must differ.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("GET /sub", "", "nginx adds the slash by a 301; the name may be the application's"),
    ("GET /empty/", "", "nginx forbids to list a folder (403); the request is for the application"),
    ("GET /.hidden", "", "names that begin with a dot are never served"),
    ("GET //a.txt", "", "nginx merges slashes; a path that can be read in two ways names no file"),
    ("GET /./a.txt", "", "nginx resolves dots; clients do that before they ask"),
    ("GET /sub/../a.txt", "", "the same"),
    ("GET /sub%2Fpage.html", "", "nginx takes an escaped slash for one"),
    ("GET /link.txt", "", "nginx follows links; here that is symlinks=yes"),
    ("GET /a.txt%00", "", "nginx refuses it (400); the application may know better"),
    ("POST /a.txt", "Content-Length: 0\r\n", "nginx: 405; the application may take it"),
    ("GET /a.txt", "Range: bytes=9-5\r\n", "nginx: 416 for what is malformed; RFC 9110: ignored"),
    ("GET /a.txt", "Range: bytes=x\r\n", "the same"),
    ("GET /a.txt", "Range: bytes=1\r\n", "the same"),
    (
        "GET /empty.txt",
        "Range: bytes=2-\r\n",
        "nginx: 416, but 200 if it begins at 0; here it is the whole file",
    ),
    ("GET /empty.txt", "Range: bytes=99999999-\r\n", "the same"),
    ("HEAD /a.txt", "Range: bytes=0-3\r\n", "RFC 9110, 14.2: a Range counts in a GET only"),
    (
        "GET /a.css",
        "Accept-Encoding: gzip\r\nRange: bytes=1-2\r\n",
        "nginx has no ranges of compressed forms",
    ),
    ("GET /a.css", "Accept-Encoding: *\r\n", "nginx does not know the star; it means any coding"),
    ("GET /a.css", "Accept-Encoding: identity, gzip;q=0.5\r\n", "nginx does not compare weights"),
];

#[test]
fn the_same_folder_has_the_same_answers() {
    if !installed("nginx", &["nginx", "-v"]) {
        return;
    }
    let tree = Tree::new(&[
        ("index.html", "<p>front</p>"),
        ("a.txt", "0123456789abcdefghijklmnopqrstuvwxyz"),
        ("a b.txt", "with a space"),
        ("a.css", "a { color: red }"),
        ("a.css.gz", "not really gzip"),
        ("app.js", "let a = 1;"),
        ("pic.png", "not really a picture"),
        ("data.json", "{\"a\": 1}"),
        ("noending", "?"),
        ("empty.txt", ""),
        ("sub/index.html", "<p>sub</p>"),
        ("sub/page.html", "<p>page</p>"),
        (".hidden", "hidden"),
    ]);
    fs::create_dir(tree.path().join("empty")).unwrap();
    std::os::unix::fs::symlink("a.txt", tree.path().join("link.txt")).unwrap();
    tree.write("large.bin", pattern(0, 3_000_000));
    // What is no file goes there.
    let app = App::start(|_| b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnone\n".to_vec());
    let proxy = tree.serve(&format!("servers={}", app.address()));
    let (_nginx, address) = Nginx::start(&proxy, &tree.path().display().to_string());
    let mut client = Client::connect(&proxy);
    let mut ask = |line: &str, fields: &dyn Fn(usize) -> String| {
        let exchange = |client: &mut Client, at: usize| {
            client.send(format!("{line} HTTP/1.1\r\nHost: a.test\r\n{}\r\n", fields(at)));
            match line.starts_with("HEAD") {
                true => client.read_head(),
                false => client.read_response(),
            }
        };
        let ours = exchange(&mut client, 0);
        if ours.field("connection") == Some("close") {
            client = Client::connect(&proxy);
        }
        // nginx closes some connections without having said so.
        (ours, exchange(&mut Client::connect_to(address), 1))
    };
    let (mut asked, mut differ) = (0, Vec::new());
    let mut compare = |line: &str, fields: &str, (ours, theirs): (Message, Message)| {
        asked += 1;
        if seen(&ours) != seen(&theirs) {
            differ.push(format!("{line} {fields}\n    ours: {ours:?}\n    nginx: {theirs:?}\n"));
        }
    };
    for path in [
        "/",
        "/index.html",
        "/a.txt",
        "/a.txt?x=y",
        "/%61.txt",
        "/a%20b.txt",
        "/a.css",
        "/app.js",
        "/pic.png",
        "/data.json",
        "/noending",
        "/empty.txt",
        "/sub/",
        "/sub/page.html",
        "/none",
        "/sub/none",
        "/a.txt/",
        "/large.bin",
    ] {
        let (ours, theirs) = ask(&format!("GET {path}"), &|_| String::new());
        let tags = [&ours, &theirs].map(|m| m.field("etag").unwrap_or("\"none\"").to_owned());
        let own = |name: &'static str, more: &'static str| {
            let tags = tags.clone();
            move |at: usize| format!("{name}: {}\r\n{more}", tags[at])
        };
        let fixed = |text: &'static str| move |_: usize| text.to_owned();
        let all: Vec<Box<dyn Fn(usize) -> String>> = vec![
            Box::new(fixed("")),
            Box::new(fixed("Range: bytes=0-3\r\n")),
            Box::new(fixed("Range: bytes=2-\r\n")),
            Box::new(fixed("Range: bytes=-2\r\n")),
            Box::new(fixed("Range: bytes=0-0,2-3\r\n")),
            Box::new(fixed("Range: bytes=0-99999999\r\n")),
            Box::new(fixed("Range: bytes=99999999-\r\n")),
            Box::new(fixed("Range: bytes=-0\r\n")),
            Box::new(fixed("Range: lines=0-3\r\n")),
            Box::new(own("If-None-Match", "")),
            Box::new(own("If-Match", "")),
            Box::new(own("If-Range", "Range: bytes=1-2\r\n")),
            Box::new(own("If-None-Match", "Range: bytes=1-2\r\n")),
            Box::new(fixed("If-None-Match: \"x\", W/\"y\"\r\n")),
            Box::new(fixed("If-None-Match: *\r\n")),
            Box::new(fixed("If-Match: \"x\"\r\n")),
            Box::new(fixed("If-Range: \"x\"\r\nRange: bytes=1-2\r\n")),
            Box::new(fixed("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n")),
            Box::new(fixed("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n")),
            Box::new(fixed("If-Modified-Since: Sat, 06 Nov 2004 08:49:36 GMT\r\n")),
            Box::new(fixed("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n")),
            Box::new(fixed("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n")),
            Box::new(fixed("If-Range: Sun, 06 Nov 1994 08:49:37 GMT\r\nRange: bytes=1-2\r\n")),
            Box::new(fixed("Accept-Encoding: gzip\r\n")),
            Box::new(fixed("Accept-Encoding: br, gzip;q=0.5\r\n")),
            Box::new(fixed("Accept-Encoding: gzip;q=0\r\n")),
        ];
        for fields in &all {
            let line = format!("GET {path}");
            // Of an empty file nginx makes 200 of some ranges and 416 of others; see below.
            if path == "/empty.txt" && fields(0).contains("Range: bytes") {
                continue;
            }
            compare(&line, &fields(0), ask(&line, fields));
        }
        let line = format!("HEAD {path}");
        compare(&line, "", ask(&line, &|_| String::new()));
    }
    assert!(differ.is_empty(), "{}", differ.concat());
    assert!(asked >= 300, "{asked}");
    for (line, fields, why) in DIFFERENT {
        let (ours, theirs) = ask(line, &|_| (*fields).to_owned());
        assert_ne!(seen(&ours), seen(&theirs), "{line} {fields}: no longer true: {why}");
    }
}
