//! Addresses for listeners that a test stops and starts again.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// An address of this machine's own network that no other test uses, nor another run of the tests
/// at the same time. The kernel gives no port there to a connection that is dialled (that one comes
/// from 127.0.0.1), so a port that a test has had stays free until it takes it again.
pub fn own_address() -> IpAddr {
    /// A run has the addresses of four networks with 254 each.
    const EACH: u16 = 254;
    const NETWORKS: u16 = 4;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let run = std::process::id();
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    assert!(number < NETWORKS * EACH, "more addresses than there are");
    let runs = 250 / u32::from(NETWORKS);
    let network = 1 + u32::from(NETWORKS) * (run % runs) + u32::from(number / EACH);
    let [high, low] = [1 + run / runs % 250, network].map(|part| part as u8);
    IpAddr::from([127, high, low, (1 + number % EACH) as u8])
}

/// An address where nobody listens.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).expect("a free port");
    listener.local_addr().expect("its address")
}
