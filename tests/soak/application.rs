//! The application of the soak over the Rust library: what `application.py` says of /get and /post.
//!
//! ```sh
//! soak-application JOURNAL HOST PROXY...
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread;
use std::time::Duration;

use cloudbridge::client::{BridgeListener, BridgeStream};
use tokio::signal::unix::{SignalKind, signal};

/// Bridges at each proxy.
const THREADS: usize = 4;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [journal, host, proxies @ ..] = &words[..] else {
        return Err(io::Error::other("usage: soak-application JOURNAL HOST PROXY..."));
    };
    let journal: &'static File =
        Box::leak(Box::new(File::options().append(true).create(true).open(journal)?));
    let (mut listeners, mut workers) = (Vec::new(), Vec::new());
    for proxy in proxies {
        let listener = BridgeListener::builder(proxy.as_str()).host(host.as_str()).build()?;
        for _ in 0..THREADS {
            let listener = listener.clone();
            workers.push(thread::spawn(move || {
                for bridge in listener.incoming().filter_map(Result::ok) {
                    // It ends with its connection.
                    let _ = serve(bridge, journal);
                }
            }));
        }
        listeners.push(listener);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        signal(SignalKind::terminate())?.recv().await;
        io::Result::Ok(())
    })?;
    for listener in listeners {
        if let Err(error) = listener.shutdown() {
            eprintln!("soak-application: {error}");
        }
    }
    workers.into_iter().for_each(|worker| drop(worker.join()));
    Ok(())
}

/// Serves request after request until the connection ends.
fn serve(mut bridge: BridgeStream, mut journal: &File) -> io::Result<()> {
    let mut reader = BufReader::new(bridge.try_clone()?);
    while let Some((start, fields)) = read_head(&mut reader)? {
        let mut words = start.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (what, id) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
        journal.write_all(format!("R {id} {method}\n").as_bytes())?;
        let length = fields.get("content-length").and_then(|length| length.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let text = match what {
            "post" => {
                journal.write_all(format!("X {id}\n").as_bytes())?;
                format!("{id} {}:{:08x}", body.len(), crc32(&body))
            }
            _ => id.to_owned(),
        };
        let work = query.strip_prefix("work=").and_then(|work| work.parse().ok());
        thread::sleep(Duration::from_millis(work.unwrap_or(0)));
        let length = text.len();
        let head = format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: {length}\r\n\r\n");
        bridge.write_all((head + &text).as_bytes())?;
        journal.write_all(format!("E {id}\n").as_bytes())?;
    }
    Ok(())
}

/// The first line of a head, and its fields; `None` at the end of the connection.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<(String, HashMap<String, String>)>> {
    let mut start = String::new();
    if reader.read_line(&mut start)? == 0 {
        return Ok(None);
    }
    let mut fields = HashMap::new();
    for line in reader.lines() {
        match line?.split_once(": ") {
            Some((name, value)) => fields.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    Ok(Some((start, fields)))
}

/// CRC-32 as zlib's.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |value: u32, _| if value & 1 != 0 { (value >> 1) ^ 0xedb8_8320 } else { value >> 1 };
    !bytes.iter().fold(!0, |value, byte| (0..8).fold(value ^ u32::from(*byte), step))
}
