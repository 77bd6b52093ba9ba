use super::*;
use mio::{Events, Poll};
use std::net::TcpStream as Client;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for a wakeup that is to come, on a busy machine.
const LATE: Duration = Duration::from_secs(20);

fn passed() -> (OwnedFd, SocketAddr) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket.into(), address)
}

/// Whether the poll has something now.
fn is_woken(poll: &mut Poll) -> bool {
    let mut events = Events::with_capacity(8);
    poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
    !events.is_empty()
}

/// Each thread waits, accepts everything, and stands back, as a worker does.
#[test]
fn threads_that_share_a_socket_take_turns_and_lose_no_connection() {
    const CONNECTIONS: usize = 40;
    let (socket, address) = passed();
    let listeners = share(&socket, "127.0.0.1:0", 2).unwrap();
    let (accepted, news) = mpsc::channel();
    for (index, mut listener) in listeners.into_iter().enumerate() {
        let accepted = accepted.clone();
        thread::spawn(move || {
            let mut poll = Poll::new().unwrap();
            let token = Token(7);
            listener.watch(poll.registry(), token).unwrap();
            let mut events = Events::with_capacity(8);
            loop {
                poll.poll(&mut events, None).unwrap();
                assert!(events.iter().all(|event| event.token() == token));
                let mut any = false;
                while let Ok((stream, _)) = listener.accept() {
                    any = true;
                    if accepted.send((index, stream)).is_err() {
                        return;
                    }
                }
                if any {
                    listener.stand_back(poll.registry(), token).unwrap();
                }
            }
        });
    }
    let mut counts = [0; 2];
    let until = Instant::now() + LATE;
    // On a busy machine a thread may not be there yet, or not be back when the next connection comes.
    while counts.iter().sum::<usize>() < CONNECTIONS
        || counts.iter().any(|&count| count < CONNECTIONS / 20)
    {
        assert!(Instant::now() < until, "{counts:?}");
        let _client = Client::connect(address).unwrap();
        let (index, _stream) = news.recv_timeout(LATE).expect("a connection is lost");
        counts[index] += 1;
    }
}

#[test]
fn a_thread_that_does_not_wait_sees_the_connection_too() {
    let (socket, address) = passed();
    let mut listeners = share(&socket, "127.0.0.1:0", 2).unwrap();
    let mut polls = [Poll::new().unwrap(), Poll::new().unwrap()];
    for (poll, listener) in polls.iter().zip(&mut listeners) {
        listener.watch(poll.registry(), Token(1)).unwrap();
    }
    let _client = Client::connect(address).unwrap();
    assert!(polls.iter_mut().all(is_woken), "nobody waited, so everybody must look");
    // One that begins to watch with a connection in the backlog sees it.
    listeners[0].stand_back(polls[0].registry(), Token(1)).unwrap();
    assert!(is_woken(&mut polls[0]));
    // After `unwatch` it is out, though the socket is open elsewhere.
    listeners[0].unwatch(polls[0].registry()).unwrap();
    drop(listeners.remove(0));
    let _another = Client::connect(address).unwrap();
    assert!(!is_woken(&mut polls[0]) && is_woken(&mut polls[1]));
}

#[test]
fn sockets_are_what_they_are() {
    let (socket, address) = passed();
    assert_eq!(place_of(&socket), Ok(address.to_string()));
    let datagram: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
    assert_eq!(
        place_of(&datagram).unwrap_err(),
        "it is a socket for datagrams, not for connections"
    );
    let path = std::env::temp_dir().join(format!("cloudbridge-listener-{}", std::process::id()));
    let unix: OwnedFd = UnixListener::bind(&path).unwrap().into();
    std::fs::remove_file(&path).unwrap();
    let place = place_of(&unix).unwrap();
    assert_eq!(place, format!("unix:{}", path.display()));
    assert!(is_unix(&place) && !is_unix(&address.to_string()));
    let (connected, _) = UnixStream::pair().unwrap();
    assert_eq!(place_of(&connected.into()).unwrap_err(), "it does not listen");
    let file = OwnedFd::from(File::open("/dev/null").unwrap());
    assert_eq!(place_of(&file).unwrap_err(), "it is no socket of TCP or Unix");
    let copies = [socket.try_clone().unwrap(), unix, socket];
    assert_eq!(distinct(&copies).unwrap().len(), 2);
}

/// As after a restart with another number of workers: each socket has its thread, and each thread
/// its socket.
#[test]
fn inherited_sockets_fit_any_number_of_threads() {
    let options = SocketOptions { keepalive: Duration::ZERO, user_timeout: Duration::ZERO };
    let all = open("127.0.0.1:0".parse().unwrap(), 3, &options).unwrap();
    let shown = all[0].to_string();
    let sockets: Vec<OwnedFd> = all.iter().map(|one| one.duplicate().unwrap()).collect();
    for (count, each) in [(1, vec![3]), (2, vec![2, 1]), (3, vec![1, 1, 1]), (5, vec![1; 5])] {
        let threads = inherit(&sockets, &shown, count, &options).unwrap();
        assert_eq!(threads.iter().map(Vec::len).collect::<Vec<_>>(), each);
        let taken: Vec<OwnedFd> =
            threads.iter().flatten().map(|listener| listener.duplicate().unwrap()).collect();
        assert_eq!(distinct(&taken).unwrap().len(), count.max(3));
    }
}
