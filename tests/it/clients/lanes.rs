//! Programs that say which requests they take, and how they are called; and a server whose clients
//! must come back to the same process.

use super::language::{Language, clients, tools};
use crate::common::{Played, Process, Setup, at, run_well, skipped};
use cloudbridge::client::BridgeListener;
use std::process::{Command, Stdio};

/// What each program says, in the words of its language.
const NODE: &str =
    "require(process.env.CLIENTS + '/node/cloudbridge.js').bridge(require('http').createServer(), {
    proxies: [process.env.PROXY], hosts: ['a.test'], connections: 1, instance: 'web/1',
    predicates: { 'If-Method': 'GET, HEAD', 'If-Cookie': ['a', 'b=1'] } })";
const WSGI: &str = "import os, sys; sys.path.insert(0, os.environ['CLIENTS'] + '/python')
import cloudbridge
cloudbridge.serve_wsgi(lambda environ, start: [], [os.environ['PROXY']], ['a.test'], threads=1, instance='web/1',
    predicates={'If-Method': 'GET, HEAD', 'If-Cookie': ['a', 'b=1']})";
const ASYNCIO: &str = "import asyncio, os, sys; sys.path.insert(0, os.environ['CLIENTS'] + '/python')
import cloudbridge
async def handler(reader, writer): pass
asyncio.run(cloudbridge.serve_asyncio(handler, [os.environ['PROXY']], ['a.test'], connections=1, instance='web/1',
    predicates={'If-Method': 'GET, HEAD', 'If-Cookie': ['a', 'b=1']}))";
const RUBY: &str = "require ENV['CLIENTS'] + '/ruby/cloudbridge'
host, port = ENV['PROXY'].split(':')
CloudBridge::Server.new(host, port.to_i, ['a.test'], instance: 'web/1',
    predicates: { 'If-Method' => 'GET, HEAD', 'If-Cookie' => ['a', 'b=1'] }).accept";

/// The next bridge says what a program was told to say.
#[track_caller]
fn says_it(proxy: &Played) {
    let (_, head) = proxy.bridge();
    assert_eq!(head.field("cloudbridge-instance"), Some("web/1"));
    assert_eq!(
        (head.field("if-method"), head.all("if-cookie")),
        (Some("GET, HEAD"), vec!["a", "b=1"])
    );
}

#[test]
fn each_language_says_what_it_takes_and_how_it_is_called() {
    for (language, option, program) in [
        (Language::Node, "-e", NODE),
        (Language::Wsgi, "-c", WSGI),
        (Language::Asyncio, "-c", ASYNCIO),
        (Language::Ruby, "-e", RUBY),
    ] {
        if !language.is_here() {
            continue;
        }
        let proxy = Played::start();
        let mut command = Command::new(language.program());
        command.args([option, program]).env("CLIENTS", clients()).env("PROXY", proxy.at());
        let _program = Process::spawn("the program", command.stdin(Stdio::null()));
        says_it(&proxy);
    }
}

#[test]
fn so_does_the_library_for_rust() {
    let proxy = Played::start();
    let builder = || BridgeListener::builder(proxy.at()).host("a.test").instance("web/1");
    let lane = builder().predicate("If-Method", "GET, HEAD").predicate("If-Cookie", "a");
    let listener = lane.predicate("If-Cookie", "b=1").build().unwrap();
    let stop = listener.clone();
    let accepting = std::thread::spawn(move || listener.accept().err());
    says_it(&proxy);
    stop.shutdown().unwrap();
    accepting.join().unwrap();
    for (name, value, what) in [
        ("If-Method", "GET\r\nHost: b.test", "bad If-Method"),
        ("X-Method", "GET", "bad X-Method \"GET\": there is no such predicate"),
    ] {
        let error = builder().predicate(name, value).build().err().unwrap();
        assert!(error.to_string().contains(what), "{error}");
    }
    let error = builder().instance("a b").build().err().unwrap();
    assert!(error.to_string().contains("bad instance \"a b\""), "{error}");
}

/// Two processes keep their clients' sessions in memory, as socket.io does. Long polling makes many
/// requests for one session, and each of them must come to the process that has it.
#[test]
fn long_polling_of_socket_io_works_over_two_processes() {
    let modules = tools().join("node/node_modules");
    if !Language::Node.is_here() {
        return;
    }
    if !modules.join("socket.io").exists() || !modules.join("socket.io-client").exists() {
        return skipped("socket.io is not installed; .ci/run installs it");
    }
    let proxy = Setup::new().settings("site 127.0.0.1 sticky=cookie sticky-wait=1h").start();
    let node = |program: &str, name: &str| {
        let mut command = Command::new("node");
        command.args(["-e", program]).env("CLIENTS", clients()).env("NODE_PATH", &modules);
        command.env("PROXY", at(&proxy)).env("NAME", name).stdin(Stdio::null());
        command.env("SITE", format!("http://{}", proxy.for_clients()));
        command
    };
    let servers = ["one", "two"].map(|name| Process::spawn("a server", &mut node(SERVER, name)));
    proxy.await_count("b", 16);
    let said = run_well(&mut node(CLIENT, ""));
    assert_eq!(said.trim(), "one two");
    drop(servers);
}

const SERVER: &str = "const server = require('http').createServer();
new (require('socket.io').Server)(server).on('connection', (socket) => socket.on('who', (answer) => answer(process.env.NAME)));
require(process.env.CLIENTS + '/node/cloudbridge.js').serve(server,
    { proxies: [process.env.PROXY], hosts: ['127.0.0.1'], connections: 8, instance: process.env.NAME });";

/// Twelve clients. Each asks twenty times who answers, and is never disconnected. Others follow until both
/// have answered: which one a new client comes to is left to chance.
const CLIENT: &str = "const { io } = require('socket.io-client');
const fail = (why) => { console.error(why); process.exit(1); };
const client = () => new Promise((done) => {
  const socket = io(process.env.SITE, { transports: ['polling'], withCredentials: true, forceNew: true, reconnection: false });
  socket.on('connect_error', fail);
  socket.on('disconnect', (why) => { if (why !== 'io client disconnect') fail(why); });
  socket.on('connect', async () => {
    const names = new Set();
    for (let i = 0; i < 20; i++) names.add(await socket.timeout(20000).emitWithAck('who'));
    socket.disconnect();
    done(names);
  });
});
(async () => {
  const met = new Set();
  for (let round = 0; round < 10 && met.size < 2; round++) {
    const all = await Promise.all(Array.from({ length: 12 }, client));
    if (all.some((names) => names.size !== 1)) fail('a client has met two processes');
    all.forEach((names) => names.forEach((name) => met.add(name)));
  }
  console.log([...met].sort().join(' '));
  process.exit(0);
})().catch(fail);";
