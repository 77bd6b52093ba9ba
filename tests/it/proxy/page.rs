//! The live page in a real browser, at a real proxy with real bridges.

use crate::common::{
    Bridge, Browser, Client, Message, Proxy, Setup, eventually, free_address, quoted,
};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

const TOKEN: &str = "sesame";

/// A proxy with an admin listener at this address, and these settings more.
#[track_caller]
fn proxy_at(address: &str, settings: &str) -> Proxy {
    Setup::new()
        .settings(&format!(
            "listen 127.0.0.1:0\nlisten {address} admin\nadmin-token {{dir}}/token\n{settings}"
        ))
        .file("token", TOKEN)
        .start()
}

/// Opens the page of a proxy and waits for its first figures.
#[track_caller]
fn visit(browser: &mut Browser, proxy: &Proxy) {
    browser.open(&format!("http://{}/", proxy.for_admin()));
    browser.wait_text("#status", "live");
}

/// The selector of a button in a row that is in sight.
fn row_button(verb: &str, name: &str) -> String {
    format!(".row:not([hidden]) [aria-label={}]", quoted(&format!("{verb} {name}")))
}

/// The names in the rows that are in sight, from the top.
fn names(browser: &mut Browser) -> Vec<String> {
    let names = browser.eval(
        "[...document.querySelectorAll('.body .row:not([hidden]) .title')].map(e => e.title)",
    );
    names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// Waits until those are the names in the rows.
#[track_caller]
fn wait_names(browser: &mut Browser, names: &[&str]) {
    browser.wait(&format!(
        "JSON.stringify([...document.querySelectorAll('.body .row:not([hidden]) .title')]\
         .map(e => e.title)) === {}",
        quoted(&json!(names).to_string())
    ));
}

#[track_caller]
fn assert_content(browser: &mut Browser) {
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Fails unless every text that is seen has the contrast of WCAG 2.2 level AA (1.4.3): 4.5 to 1, or
/// 3 to 1 if it is large.
#[track_caller]
fn assert_readable(browser: &mut Browser, what: &str) {
    let faint = browser.eval(
        "(() => {
            const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
            const rgba = (colour) => {
                canvas.clearRect(0, 0, 1, 1);
                canvas.fillStyle = colour;
                canvas.fillRect(0, 0, 1, 1);
                return [...canvas.getImageData(0, 0, 1, 1).data];
            };
            const luminance = ([r, g, b]) => {
                const part = (v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
                return .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
            };
            const faint = [], modal = document.querySelector('dialog[open]');
            const walker = document.createTreeWalker(modal ?? document.body, NodeFilter.SHOW_TEXT);
            for (let node; node = walker.nextNode();) {
                const element = node.parentElement;
                if (!node.data.trim() || !element.checkVisibility() || element.closest('.unseen, .skip, script, style, option, noscript')) continue;
                if (element.closest(':disabled')) continue;
                let behind = element;
                while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
                const style = getComputedStyle(element), size = parseFloat(style.fontSize);
                const [a, b] = [rgba(style.color), rgba(getComputedStyle(behind ?? document.body).backgroundColor)].map(luminance);
                const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
                const isLarge = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
                if (contrast < (isLarge ? 3 : 4.5)) faint.push(`${node.data.slice(0, 40)}: ${contrast.toFixed(2)}`);
            }
            return faint;
        })()",
    );
    assert_eq!(faint, json!([]), "{what}");
    let overflows = browser.eval("document.documentElement.scrollWidth > innerWidth");
    assert_eq!(overflows, false, "{what} is wider than the window");
}

/// A page that was made from what strangers say has nothing but what we wrote.
#[track_caller]
fn assert_untouched(browser: &mut Browser) {
    let count = "document.querySelectorAll('script').length === 1 \
         && document.querySelectorAll('img, iframe, object, embed, base, form[action], a:not([href^=\"/\"], [href=\"#search\"])').length === 0 \
         && window.hit === undefined";
    assert_eq!(browser.eval(count), true);
}

#[test]
fn names_of_strangers_are_text() {
    let Some(mut browser) = Browser::start() else { return };
    let proxy = proxy_at("127.0.0.1:0", "");
    visit(&mut browser, &proxy);
    browser.wait_text("#empty", "Waiting for the first backend");
    let told = browser.text("#empty");
    assert!(told.contains("cloudbridge-agent --echo --host app.example.com 127.0.0.1:0"), "{told}");
    browser.picture("page-empty");
    assert_readable(&mut browser, "the page without backends");
    // The worst that a registration may say: a path is any bytes that can be seen but ? and #.
    let prefixes = [
        "/<script>window.hit=1</script>",
        "/<img/src=x:/onerror=window.hit=1>",
        "/\"onmouseover='window.hit=1'x=\"",
        "/${window.hit=1}/{{window.hit=1}}/&lt;b&gt;",
        "/</script><svg/onload=window.hit=1>",
        "/]]>--><!--",
        "/javascript:window.hit=1",
        "/__proto__",
    ];
    let long = format!("/{}", "x".repeat(1000));
    let mut bridges: Vec<Bridge> = prefixes
        .iter()
        .map(|prefix| Bridge::park_at(&proxy, prefix, &["-_-.__proto__.constructor"]))
        .collect();
    bridges.push(Bridge::park_at(&proxy, &long, &["*"]));
    browser.wait_text("#tab-hosts", "Hosts 9");
    let shown = names(&mut browser);
    for prefix in prefixes {
        let name = format!("-_-.__proto__.constructor{prefix}");
        assert!(shown.contains(&name), "{name} is not among {shown:?}");
    }
    assert!(shown.contains(&brief(&format!("*{long}"))), "{shown:?}");
    for prefix in [prefixes[0], &long] {
        let name = if prefix == long { "*" } else { "-_-.__proto__.constructor" };
        let row = row_button("Drop", &brief(&format!("{name}{prefix}")));
        browser.wait(&format!("document.querySelector({}) !== null", quoted(&row)));
        browser.eval(&format!(
            "document.querySelector({}).closest('.row').querySelector('.name').click()",
            quoted(&row)
        ));
        browser.wait_text("#detail-name", prefix);
        browser.click("#detail .top button");
    }
    // A title is what one sees when one points at it.
    browser.click(&row_button("Drop", &format!("-_-.__proto__.constructor{}", prefixes[1])));
    browser.wait_text("#ask-title", prefixes[1]);
    browser.press("Escape");
    browser.wait("!document.querySelector('#ask').open");
    assert_untouched(&mut browser);
    assert_content(&mut browser);
}

/// As the page cuts a long name off.
fn brief(text: &str) -> String {
    if text.len() > 600 { format!("{}…", &text[..600]) } else { text.to_owned() }
}

/// A server that has the page of a proxy and an event stream of the test's own.
struct Stub {
    address: SocketAddr,
    events: Sender<String>,
}

impl Stub {
    /// Answers every action with `outcome`.
    #[track_caller]
    fn start(page: &Message, outcome: &'static str) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (events, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let page = [page.head.as_slice(), &page.body].concat();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), page) = (stream, page.clone()) else { return };
                let receiver = Arc::clone(&receiver);
                std::thread::spawn(move || Stub::serve(stream, &page, outcome, &receiver));
            }
        });
        Stub { address, events }
    }

    /// Errors end a connection: the browser has gone.
    fn serve(
        mut stream: TcpStream,
        page: &[u8],
        outcome: &str,
        events: &Mutex<Receiver<String>>,
    ) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let lines = reader.by_ref().lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let first = head.first()?;
        if first.starts_with("GET / ") {
            stream.write_all(page).ok()?;
        } else if first.starts_with("GET /events ") {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
            stream.write_all(head.as_bytes()).ok()?;
            for event in events.lock().ok()?.iter() {
                stream.write_all(event.as_bytes()).ok()?;
            }
        } else {
            // What is left unread would cut the answer off.
            let length = head.iter().find_map(|line| line.strip_prefix("Content-Length: "))?;
            let mut body = vec![0; length.parse().ok()?];
            reader.read_exact(&mut body).ok()?;
            let length = outcome.len();
            let head = format!("HTTP/1.1 409 X\r\nContent-Length: {length}\r\n\r\n{outcome}");
            stream.write_all(head.as_bytes()).ok()?;
        }
        Some(())
    }

    fn send(&self, kind: &str, data: &Value) {
        self.events.send(format!("event: {kind}\ndata: {data}\n\n")).unwrap();
    }
}

/// The page as the proxy sends it.
#[track_caller]
fn page() -> Message {
    let proxy = proxy_at("127.0.0.1:0", "");
    let mut client = Client::connect_to(proxy.for_admin());
    client.send("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    client.read_response()
}

fn totals(at: u32) -> Value {
    json!({
        "version": "0", "at": at, "uptime": at, "workers": 2, "connections": 1, "draining": false,
        "actions": true, "parked": 1, "busy": 0, "waiting": 0, "oldest": 0,
        "answers": [0, 0, 0, 0, 0], "duration": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    })
}

/// The page trusts nothing that the stream says, whatever the proxy lets through.
#[test]
fn a_hostile_stream_stays_text() {
    const EVIL: &str =
        "</title></script><script>window.hit=1</script><img src=x: onerror=window.hit=1>\u{202e}";
    let Some(mut browser) = Browser::start() else { return };
    let stub = Stub::start(&page(), EVIL);
    let mut evil = totals(1);
    evil["version"] = EVIL.into();
    evil["bridges_at"] = EVIL.into();
    let error = json!({ "text": EVIL, "at": 3 });
    stub.send(
        "state",
        &json!({
            "totals": evil,
            "hosts": [
                { "id": 1, "hosts": [EVIL, "__proto__"], "prefix": EVIL, "parked": 1, "busy": EVIL,
                  "waiting": { "__proto__": EVIL }, "drained": EVIL, "drained_by": [7], "answers": [EVIL, -1],
                  "duration": null, "__proto__": { "hit": 1 } },
                { "id": 2, "hosts": ["zz", 7, null], "prefix": null, "parked": 1e300, "duration": [1e300] },
            ],
            "backends": [{ "id": EVIL, "address": EVIL, "hosts": [EVIL], "key": EVIL, "agent": EVIL,
                           "since": EVIL, "last_error": error, "parked": 1 },
                         { "id": "plain", "address": "zz", "hosts": EVIL, "last_error": EVIL }],
            "drained": [{ "id": 7, "kind": EVIL, "name": EVIL }],
        }),
    );
    browser.open(&format!("http://{}/", stub.address));
    browser.wait_text("#tab-hosts", "Hosts 2");
    browser.wait_text("#drained", EVIL);
    browser.wait_text("#about", EVIL);
    for tab in ["hosts", "backends"] {
        browser.click(&format!("#tab-{tab}"));
        browser.click(".body .row:first-child .title .name");
        browser.wait_text("#detail", EVIL);
        browser.press("Escape");
        browser.wait("!document.querySelector('#detail').open");
        browser.click(".body .row:first-child [data-act=drain]");
        browser.wait_text("#toast", EVIL);
    }
    browser.click(".body .row:first-child [data-act=drop]");
    browser.wait_text("#ask-title", EVIL);
    browser.press("Escape");
    browser.wait("!document.querySelector('#ask').open");
    browser.click("#search");
    browser.type_text("<b>nothing");
    browser.wait_text("#empty", "“<b>nothing”");
    assert_untouched(&mut browser);
    assert_content(&mut browser);
}

/// 2,000 hosts and backends, all changing with each event: what an event costs the page, and
/// that its rows follow.
#[test]
fn thousands_of_changes_a_second_are_cheap() {
    const HOSTS: u32 = 2000;
    const EVENTS: u32 = 20;
    let Some(mut browser) = Browser::start() else { return };
    let stub = Stub::start(&page(), "");
    let name = |number: u32| format!("t{number}.customers.example.net");
    let of = |number: u32, at: u32| {
        let count = u64::from(at) * u64::from(number % 7 + 1);
        let mut duration = vec![0; 15];
        duration[(number + at) as usize % 15] = count;
        (number, count, json!([0, count, 0, 0, count / 50]), json!(duration))
    };
    let hosts = (0..HOSTS).map(|number| {
        let (id, _, answers, duration) = of(number, 0);
        json!({ "id": id, "hosts": [name(number)], "prefix": "/", "parked": 1, "busy": 1,
                "waiting": 0, "oldest": 0, "answers": answers, "duration": duration })
    });
    let backends = (0..HOSTS).map(|number| {
        json!({ "id": format!("{number:08x}"), "address": "10.0.0.1", "hosts": [name(number)],
                "key": null, "since": 0, "parked": 1, "busy": 1, "served": 0 })
    });
    let (hosts, backends): (Vec<_>, Vec<_>) = (hosts.collect(), backends.collect());
    stub.send("state", &json!({ "totals": totals(0), "hosts": hosts, "backends": backends }));
    browser.open(&format!("http://{}/", stub.address));
    browser.wait_text("#tab-hosts", "Hosts 2,000");
    // The worst order to be in: it changes with each event.
    browser.click("#head > :nth-child(4) button");
    for at in 1..=EVENTS {
        let change = (0..HOSTS).map(|number| {
            let (id, _, answers, duration) = of(number, at);
            json!({ "id": id, "parked": at % 4, "busy": number % 9, "answers": answers, "duration": duration })
        });
        let served =
            (0..HOSTS).map(|number| json!({ "id": format!("{number:08x}"), "served": at }));
        let (change, served): (Vec<_>, Vec<_>) = (change.collect(), served.collect());
        stub.send("change", &json!({ "totals": totals(at), "hosts": change, "backends": served }));
        // Each is drawn before the next one comes.
        browser.wait(&format!("document.querySelector('#about').innerText.includes('up {at} s')"));
    }
    let rows = browser.eval("document.querySelectorAll('.body .row').length");
    assert!(rows.as_u64().unwrap() < 60, "{rows} rows exist");
    assert_content(&mut browser);
}

/// Real hosts, a thousand of them, under load; and the pictures.
#[test]
fn a_thousand_hosts_under_load() {
    const HOSTS: usize = 1000;
    let Some(mut browser) = Browser::start() else { return };
    let proxy = proxy_at("127.0.0.1:0", "");
    let name = |number: usize| format!("t{number}.example.com");
    let mut bridges: Vec<Bridge> =
        (0..HOSTS).map(|number| Bridge::park(&proxy, &[&name(number)])).collect();
    visit(&mut browser, &proxy);
    browser.wait_text("#tab-hosts", "Hosts 1,000");
    browser.wait_text("#free", "1,000");
    let first: Vec<String> = (0..9).map(name).collect();
    assert_eq!(names(&mut browser)[..9], first, "2 comes before 10");
    let mut client = Client::connect(&proxy);
    // Half of them are asked twice.
    for number in (0..HOSTS).chain(0..HOSTS / 2) {
        client.send_get(&name(number), "/");
        bridges[number].serve_to(&mut client, "served");
        if number % 250 == 0 {
            browser.eval("0");
        }
    }
    browser.wait("document.querySelector('#latency').innerText.includes('ms')");
    browser.click("#head > :nth-child(4) button");
    browser.point_nowhere();
    // By rate, highest first. It is that of the last seconds only.
    eventually("t7 is the first, with its line", || {
        client.send_get("t7.example.com", "/");
        bridges[7].serve_to(&mut client, "served");
        browser.eval(
            "document.querySelector('.body .row .title').title === 't7.example.com' \
             && document.querySelector('.body .row .line').getAttribute('d') !== ''",
        ) == true
    });
    // Far down, and the rows follow.
    browser.click("#head > :nth-child(1) button");
    browser.eval("scrollTo(0, document.documentElement.scrollHeight)");
    browser.wait("[...document.querySelectorAll('.body .row:not([hidden]) .title')].some(e => e.title === 't999.example.com')");
    browser.eval("scrollTo(0, 0)");
    let mut waits = Client::connect(&proxy);
    waits.send("GET / HTTP/1.1\r\nHost: t3.example.com\r\n\r\n");
    bridges[3].accept_request();
    let _also_waits = Client::get(&proxy, "t3.example.com", "/");
    browser.wait("document.querySelector('#waiting').innerText === '1'");
    browser.click("#attention");
    wait_names(&mut browser, &["t3.example.com"]);
    browser.click("#attention");
    for (scheme, width, height) in [("light", 1360, 860), ("dark", 1360, 860), ("light", 390, 844)]
    {
        browser.colours(scheme);
        browser.size(width, height);
        browser.wait(&format!("innerWidth === {width}"));
        let name = if width < 600 { "phone" } else { scheme };
        // Drawn anew at this width.
        browser
            .eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
        browser.picture(&format!("page-{name}"));
        assert_readable(&mut browser, name);
        browser.click(".body .row:first-child .name");
        browser.wait_text("#detail .members", "127.0.0.1");
        browser.picture(&format!("page-{name}-host"));
        assert_readable(&mut browser, &format!("{name}, one host"));
        browser.press("Escape");
        browser.wait("!document.querySelector('#detail').open");
    }
    assert_content(&mut browser);
}

#[test]
fn hosts_are_searched_sorted_drained_and_dropped() {
    let Some(mut browser) = Browser::start() else { return };
    let proxy = proxy_at("127.0.0.1:0", "");
    let mut one = Bridge::park(&proxy, &["a.test"]);
    let mut two = Bridge::park(&proxy, &["b.test", "*.b.test"]);
    let _three = [Bridge::park(&proxy, &["c.test"]), Bridge::park(&proxy, &["c.test"])];
    visit(&mut browser, &proxy);
    wait_names(&mut browser, &["*.b.test, b.test", "a.test", "c.test"]);
    // By free slots, fewest first; again, most first.
    browser.click("#head > :nth-child(2) button");
    browser.click("#head > :nth-child(2) button");
    browser.wait("document.querySelector('.body .row .title').title === 'c.test'");
    assert_eq!(browser.eval("document.querySelector('[aria-sort]').innerText"), "Free slots");
    browser.click("#head > :nth-child(1) button");
    browser.press("/");
    browser.type_text("B.TEST");
    wait_names(&mut browser, &["*.b.test, b.test"]);
    browser.wait_text("#count", "1 of 3");
    browser.press("Escape");
    wait_names(&mut browser, &["*.b.test, b.test", "a.test", "c.test"]);

    // The token is asked for once; a wrong one, again.
    browser.click(&row_button("Drain", "a.test"));
    browser.wait("document.querySelector('#ask').open");
    browser.wait_text("#ask-title", "Admin token");
    browser.picture("page-token");
    assert_readable(&mut browser, "the question for the token");
    browser.type_text("open");
    browser.press("Enter");
    browser.wait_text("#ask-wrong", "does not accept this token");
    browser.type_text(TOKEN);
    browser.press("Enter");
    one.expect_closed();
    browser.wait_text("#toast", "a.test: drained; 1 bridge closed");
    browser.wait_text("#drained-list", "a.test");
    browser.wait(&format!(
        "document.querySelector({}) !== null",
        quoted(&row_button("Undrain", "a.test"))
    ));
    browser.picture("page-drained");
    let refused = Bridge::refused(&proxy, "BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(refused.status(), 503);
    browser.click(&row_button("Undrain", "a.test"));
    browser.wait("document.querySelector('#drained').hidden");
    let _one = Bridge::park(&proxy, &["a.test"]);

    // A drop is confirmed first.
    browser.click(&row_button("Drop", "*.b.test, b.test"));
    browser.wait_text("#ask-title", "Drop *.b.test, b.test?");
    browser.click("#ask-no");
    browser.wait("!document.querySelector('#ask').open");
    browser.click(&row_button("Drop", "*.b.test, b.test"));
    browser.wait_text("#ask-yes", "Drop");
    browser.click("#ask-yes");
    two.expect_closed();
    browser.wait_text("#toast", "*.b.test, b.test: 1 bridge closed");
    browser.wait("[...document.querySelectorAll('.row:not([hidden]) .unseen')].some(e => e.textContent.startsWith('no bridge'))");

    // The backend of this machine, by the keyboard alone.
    browser.eval("document.querySelector('#tab-hosts').focus()");
    browser.press("ArrowRight");
    browser.press("Tab");
    wait_names(&mut browser, &["127.0.0.1"]);
    assert_content(&mut browser);
}

#[test]
fn the_page_asks_for_the_token_that_reading_needs() {
    let Some(mut browser) = Browser::start() else { return };
    let proxy = proxy_at("127.0.0.1:0", "admin-reads token");
    let _bridge = Bridge::park(&proxy, &["a.test"]);
    browser.open(&format!("http://{}/", proxy.for_admin()));
    browser.wait_text("#ask-title", "Admin token");
    assert!(!browser.text("body").contains("a.test"));
    // Who says no may think again.
    browser.press("Escape");
    browser.wait_text("#outage", "only to those who have the admin token");
    browser.picture("page-locked");
    assert_readable(&mut browser, "the page without a token");
    browser.click("#outage-button");
    browser.wait("document.querySelector('#ask').open");
    browser.type_text("wrong");
    browser.press("Enter");
    browser.wait_text("#ask-wrong", "does not accept this token");
    browser.type_text(TOKEN);
    browser.press("Enter");
    wait_names(&mut browser, &["a.test"]);
    // It is kept for the tab.
    visit(&mut browser, &proxy);
    wait_names(&mut browser, &["a.test"]);
    assert_eq!(browser.eval("document.querySelector('#ask').open"), false);
    assert!(!proxy.log().contains(TOKEN));
    assert_content(&mut browser);
}

#[test]
fn the_page_outlives_a_restart_of_the_proxy() {
    let Some(mut browser) = Browser::start() else { return };
    let address = free_address().to_string();
    let proxy = proxy_at(&address, "");
    let _bridge = Bridge::park(&proxy, &["before.test"]);
    visit(&mut browser, &proxy);
    wait_names(&mut browser, &["before.test"]);
    drop(proxy);
    browser.wait_text("#status", "connection lost");
    browser.wait_text("#outage", "What is shown is from then");
    assert_eq!(names(&mut browser), ["before.test"], "the last that was known stays");
    browser.picture("page-lost");
    assert_readable(&mut browser, "the page that has lost its proxy");
    let proxy = proxy_at(&address, "");
    let _bridge = Bridge::park(&proxy, &["after.test"]);
    browser.wait_text("#status", "live");
    wait_names(&mut browser, &["after.test"]);
    assert_eq!(browser.eval("document.querySelector('#outage').hidden"), true);
    assert_content(&mut browser);
}
