//! What stands in a page for the reader's own: addresses, ports, names of proxies, paths. A test puts
//! its own in their place, so that it needs nothing and disturbs nobody.

use crate::common::{Dir, free_ports, own_address};
use std::net::IpAddr;
use std::path::Path;

/// The ports that the pages use.
const PORTS: &[&str] = &["8079", "8080", "8404", "8405", "3000", "3001", "3002", "30000"];

/// The proxies that the pages name, and the port that each of them is given here.
const PROXIES: &[(&str, &str)] = &[
    ("proxy1.example.com", "8079"),
    ("proxy2.example.com", "8080"),
    ("proxy.example.com", "8079"),
];

/// Where files of the system are.
const FOLDERS: &[&str] = &["/etc/", "/run/", "/var/lib/", "/var/log/", "/usr/local/"];

pub struct Places {
    address: IpAddr,
    /// Those of [`PORTS`].
    ports: Vec<u16>,
    dir: Dir,
}

impl Places {
    pub fn new() -> Places {
        let address = own_address();
        Places { address, ports: free_ports(address, PORTS.len()), dir: Dir::new() }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Puts a file into the directory.
    pub fn write(&self, name: &str, contents: &str) {
        self.dir.write(name, contents);
    }

    /// The text with the test's own.
    pub fn put_into(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, port) in PROXIES {
            let own = format!("127.0.0.1:{port}");
            text = text.replace(&format!("{name}:8079"), &own).replace(name, &own);
        }
        text = self.with_ports(&text.replace("--to 3", "--to 127.0.0.1:3"));
        text = text.replace("127.0.0.1", &self.address.to_string());
        for folder in FOLDERS {
            text = text.replace(folder, &format!("{}{folder}", self.dir().display()));
        }
        text
    }

    /// What a program has printed, with the address of the page.
    pub fn take_out_of(&self, text: &str) -> String {
        text.replace(&self.address.to_string(), "127.0.0.1")
    }

    fn with_ports(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
            out.push_str(&rest[..start]);
            rest = &rest[start..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            match PORTS.iter().position(|port| *port == &rest[..end]) {
                Some(at) => out.push_str(&self.ports[at].to_string()),
                None => out.push_str(&rest[..end]),
            }
            rest = &rest[end..];
        }
        out + rest
    }
}

#[test]
fn what_is_the_readers_own_is_replaced() {
    let places = Places::new();
    let [port, second, three] = ["8079", "8080", "3000"]
        .map(|name| places.ports[PORTS.iter().position(|port| *port == name).unwrap()]);
    let (address, dir) = (places.address, places.dir().display().to_string());
    for (text, expected) in [
        ("cloudbridge 127.0.0.1:8079 &", format!("cloudbridge {address}:{port} &")),
        ("--to 3000 proxy.example.com", format!("--to {address}:{three} {address}:{port}")),
        ("proxy2.example.com:8079 x8079", format!("{address}:{second} x8079")),
        ("-c /etc/a.conf </run/b", format!("-c {dir}/etc/a.conf <{dir}/run/b")),
        ("bench/run --list", "bench/run --list".to_owned()),
    ] {
        assert_eq!(places.put_into(text), expected);
    }
    assert_eq!(places.take_out_of(&format!("from {address}")), "from 127.0.0.1");
}
