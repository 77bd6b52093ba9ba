//! A proxy that the test plays, for what agents and clients say to one.

use super::{Bridge, Message, Wire, eventually, own_address};
use std::net::TcpListener;

/// A listener for bridges.
#[derive(Debug)]
pub struct Played(TcpListener);

impl Played {
    #[track_caller]
    pub fn start() -> Played {
        Played::over(TcpListener::bind((own_address(), 0)).expect("a port"))
    }

    pub fn over(listener: TcpListener) -> Played {
        // Nothing waits without end for a program that does not come.
        listener.set_nonblocking(true).expect("non-blocking");
        Played(listener)
    }

    /// Where it listens, as an argument.
    pub fn at(&self) -> String {
        self.0.local_addr().expect("an address").to_string()
    }

    /// The next connection.
    #[track_caller]
    pub fn connection(&self) -> Wire {
        let mut accepted = None;
        eventually("a connection comes", || {
            accepted = self.0.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.expect("a connection");
        stream.set_nonblocking(false).expect("blocking");
        Wire::new(stream)
    }

    /// The next connection as a bridge, and its BRIDGE.
    #[track_caller]
    pub fn bridge(&self) -> (Bridge, Message) {
        let mut bridge = Bridge::over(self.connection());
        let head = bridge.read_head();
        assert_eq!(head.start, "BRIDGE / HTTP/1.1");
        (bridge, head)
    }

    /// Whether nobody has connected whom the test has not taken.
    pub fn is_quiet(&self) -> bool {
        self.0.accept().is_err()
    }
}
