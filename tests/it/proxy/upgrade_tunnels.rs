//! A new program takes over, and tunnels go on in it.

use super::upgrade::{Upgraded, await_end};
use crate::common::{
    Bridge, Client, Json, Played, Setup, SwiftclientBackend, Wire, eventually, is_alive, let_pass,
    on_time, pattern, pattern_differs, signal,
};
use std::fs::read_to_string;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                        Upgrade: websocket\r\n\r\n";

fn request(host: &str) -> String {
    format!(
        "GET /chat?x=1 HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         User-Agent: browser/1\r\nReferer: http://b.test/\r\n\r\n"
    )
}

/// A client and a backend with a tunnel between them.
#[track_caller]
fn tunnel(proxy: &Upgraded, mut bridge: Bridge, host: &str) -> (Client, Bridge) {
    let mut client = Client::request(proxy, request(host));
    bridge.accept_request();
    bridge.send(SWITCHED);
    assert_eq!(client.read_head().status(), 101);
    (client, bridge)
}

#[track_caller]
fn tunnel_of(proxy: &Upgraded, host: &str) -> (Client, Bridge) {
    let bridge = Bridge::park(proxy, &[host]);
    tunnel(proxy, bridge, host)
}

/// Bytes pass both ways.
#[track_caller]
fn assert_open(client: &mut Wire, backend: &mut Wire, word: &str) {
    client.send(format!("up {word}"));
    backend.expect_exact(format!("up {word}"));
    backend.send(format!("down {word}"));
    client.expect_exact(format!("down {word}"));
}

/// The lines of its access log, as soon as there are so many.
#[track_caller]
fn lines(proxy: &Upgraded, count: usize) -> Vec<Json> {
    let mut text = String::new();
    eventually(&format!("{count} lines"), || {
        text = read_to_string(proxy.dir().join("access")).unwrap_or_default();
        text.lines().count() >= count && text.ends_with('\n')
    });
    assert_eq!(text.lines().count(), count, "{text}");
    text.lines().map(Json::parse).collect()
}

/// Sends until nothing more is taken for a while: every buffer on the way is full. Returns how much
/// it was.
fn fill(proxy: &Upgraded, stream: &TcpStream) -> usize {
    let mut stream = stream.try_clone().unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    loop {
        // With the proxy asleep before, what is not taken now is not going to be.
        let was_asleep = proxy.is_asleep();
        match stream.write(&pattern(sent as u64, 64 << 10)) {
            Ok(count) => sent += count,
            Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
            Err(_) if was_asleep => break,
            Err(_) => {}
        }
    }
    stream.set_write_timeout(None).unwrap();
    sent
}

#[test]
fn a_tunnel_goes_on_through_three_upgrades_and_has_one_line_in_the_log() {
    for workers in ["1", "2", "4"] {
        let settings = format!("workers {workers}\naccess-log {{dir}}/access format=json");
        let proxy = Upgraded::start(&settings);
        let begun = Instant::now();
        let mut bridge = Bridge::with_token(&proxy, "", "leave, undelivered");
        let mut client = Client::request(&proxy, request("a.test"));
        bridge.accept_request();
        bridge.send(SWITCHED);
        let head = client.read_head().head.len() as u64;
        for number in 0..3 {
            assert_open(&mut client, &mut bridge, &number.to_string());
            await_end(proxy.upgrade());
        }
        assert_open(&mut client, &mut bridge, "last");
        let info = proxy.info();
        assert_eq!(info.number(&["connections", "bridge_busy"]), 1);
        assert_eq!(info.number(&["connections", "client_busy"]), 1);
        assert_eq!(read_to_string(proxy.dir().join("access")).unwrap_or_default(), "");
        drop(bridge);
        client.expect_closed();
        drop(client);
        let [line] = &lines(&proxy, 1)[..] else { unreachable!() };
        let text = |name: &str| match line.get(name) {
            Some(Json::Text(text)) => text.clone(),
            other => panic!("{name} is {other:?}"),
        };
        let up = "up 0up 1up 2up last".len() as u64;
        let down = "down 0down 1down 2down last".len() as u64;
        assert_eq!(line.number(&["status"]), 101);
        assert_eq!(line.number(&["body_in"]), up);
        assert_eq!(line.number(&["bytes_in"]), request("a.test").len() as u64 + up);
        assert_eq!(line.number(&["body_out"]), down);
        assert_eq!(line.number(&["bytes_out"]), head + down);
        assert_eq!(text("request"), "GET /chat?x=1 HTTP/1.1");
        assert_eq!([text("host"), text("route")], ["a.test", "a.test"]);
        assert_eq!([text("user_agent"), text("referer")], ["browser/1", "http://b.test/"]);
        assert_eq!(line.number(&["attempts"]), 1);
        assert!(u128::from(line.number(&["total_time"])) <= begun.elapsed().as_millis());
        eventually("all is free", || proxy.count("B") == 0 && proxy.count("C") == 0);
    }
}

/// The readers stop while the programs change, so all buffers on the way are full.
#[test]
fn no_byte_of_what_is_in_flight_is_lost() {
    const LENGTH: usize = 8 << 20;
    const FIRST: usize = 1 << 20;
    let proxy = Upgraded::start("");
    let (mut client, mut bridge) = tunnel_of(&proxy, "a.test");
    let [mut up, mut down] =
        [client.stream(), bridge.stream()].map(|stream| stream.try_clone().unwrap());
    let old = std::thread::scope(|scope| {
        scope.spawn(move || up.write_all(&pattern(0, LENGTH)).unwrap());
        scope.spawn(move || down.write_all(&pattern(0, LENGTH)).unwrap());
        for wire in [&mut *client as &mut Wire, &mut *bridge] {
            assert_eq!(pattern_differs(0, &wire.read_exactly(FIRST)), None);
        }
        let old = proxy.upgrade();
        let read = |wire: &mut Wire| {
            let rest = wire.read_exactly(LENGTH - FIRST);
            assert_eq!(pattern_differs(FIRST as u64, &rest), None);
        };
        let backend = &mut *bridge;
        let reader = scope.spawn(move || read(backend));
        read(&mut client);
        reader.join().unwrap();
        old
    });
    await_end(old);
    assert_open(&mut client, &mut bridge, "after");
}

/// Its buffers are never empty by themselves, because the reader is slower than the writer.
#[test]
fn a_tunnel_that_is_never_idle_goes_over_too() {
    let proxy = Upgraded::start("");
    let (mut client, bridge) = tunnel_of(&proxy, "a.test");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut down = bridge.stream().try_clone().unwrap();
        let over = &over;
        let writer = scope.spawn(move || {
            let mut sent = 0_u64;
            while !over.load(Ordering::Relaxed) {
                down.write_all(&pattern(sent, 64 << 10)).unwrap();
                sent += 64 << 10;
            }
            down.shutdown(Shutdown::Write).unwrap();
            sent
        });
        let reader = scope.spawn(move || {
            let mut seen = 0_u64;
            while let Some(bytes) = client.read_some(256 << 10) {
                assert_eq!(pattern_differs(seen, &bytes), None);
                seen += bytes.len() as u64;
                let_pass(Duration::from_millis(1));
            }
            seen
        });
        let old = proxy.upgrade();
        await_end(old);
        over.store(true, Ordering::Relaxed);
        assert_eq!(writer.join().unwrap(), reader.join().unwrap());
    });
}

/// Bytes for a client that does not read stay in a buffer, so the tunnel cannot go.
#[test]
fn a_tunnel_that_cannot_go_ends_with_upgrade_timeout() {
    let proxy = Upgraded::start("upgrade-timeout 6s\ndrain-timeout 1s");
    let (client, mut bridge) = tunnel_of(&proxy, "a.test");
    fill(&proxy, bridge.stream());
    let old = proxy.upgrade();
    eventually("the old program has the tunnel", || {
        let info = proxy.info();
        matches!(info.at(&["old_programs"]), Json::List(all) if all.iter().any(|one| {
            one.number(&["process"]) == u64::from(old) && one.number(&["tunnels"]) == 1
        }))
    });
    await_end(old);
    bridge.expect_closed();
    drop(client);
    eventually(
        "nothing is left of it",
        || matches!(proxy.info().at(&["old_programs"]), Json::List(all) if all.is_empty()),
    );
}

/// What it had begun for the move must be undone.
#[test]
fn a_tunnel_that_could_not_go_goes_on_when_the_new_program_is_killed() {
    let proxy = Upgraded::start("");
    let (mut client, mut bridge) = tunnel_of(&proxy, "a.test");
    let sent = fill(&proxy, bridge.stream());
    let old = proxy.upgrade();
    assert!(is_alive(old));
    signal(proxy.process().unwrap(), "KILL");
    proxy.await_log("this one goes on");
    assert_eq!(pattern_differs(0, &client.read_exactly(sent)), None);
    assert_open(&mut client, &mut bridge, "after");
}

#[test]
fn a_half_closed_tunnel_goes_over_with_its_open_direction() {
    let proxy = Upgraded::start("");
    let (mut client, mut bridge) = tunnel_of(&proxy, "a.test");
    client.send("last words");
    client.half_close();
    bridge.expect_exact("last words");
    bridge.expect_closed();
    await_end(proxy.upgrade());
    for word in ["an answer", " in two parts"] {
        bridge.send(word);
        client.expect_exact(word);
        await_end(proxy.upgrade());
    }
    drop(bridge);
    client.expect_closed();

    let (mut client, mut bridge) = tunnel_of(&proxy, "a.test");
    bridge.send("last words");
    bridge.half_close();
    client.expect_exact("last words");
    client.expect_closed();
    await_end(proxy.upgrade());
    client.send("an answer to them");
    bridge.expect_exact("an answer to them");
    await_end(proxy.upgrade());
    drop(client);
    bridge.expect_closed();
}

#[test]
fn tunnel_timeout_counts_from_the_last_byte() {
    on_time(Duration::from_secs(1), || {
        let proxy = Upgraded::start("tunnel-timeout 6s");
        let (mut client, mut bridge) = tunnel_of(&proxy, "a.test");
        assert_open(&mut client, &mut bridge, "last");
        let begun = Instant::now();
        let_pass(Duration::from_secs(3));
        await_end(proxy.upgrade());
        client.expect_closed();
        let passed = begun.elapsed().as_millis();
        assert!((5_500..8_500).contains(&passed), "{passed} ms");
    });
}

/// Each is let in whatever the bounds are by now, and counts.
#[test]
fn tunnels_count_in_the_new_program_and_their_routes_can_be_drained() {
    let proxy = Upgraded::start("bridges-per-host 1\nconnections-per-address 100");
    let (mut client, mut bridge) = tunnel_of(&proxy, "a.test");
    await_end(proxy.upgrade());
    let refusal = Bridge::refused(&proxy, "BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(refusal.status(), 503);
    // Once the end of the old program has been noticed.
    eventually("one bridge is busy", || {
        let info = proxy.info();
        let Json::List(hosts) = info.at(&["hosts"]) else { panic!("{info:?}") };
        let [host] = &hosts[..] else { panic!("{info:?}") };
        (host.number(&["busy"]), host.number(&["parked"])) == (1, 0)
    });
    let (code, text) = super::upgrade::ctl(&proxy, &["drop", "a.test"]);
    assert!(code == Some(0) && text.contains('1'), "{text}");
    client.expect_closed();
    bridge.expect_closed();
    Bridge::park_when_there_is_room(&proxy, "a.test");
}

/// `printf second:1700000000:a.test | sha1sum`
const KEY: &str = "adb7c404c49597d34e253d48aba583c439491d84:1700000000:a.test";

#[test]
fn a_key_that_the_new_program_does_not_take_ends_the_tunnel_after_the_grace() {
    let setup = Setup::new().settings("secrets {dir}/secrets\nrevoke-grace 5s");
    let proxy = Upgraded::with(setup.file("secrets", "1000000000:first\n1600000000:second\n"));
    let registration = format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nHost-Key: {KEY}\r\n\r\n");
    let bridge = Bridge::register(&proxy, &registration);
    let (mut client, mut bridge) = tunnel(&proxy, bridge, "a.test");
    await_end(proxy.upgrade());
    assert_open(&mut client, &mut bridge, "the key is good");
    proxy.write("secrets", "1000000000:first\n");
    await_end(proxy.upgrade());
    assert_open(&mut client, &mut bridge, "within the grace");
    client.expect_closed();
    bridge.expect_closed();
}

#[test]
fn tunnels_to_servers_and_swiftclient_backends_go_over() {
    let server = Played::start();
    let settings =
        format!("site s.test servers={}\nsite w.test swiftiply=127.0.0.1:0", server.at());
    let proxy = Upgraded::start(&settings);
    let mut client = Client::request(&proxy, request("s.test"));
    let mut dialled = server.connection();
    dialled.read_request();
    dialled.send(SWITCHED);
    assert_eq!(client.read_head().status(), 101);
    let mut backend = SwiftclientBackend::park(&proxy, "w.test", "swiftclient7f0000011a2b00");
    let mut other = Client::request(&proxy, request("w.test"));
    backend.accept_request();
    backend.send(SWITCHED);
    assert_eq!(other.read_head().status(), 101);
    for word in ["one", "two"] {
        await_end(proxy.upgrade());
        assert_open(&mut client, &mut dialled, word);
        assert_open(&mut other, &mut backend, word);
    }
    let open = |proxy: &Upgraded| {
        let info = proxy.info();
        let Json::Object(servers) = info.at(&["servers"]) else { panic!("{info:?}") };
        servers.iter().map(|(_, server)| server.number(&["open"])).sum::<u64>()
    };
    assert_eq!(open(&proxy), 1);
    // The settings have neither any longer: they go on until they end, as after a reload.
    let text = read_to_string(proxy.dir().join("cloudbridge.conf")).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("site ")).collect();
    proxy.write("cloudbridge.conf", &(kept.join("\n") + "\n"));
    await_end(proxy.upgrade());
    assert_open(&mut client, &mut dialled, "three");
    assert_open(&mut other, &mut backend, "three");
    drop((client, other));
    dialled.expect_closed();
    backend.expect_closed();
}
