//! A real Redis names the servers of a site.

use super::upgrade::Upgraded;
use crate::common::{
    After, App, Client, Process, Proxy, Setup, eventually, free_address, installed, let_pass,
};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// A Redis without a file. It ends with the test.
struct Redis {
    process: Process,
    address: SocketAddr,
    password: Option<&'static str>,
}

impl Redis {
    /// Starts one; `None` if there is none on this machine, which is said.
    fn start(password: Option<&'static str>) -> Option<Redis> {
        let has = installed("redis-server", &["redis-server", "--version"]);
        has.then(|| Redis::start_at(free_address(), password))
    }

    fn start_at(address: SocketAddr, password: Option<&'static str>) -> Redis {
        let mut command = Command::new("redis-server");
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        command.args(["--bind", &host, "--port", &port, "--save", "", "--appendonly", "no"]);
        command.args(["--dir", std::env::temp_dir().to_str().unwrap()]);
        if let Some(password) = password {
            command.args(["--requirepass", password]);
        }
        let process = Process::spawn("redis-server", &mut command);
        let redis = Redis { process, address, password };
        eventually("Redis answers", || redis.asked(&["PING"]).contains("PONG"));
        redis
    }

    /// What it answers.
    fn asked(&self, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        command.args(["-h", &host, "-p", &port]);
        if let Some(password) = self.password {
            command.args(["--no-auth-warning", "-a", password]);
        }
        let output = command.args(words).output().expect("redis-cli");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Has it carry out a command.
    #[track_caller]
    fn tell(&self, words: &[&str]) {
        let answer = self.asked(words);
        assert!(!answer.contains("ERR") && !answer.contains("NOAUTH"), "{words:?}: {answer}");
    }
}

/// A proxy with a site whose servers are in this list, read again every 100 milliseconds.
fn setup(redis: &Redis, key: &str, more: &str) -> Setup {
    let address = redis.address;
    Setup::new().settings(&format!(
        "redis-interval 100ms\nwait-timeout 30s\nsite a.test servers=redis://{address}/{key} {more}"
    ))
}

#[track_caller]
fn ask(proxy: &Proxy) -> (u16, String) {
    let mut client = Client::get(proxy, "a.test", "/");
    let answer = client.read_response();
    (answer.status(), answer.text())
}

/// Whether the state has this server.
fn has(proxy: &Proxy, app: &App) -> bool {
    let info = proxy.info();
    info.at(&["servers"]).get(&format!("{} of a.test", app.address())).is_some()
}

/// Waits until the site has exactly these.
#[track_caller]
fn await_servers(proxy: &Proxy, there: &[&App], gone: &[&App]) {
    eventually("the servers that Redis names", || {
        there.iter().all(|app| has(proxy, app)) && !gone.iter().any(|app| has(proxy, app))
    });
}

#[test]
fn a_list_names_servers_and_a_change_of_it_others() {
    let Some(redis) = Redis::start(None) else { return };
    let (one, two) = (App::named("one", After::Keep), App::named("two", After::Keep));
    let proxy = setup(&redis, "a.test", "").start();
    // A request waits until there is a server.
    let mut waits = Client::get(&proxy, "a.test", "/");
    proxy.await_count("c", 1);
    redis.tell(&["RPUSH", "a.test", &one.to()]);
    assert_eq!(waits.read_response().text(), "one");
    redis.tell(&["RPUSH", "a.test", &two.to()]);
    await_servers(&proxy, &[&one, &two], &[]);
    redis.tell(&["LREM", "a.test", "0", &one.to()]);
    await_servers(&proxy, &[&two], &[&one]);
    // The state may have it before the workers; the log says it after them.
    proxy.await_log(&format!("gone: {}", one.to()));
    for _ in 0..8 {
        assert_eq!(ask(&proxy), (200, "two".to_owned()));
    }
    eventually("its connections are closed", || one.open() == 0);
}

#[test]
fn a_set_does_so_too_and_what_is_no_server_is_left_out() {
    let Some(redis) = Redis::start(None) else { return };
    let app = App::named("one", After::Keep);
    let bad = ["unix:/run/x.sock", "no server", "a:99999", "", "x y"];
    redis.tell(&[&["SADD", "our servers", &app.to()], &bad[..]].concat());
    redis.tell(&["RPUSH", "other", "kept"]);
    let proxy = setup(&redis, "our%20servers", "").start();
    assert_eq!(ask(&proxy), (200, "one".to_owned()));
    proxy.await_log("2 more of its members are no servers");
    let_pass(Duration::from_millis(500));
    assert_eq!(proxy.log().matches("it is left out").count(), 3, "{}", proxy.log());
}

/// Swiftiply moves a server from the list to another one while it uses it.
#[test]
fn servers_that_swiftiply_is_using_count_and_each_as_often_as_it_is_there() {
    let Some(redis) = Redis::start(None) else { return };
    let (one, two) = (App::named("one", After::Keep), App::named("two", After::Keep));
    for app in [&one, &two, &one] {
        redis.tell(&["RPUSH", "a.test", &app.to()]);
    }
    let proxy = setup(&redis, "a.test", "max=1").start();
    await_servers(&proxy, &[&one, &two], &[]);
    redis.tell(&["RPOPLPUSH", "a.test", "a.test.inuse"]);
    redis.tell(&["RPOPLPUSH", "a.test", "a.test.inuse"]);
    proxy.reload_well();
    assert_eq!(ask(&proxy).0, 200);
    assert!(has(&proxy, &one) && has(&proxy, &two));
    // Two places at one, one at two.
    let held = (one.hold(), two.hold());
    let mut clients: Vec<Client> = (0..4).map(|_| Client::get(&proxy, "a.test", "/")).collect();
    proxy.await_count("c", 1);
    drop(held);
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().status(), 200));
    assert_eq!((one.most(), two.most()), (2, 1));
}

#[test]
fn the_servers_stay_while_redis_is_away_and_the_log_says_so_once() {
    let Some(redis) = Redis::start(None) else { return };
    let address = redis.address;
    let (one, two) = (App::named("one", After::Keep), App::named("two", After::Keep));
    redis.tell(&["RPUSH", "k", &one.to()]);
    let proxy = setup(&redis, "k", "").start();
    assert_eq!(ask(&proxy), (200, "one".to_owned()));
    drop(redis);
    proxy.await_log(&format!("redis://{address} cannot be read: Connection refused"));
    proxy.reload_well();
    let_pass(Duration::from_millis(500));
    assert_eq!(ask(&proxy), (200, "one".to_owned()));
    // If it has ended while it was asked, the list has a line, too.
    let line = format!("redis://{address} cannot be read");
    assert_eq!(proxy.log().matches(&line).count(), 1, "{}", proxy.log());
    let redis = Redis::start_at(address, None);
    redis.tell(&["RPUSH", "k", &two.to()]);
    proxy.await_log(&format!("redis://{address} can be read again"));
    // Between its start and that command it may have been asked.
    await_servers(&proxy, &[&two], &[&one]);
    proxy.await_log(&format!("new: {}", two.to()));
    assert_eq!(ask(&proxy), (200, "two".to_owned()));
}

#[test]
fn a_new_program_has_the_servers_although_redis_is_away() {
    let Some(redis) = Redis::start(None) else { return };
    let app = App::named("one", After::Keep);
    redis.tell(&["RPUSH", "k", &app.to()]);
    let proxy = Upgraded::with(setup(&redis, "k", ""));
    assert_eq!(ask(&proxy), (200, "one".to_owned()));
    drop(redis);
    proxy.upgrade();
    assert_eq!(ask(&proxy), (200, "one".to_owned()));
}

#[test]
fn a_password_is_sent_and_not_shown() {
    let Some(redis) = Redis::start(Some("sesame street")) else { return };
    let app = App::named("one", After::Keep);
    redis.tell(&["-n", "3", "RPUSH", "k", &app.to()]);
    redis.tell(&[
        "ACL",
        "SETUSER",
        "reader",
        "on",
        ">other",
        "~k*",
        "+@read",
        "+@transaction",
        "+select",
    ]);
    let of = |password: &str, at: &str| {
        let line = format!(
            "redis-interval 100ms\nredis-password {{dir}}/password\nsite a.test servers=redis://{at}/k?db=3"
        );
        Setup::new().settings(&line).file("password", password).start()
    };
    let address = redis.address.to_string();
    let proxy = of("wrong\n", &address);
    proxy.await_log("WRONGPASS");
    // The file is read again on HUP.
    proxy.write("password", "sesame street\n");
    proxy.reload_well();
    assert_eq!(ask(&proxy), (200, "one".to_owned()));
    assert!(!proxy.log().contains("sesame") && !proxy.log().contains("wrong\n"), "{}", proxy.log());
    let as_user = of("other", &format!("reader@{address}"));
    assert_eq!(ask(&as_user), (200, "one".to_owned()));
}

#[test]
fn a_key_of_another_kind_is_no_list() {
    let Some(redis) = Redis::start(None) else { return };
    redis.tell(&["HSET", "k", "a", "b"]);
    let proxy = setup(&redis, "k", "timeout=200ms").start();
    proxy.await_log("\"k\" is neither a list nor a set but of type \"hash\"");
    assert_eq!(ask(&proxy).0, 503);
}

#[test]
fn a_redis_that_does_not_answer_keeps_nothing_up() {
    let Some(redis) = Redis::start(None) else { return };
    let app = App::named("one", After::Keep);
    redis.process.freeze();
    let proxy = setup(&redis, "k", &format!("\nsite b.test servers={}", app.to())).start();
    for _ in 0..20 {
        let mut client = Client::get(&proxy, "b.test", "/");
        assert_eq!(client.read_response().text(), "one");
    }
    proxy.reload_well();
    proxy.await_log("cannot be read: it does not answer");
    redis.process.thaw();
    redis.tell(&["RPUSH", "k", &app.to()]);
    assert_eq!(ask(&proxy), (200, "one".to_owned()));
}
