//! Tests of the system calls that have something to get wrong.

use super::*;
use std::io::Read;
use std::net::{TcpListener, TcpStream};

const OPTIONS: SocketOptions =
    SocketOptions { keepalive: Duration::from_secs(30), user_timeout: Duration::from_secs(30) };

#[test]
fn shared_listeners_share_a_port_and_others_do_not() {
    let first = TcpListener::from(listen("127.0.0.1:0".parse().unwrap(), true, &OPTIONS).unwrap());
    let address = first.local_addr().unwrap();
    listen(address, true, &OPTIONS).unwrap();
    let error = listen(address, false, &OPTIONS).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn a_listener_that_is_stopped_is_stopped_for_everybody_who_has_it() {
    let listener =
        TcpListener::from(listen("127.0.0.1:0".parse().unwrap(), true, &OPTIONS).unwrap());
    let (address, copy) = (listener.local_addr().unwrap(), listener.try_clone().unwrap());
    assert!(is_listening(&listener).unwrap());
    stop_listening(&copy).unwrap();
    assert!(!is_listening(&listener).unwrap());
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    TcpStream::connect(address).unwrap_err();
    TcpListener::bind(address).expect("the address is free");
}

#[test]
fn the_wildcard_takes_both_protocols() {
    if TcpListener::bind("[::1]:0").is_err() {
        return eprintln!("skipped: this machine has no IPv6");
    }
    let listener = TcpListener::from(listen("[::]:0".parse().unwrap(), false, &OPTIONS).unwrap());
    let port = listener.local_addr().unwrap().port();
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    TcpStream::connect(("::1", port)).unwrap();
}

#[test]
fn accepted_sockets_inherit_the_options() {
    let listener =
        TcpListener::from(listen("127.0.0.1:0".parse().unwrap(), true, &OPTIONS).unwrap());
    listener.set_nonblocking(false).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert!(accepted.nodelay().unwrap());
}

#[test]
fn an_urgent_byte_is_one_of_the_stream() {
    let listener =
        TcpListener::from(listen("127.0.0.1:0".parse().unwrap(), true, &OPTIONS).unwrap());
    listener.set_nonblocking(false).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    io::Write::write_all(&mut &client, b"1").unwrap();
    send_urgent(&client, b';').unwrap();
    io::Write::write_all(&mut &client, b"0").unwrap();
    drop(client);
    let mut read = String::new();
    io::Read::read_to_string(&mut accepted, &mut read).unwrap();
    assert_eq!(read, "1;0");
}

#[test]
fn the_descriptor_limit_is_known() {
    assert!(limit_descriptors(None).unwrap() >= 256);
}

#[test]
fn more_descriptors_than_the_kernel_has_are_refused() {
    let before = limit_descriptors(None).unwrap();
    assert!(limit_descriptors(Some(u64::MAX / 2)).is_err());
    assert_eq!(limit_descriptors(None).unwrap(), before);
}

#[test]
fn users_and_groups_are_found_by_name() {
    assert_eq!(find_user(c"root").unwrap(), Some(User { uid: 0, gid: 0 }));
    assert_eq!(find_group(c"root").unwrap(), Some(0));
    assert_eq!(find_user(c"no such user").unwrap(), None);
    assert_eq!(find_group(c"no such group").unwrap(), None);
}

#[test]
fn a_process_with_several_threads_is_not_forked() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || receiver.recv());
    assert_eq!(fork().unwrap_err().kind(), io::ErrorKind::Unsupported);
    drop(sender);
    other.join().unwrap().unwrap_err();
}

#[test]
fn a_file_is_locked_for_one_process_at_a_time() {
    let path = std::env::temp_dir().join(format!("cloudbridge-lock-{}", std::process::id()));
    let first = File::create(&path).unwrap();
    let second = File::open(&path).unwrap();
    assert!(lock(&first).unwrap());
    assert!(!lock(&second).unwrap());
    drop(first);
    // A child that another test starts just then has it, too, until its exec.
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while !lock(&second).unwrap() {
        assert!(std::time::Instant::now() < until, "it is locked still");
        std::thread::yield_now();
    }
    std::fs::remove_file(path).unwrap();
}

/// Both ends of a connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one, listener.accept().unwrap().0)
}

#[test]
fn a_connection_is_ended_for_everybody_who_has_it() {
    let (ours, mut theirs) = connection();
    let copy = ours.try_clone().unwrap();
    assert_eq!(cookie(&ours).unwrap(), cookie(&copy).unwrap());
    assert_ne!(cookie(&ours).unwrap(), cookie(&theirs).unwrap());
    end_for_all(&ours);
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    assert_eq!((&copy).read(&mut [0]).unwrap(), 0);
    assert_eq!((&copy).write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn what_was_to_be_reset_is_reset_for_everybody_who_has_it() {
    let (ours, mut theirs) = connection();
    let _copy = ours.try_clone().unwrap();
    reset_on_close(&ours).unwrap();
    end_for_all(&ours);
    assert_eq!(theirs.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    // One of Unix knows no reset.
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let _copy = ours.try_clone().unwrap();
    reset_on_close(&ours).unwrap();
    end_for_all(&ours);
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
}

#[test]
fn memory_is_shared_by_all_that_have_its_file() {
    let file = memory_file(c"test", 4096).unwrap();
    let [one, other] = [(); 2].map(|()| shared_words(&file, 512).unwrap());
    one[511].store(7, Ordering::SeqCst);
    assert_eq!(other[511].load(Ordering::SeqCst), 7);
    assert!(File::from(file.try_clone().unwrap()).set_len(1).is_err(), "its size is sealed");
    for count in [513, 0, usize::MAX] {
        assert_eq!(shared_words(&file, count).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    let file = File::open("/dev/null").unwrap();
    assert!(shared_words(&file, 1).is_err());
}
