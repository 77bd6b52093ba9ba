//! What haproxy knows of the proxies behind it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The fields of each server of a backend, by the server's name, as the socket of haproxy at this
/// path tells them; none while haproxy does not listen there.
pub fn haproxy_servers(socket: &Path, backend: &str) -> HashMap<String, HashMap<String, String>> {
    let Ok(mut socket) = UnixStream::connect(socket) else {
        return HashMap::new();
    };
    socket
        .write_all(format!("show servers state {backend}\n").as_bytes())
        .expect("haproxy's socket");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("haproxy's socket");
    let mut lines = text.lines().skip(1);
    let names: Vec<&str> = lines.next().unwrap_or_default().split(' ').skip(1).collect();
    let rows = lines.filter(|line| !line.is_empty()).map(|line| {
        let fields = names.iter().zip(line.split(' '));
        fields.map(|(name, field)| ((*name).to_owned(), field.to_owned())).collect()
    });
    rows.map(|row: HashMap<String, String>| (row["srv_name"].clone(), row)).collect()
}
