//! Addresses for listeners that a test stops and starts again.

use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, SocketAddr};
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

/// An address where nobody listens. The socket that finds the port never listens: a program that
/// another test starts at this moment has a copy of it until its exec, and one that listened would keep
/// the port from the program that is to have it.
pub fn free_address() -> SocketAddr {
    let address = own_address();
    (address, free_ports(address, 1)[0]).into()
}

/// So many ports of an address that [`own_address`] has returned, where nobody listens.
pub fn free_ports(address: IpAddr, count: usize) -> Vec<u16> {
    let bound = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("an option");
        socket.bind(&SocketAddr::from((address, 0)).into()).expect("a free port");
        socket
    };
    // All are open at the same time, so they differ.
    let sockets: Vec<Socket> = (0..count).map(bound).collect();
    sockets.iter().map(port_of).collect()
}

/// A port of 127.0.0.1 where nobody listens, and nobody can as long as the socket is kept.
pub fn kept_port() -> (Socket, u16) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&address.into()).expect("a free port");
    let port = port_of(&socket);
    (socket, port)
}

fn port_of(socket: &Socket) -> u16 {
    let found = socket.local_addr().expect("its address");
    found.as_socket().expect("an address of IPv4").port()
}
