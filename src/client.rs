//! [`BridgeListener`]: a `TcpListener` for Rust backends that have no port to listen on.
//!
//! Instead of waiting for connections it dials the proxy, registers for some host names, and waits
//! until a client's request is matched. [`accept`](BridgeListener::accept) returns a connection
//! whose next bytes are a request, as though the client had connected here.
//!
//! ```
//! use std::io::{self, BufRead, BufReader, Write};
//! use cloudbridge::client::BridgeListener;
//!
//! # fn main() -> io::Result<()> {
//! # let stand_in = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let proxy = stand_in.local_addr()?.to_string();
//! # let asked = std::thread::spawn(move || -> io::Result<String> {
//! #     let (mut bridge, _) = stand_in.accept()?;
//! #     let mut lines = BufReader::new(bridge.try_clone()?);
//! #     let mut line = String::new();
//! #     while lines.read_line(&mut line)? > 2 {}
//! #     bridge.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
//! #     bridge.write_all(b"HTTP/1.1 101 Upgrade\r\nUpgrade: HTTP/1.1\r\n\r\n")?;
//! #     bridge.write_all(b"GET /1 HTTP/1.1\r\n\r\n")?;
//! #     bridge.write_all(b"POST /2 HTTP/1.1\r\nContent-Length: 19\r\n\r\nGET /3 HTTP/1.1\r\n\r\n")?;
//! #     io::read_to_string(lines)
//! # });
//! let listener = BridgeListener::builder(proxy) // such as "proxy.example.com:8079"
//!     .host("hello.example.com")
//!     .build()?;
//! let mut bridge = listener.accept()?;
//! let mut requests = BufReader::new(bridge.try_clone()?);
//! loop {
//!     // Each turn serves one request: the next may come from another client.
//!     let mut head = String::new();
//!     while requests.read_line(&mut head)? > 2 {}
//!     if head.is_empty() {
//!         break; // the proxy has closed this bridge: accept another
//!     }
//!     // Read the body, or close: otherwise it would be taken for the next request.
//!     let closes = ["\nContent-Length:", "\nTransfer-Encoding:"].iter().any(|f| head.contains(f));
//!     let connection = if closes { "close" } else { "keep-alive" };
//!     let answer = format!(
//!         "HTTP/1.1 200 OK\r\nConnection: {connection}\r\nContent-Length: 6\r\n\r\nhello\n"
//!     );
//!     bridge.write_all(answer.as_bytes())?;
//!     if closes {
//!         break;
//!     }
//! }
//! # drop((bridge, requests));
//! # assert_eq!(asked.join().expect("no panic")?.matches("hello\n").count(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # One bridge, many requests
//!
//! An accepted connection carries one request at a time. If the backend answers without
//! `Connection: close`, the connection stays open, and the proxy sends the next request over it,
//! from any client. So the number of connections is the number of requests that the backend serves
//! at once: accept in that many threads. A backend may also close after each response and accept
//! again, at the price of a handshake for each request.
//!
//! Read each request's body to its end before the next head, or answer with `Connection: close` and
//! close. A body that is left unread would be taken for the next request, and its answer would go
//! to another client. The proxy writes the fields that frame a body itself, as `Content-Length` or
//! `Transfer-Encoding: chunked`, one of them at most.
//!
//! Between two requests the proxy sends nothing, so a backend cannot tell an idle proxy from one
//! whose machine is gone. Set a read timeout, announce it as `Keep-Alive: timeout=SECONDS` (the
//! proxy does not use the bridge in the last of these seconds), and accept again when it has
//! passed: [`accept`](BridgeListener::accept) notices a dead proxy by its missing pings.
//!
//! # TLS
//!
//! A proxy given as `tls://proxy.example.com` is dialled by TLS, at port 8443 unless another is given:
//!
//! ```no_run
//! # use cloudbridge::client::BridgeListener;
//! # fn main() -> std::io::Result<()> {
//! let listener = BridgeListener::builder("tls://proxy.example.com")
//!     .host("hello.example.com")
//!     .ca("/etc/hello/issuer.pem") // the default: those that this machine trusts
//!     .build()?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Builder::server_name`] and [`Builder::client_cert`] are its other options. What is accepted is a
//! [`BridgeStream`], with TLS or without, which is used as a `TcpStream` is.
//!
//! # Servers on tokio
//!
//! With the feature `tokio`, [`AsyncBridgeListener`] hands bridges to hyper and others; with the
//! feature `axum`, `axum::serve` takes it as its listener. `examples/hyper.rs` and
//! `examples/axum.rs` use it.
//!
//! # Shutting down
//!
//! A program that simply exits may close a bridge just as a request comes over it. End with
//! [`shutdown`](BridgeListener::shutdown) instead: the proxy closes each bridge when it is idle,
//! and the program exits when it has read the end of all of them.

pub(crate) mod announce;
mod builder;
mod connection;
mod encrypted;
pub(crate) mod handshake;
mod line;
mod listener;
mod messages;
mod parked;
mod places;
mod records;
#[cfg(feature = "tokio")]
mod sockets;
mod stream;
mod target;
#[cfg(feature = "tokio")]
mod tokio;
mod wire;

#[cfg(feature = "tokio")]
pub use self::tokio::{AsyncBridgeListener, Bridge};
pub use builder::Builder;
pub(crate) use builder::Scope;
pub use handshake::Refused;
pub(crate) use listener::MISSED_PINGS;
pub use listener::{BridgeListener, PING_INTERVAL};
pub use places::Places;
pub use stream::BridgeStream;
pub use target::{DEFAULT_PORT, DEFAULT_TLS_PORT};

#[cfg(test)]
mod tests;
