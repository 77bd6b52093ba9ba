//! Files of a folder of the test's: what is opened, read and said of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use httparse::Header;

use super::response::{self, Asked, Body, Kept, Piece};
use super::{OpenFile, Opened, Read, Root, Way};
use crate::http::Version;

/// A folder that is removed with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cloudbridge-files-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("root/sub")).unwrap();
        Dir(path)
    }

    fn write(&self, name: &str, contents: &str) {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        // Sun, 06 Nov 1994 08:49:37 GMT, and a nanosecond.
        file.set_modified(UNIX_EPOCH + Duration::new(784_111_777, 1)).unwrap();
    }

    fn root(&self, follows: bool) -> Root {
        Root::open(&self.0.join("root"), follows).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn file(root: &Root, name: &str) -> Arc<OpenFile> {
    match root.find(name.as_bytes(), Way::Waiting, true) {
        Opened::File(file) => file,
        _ => panic!("{name} is not there"),
    }
}

fn is_missing(root: &Root, name: &str) -> bool {
    let at_once = root.find(name.as_bytes(), Way::AtOnce, false);
    assert!(matches!(at_once, Opened::Missing | Opened::NotNow), "{name} is there at once");
    matches!(root.find(name.as_bytes(), Way::Waiting, false), Opened::Missing)
}

fn head_of(file: &Arc<OpenFile>, fields: &[(&str, &str)]) -> (String, Body) {
    let fields: Vec<Header<'_>> =
        fields.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
    planned(file, &Asked { fields: &fields, ..GET })
}

const GET: Asked<'static> = Asked {
    fields: &[],
    is_get: true,
    is_head: false,
    version: Version::V11,
    close: false,
    cache_control: None,
    kept: None,
};

fn planned(file: &Arc<OpenFile>, asked: &Asked<'_>) -> (String, Body) {
    let mut out = Vec::new();
    let planned = response::plan(file, asked, &mut out);
    let text = String::from_utf8(out).unwrap();
    let lines = text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: "));
    (lines.collect(), planned.body)
}

const ABOUT: &str = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nETag: \"2ebc98a1.1-a\"\r\n\
                     Accept-Ranges: bytes\r\n";

#[test]
fn only_files_below_the_folder_are_opened() {
    let dir = Dir::new();
    dir.write("root/a", "inside");
    dir.write("outside", "outside");
    let outside = dir.0.join("outside");
    symlink("a", dir.0.join("root/link")).unwrap();
    symlink("../outside", dir.0.join("root/up")).unwrap();
    symlink(&outside, dir.0.join("root/absolute")).unwrap();
    symlink(dir.0.join("root/a"), dir.0.join("root/absolute-inside")).unwrap();
    symlink("..", dir.0.join("root/parent")).unwrap();
    symlink("/proc/self/root", dir.0.join("root/magic")).unwrap();
    symlink("loop", dir.0.join("root/loop")).unwrap();
    std::os::unix::net::UnixListener::bind(dir.0.join("root/socket")).unwrap();
    let (strict, follows) = (dir.root(false), dir.root(true));
    for root in [&strict, &follows] {
        assert_eq!(file(root, "a").size, 6);
        let absolute = outside.display().to_string();
        for name in [
            "up",
            "absolute",
            "absolute-inside",
            "parent/outside",
            "magic/etc/hostname",
            "loop",
            "socket",
            "sub",
            "sub/",
            "../outside",
            &absolute,
            "none",
            "a/b",
            "",
            ".",
            "..",
        ] {
            assert!(is_missing(root, name), "{name}");
        }
    }
    assert!(is_missing(&strict, "link"));
    assert_eq!(file(&follows, "link").size, 6);
    assert!(is_missing(&strict, &"a/".repeat(3000)));
}

#[test]
fn a_path_is_below_the_folder_by_either_of_its_names() {
    let dir = Dir::new();
    symlink("root", dir.0.join("alias")).unwrap();
    let root = Root::open(&dir.0.join("alias"), false).unwrap();
    let name = |path: String| root.name_of(path.as_bytes());
    let real = dir.0.canonicalize().unwrap();
    for base in [dir.0.join("alias"), real.join("root")] {
        assert_eq!(name(format!("{}/sub/a", base.display())).unwrap(), b"sub/a");
        for tail in ["", "/", "x/a", "/../outside", "/sub/../../outside", "/./a", "//a"] {
            assert_eq!(name(format!("{}{tail}", base.display())), None, "{tail}");
        }
    }
    assert_eq!(name("sub/a".to_owned()).unwrap(), b"sub/a");
    assert_eq!(name("/etc/passwd".to_owned()), None);
    assert_eq!(name("../a".to_owned()), None);
    assert_eq!(name(String::new()), None);
}

#[test]
fn a_path_that_leads_elsewhere_is_followed_when_it_is_looked_at_again() {
    let dir = Dir::new();
    fs::create_dir(dir.0.join("other")).unwrap();
    dir.write("other/new", "new");
    symlink("root", dir.0.join("current")).unwrap();
    let root = Root::open(&dir.0.join("current"), false).unwrap();
    assert!(is_missing(&root, "new"));
    symlink("other", dir.0.join("next")).unwrap();
    fs::rename(dir.0.join("next"), dir.0.join("current")).unwrap();
    assert!(is_missing(&root, "new"));
    root.look_again();
    assert_eq!(file(&root, "new").size, 3);
    fs::remove_file(dir.0.join("current")).unwrap();
    root.look_again();
    assert_eq!(file(&root, "new").size, 3);
}

#[test]
fn what_is_in_memory_is_read_at_once() {
    let dir = Dir::new();
    let text = "0123456789".repeat(20_000);
    dir.write("root/a", &text);
    let root = dir.root(false);
    let file = file(&root, "a");
    let mut bytes = vec![0; 1000];
    // It has just been written.
    if file.read_at_once(&mut bytes, 100_005) == Read::Whole {
        assert_eq!(bytes, &text.as_bytes()[100_005..101_005]);
        assert!(file.is_in_memory(0, file.size));
    }
    assert_eq!(file.read_waiting(7, 1000).unwrap(), &text.as_bytes()[7..1007]);
    assert!(file.is_unchanged());
    dir.write("root/a", "short");
    assert!(!file.is_unchanged());
    assert_eq!(file.read_at_once(&mut bytes, 100_005), Read::Cut);
    assert!(file.read_waiting(0, 6).is_err());
}

#[test]
fn a_response_says_what_the_file_is() {
    let dir = Dir::new();
    dir.write("root/a.txt", "0123456789");
    let file = file(&dir.root(false), "a.txt");
    let (head, body) = head_of(&file, &[]);
    let media = "Content-Type: text/plain; charset=utf-8\r\n";
    assert_eq!(head, format!("HTTP/1.1 200 OK\r\n{media}Content-Length: 10\r\n{ABOUT}\r\n"));
    assert!(matches!(body, Body::Part(range) if range == (0..10)));
    let (head, body) = head_of(&file, &[("Range", "bytes=2-4")]);
    assert_eq!(
        head,
        format!(
            "HTTP/1.1 206 Partial Content\r\n{media}Content-Range: bytes 2-4/10\r\n\
             Content-Length: 3\r\n{ABOUT}\r\n"
        )
    );
    assert!(matches!(body, Body::Part(range) if range == (2..5)));
    let (head, body) = head_of(&file, &[("Range", "bytes=10-")]);
    assert_eq!(
        head,
        format!(
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */10\r\n\
             Content-Length: 0\r\n{ABOUT}\r\n"
        )
    );
    assert!(matches!(body, Body::Nothing));
    let (head, body) = head_of(&file, &[("If-None-Match", "\"2ebc98a1.1-a\"")]);
    assert_eq!(head, format!("HTTP/1.1 304 Not Modified\r\n{ABOUT}\r\n"));
    assert!(matches!(body, Body::Nothing));
    let (head, body) = head_of(&file, &[("If-Match", "\"x\""), ("Range", "bytes=0-1")]);
    assert_eq!(head, "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n");
    assert!(matches!(body, Body::Nothing));
    let (head, _) = head_of(&file, &[("If-Range", "\"x\""), ("Range", "bytes=0-1")]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"));
    let (head, _) = head_of(&file, &[("Range", "bytes=0-1"), ("Range", "bytes=0-1")]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn head_is_answered_without_a_body_and_without_ranges() {
    let dir = Dir::new();
    dir.write("root/a.txt", "0123456789");
    let file = file(&dir.root(false), "a.txt");
    let fields = [Header { name: "Range", value: b"bytes=0-1" }];
    let asked = Asked {
        fields: &fields,
        is_get: false,
        is_head: true,
        version: Version::V10,
        cache_control: Some("no-cache"),
        ..GET
    };
    let (head, body) = planned(&file, &asked);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Content-Length: 10\r\n"));
    assert!(head.ends_with("Cache-Control: no-cache\r\nConnection: keep-alive\r\n\r\n"), "{head}");
    assert!(matches!(body, Body::Nothing));
    let (head, _) = planned(&file, &Asked { close: true, ..asked });
    assert!(head.ends_with("Cache-Control: no-cache\r\nConnection: close\r\n\r\n"), "{head}");
}

#[test]
fn several_ranges_are_several_parts() {
    let dir = Dir::new();
    dir.write("root/a.txt", "0123456789");
    let file = file(&dir.root(false), "a.txt");
    let (head, body) = head_of(&file, &[("Range", "bytes=8-,0-1")]);
    let (_, rest) = head.split_once("multipart/byteranges; boundary=").unwrap();
    let boundary = rest.split("\r\n").next().unwrap();
    let Body::Parts(pieces) = &body else { panic!("one part") };
    let text: String = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Bytes(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            Piece::File(range) => format!("<{range:?}>"),
        })
        .collect();
    let media = "Content-Type: text/plain; charset=utf-8";
    assert_eq!(
        text,
        format!(
            "\r\n--{boundary}\r\n{media}\r\nContent-Range: bytes 8-9/10\r\n\r\n<8..10>\
             \r\n--{boundary}\r\n{media}\r\nContent-Range: bytes 0-1/10\r\n\r\n<0..2>\
             \r\n--{boundary}--\r\n"
        )
    );
    let length = text.len() - "<8..10><0..2>".len() + 4;
    assert!(head.contains(&format!("Content-Length: {length}\r\n")), "{head}");
    assert_eq!(body.len(), length as u64);
    let (other, _) = head_of(&file, &[("Range", "bytes=8-,0-1")]);
    assert_ne!(other, head, "the same boundary again");
}

#[test]
fn a_compressed_form_is_another_representation() {
    let dir = Dir::new();
    dir.write("root/a.css", "0123456789");
    dir.write("root/a.css.br", "brotli");
    dir.write("root/a.css.gz", "gzip!");
    let root = dir.root(false);
    let plain = file(&root, "a.css");
    let best = |accept: &str| {
        let best = plain.best([accept.as_bytes()].into_iter());
        head_of(best, &[]).0
    };
    assert!(best("").contains("Content-Length: 10\r\n"), "{}", best(""));
    assert!(best("").contains("Vary: Accept-Encoding\r\n"), "{}", best(""));
    assert_eq!(
        best("gzip, br"),
        "HTTP/1.1 200 OK\r\nContent-Type: text/css; charset=utf-8\r\nContent-Length: 6\r\n\
         Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nETag: \"2ebc98a1.1-6-br\"\r\n\
         Vary: Accept-Encoding\r\nContent-Encoding: br\r\nAccept-Ranges: bytes\r\n\r\n"
    );
    assert!(best("gzip").contains("ETag: \"2ebc98a1.1-5-gzip\"\r\n"));
    // By its own name it is a file like others.
    let own = head_of(&file(&root, "a.css.gz"), &[]).0;
    assert!(own.contains("application/gzip") && !own.contains("Vary"), "{own}");
}

#[test]
fn what_a_backend_says_is_kept() {
    let dir = Dir::new();
    dir.write("root/a.txt", "0123456789");
    let file = file(&dir.root(false), "a.txt");
    let kept = Kept {
        fields: b"Set-Cookie: a=b\r\n".to_vec(),
        content_type: Some(b"application/x-own".to_vec()),
    };
    let (head, _) = planned(&file, &Asked { kept: Some(&kept), ..GET });
    assert_eq!(
        head,
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-own\r\nContent-Length: 10\r\n{ABOUT}\
             Set-Cookie: a=b\r\n\r\n"
        )
    );
}
