//! Addresses for listeners that a test stops and starts again.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

/// An address of this machine's own network that no other test uses, nor another run of the tests
/// at the same time. The kernel gives no port there to a connection that is dialled (that one comes
/// from 127.0.0.1), so a port that a test has had stays free until it takes it again.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let run = std::process::id();
    let [high, low] = [1 + run / 250 % 250, 1 + run % 250].map(|part| part as u8);
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    assert!(number < u8::MAX, "more addresses than there are");
    IpAddr::from([127, high, low, number])
}

/// An address where nobody listens.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).expect("a free port");
    listener.local_addr().expect("its address")
}
