//! The key tool and the real proxy: what the one makes the other takes, for as long as it should.

use crate::common::{ACK, Bridge, Client, Proxy, Setup, eventually, keyed, skipped};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok()
}

/// How a run of the tool ended.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs the tool; `{dir}` in an argument stands for the proxy's directory, and does in what it
/// prints.
#[track_caller]
fn tool(proxy: &Proxy, arguments: &[&str], input: &str) -> Ran {
    let dir = proxy.dir().display().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_cloudbridge-key"))
        .args(arguments.iter().map(|argument| argument.replace("{dir}", &dir)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool can be started");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it fits into the pipe");
    drop(stdin);
    let output = child.wait_with_output().expect("the tool ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8").replace(&dir, "{dir}");
    let code = output.status.code().expect("an exit code");
    Ran { code, out: text(output.stdout), err: text(output.stderr) }
}

/// What the tool prints, which is one line, when it succeeds.
#[track_caller]
fn line(proxy: &Proxy, arguments: &[&str]) -> String {
    let ran = tool(proxy, arguments, "");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    ran.out.strip_suffix('\n').expect("a line").to_owned()
}

/// A proxy with the secrets `old` and `new`.
fn guarded(settings: &str) -> Proxy {
    Setup::new()
        .settings(&format!("secrets {{dir}}/secrets\n{settings}"))
        .file("secrets", "1000000000:old\n1600000000:new\n")
        .start()
}

/// The one line of text with which the proxy refuses a bridge, after its status.
#[track_caller]
fn refusal(proxy: &Proxy, host: &str, key: &str) -> String {
    let refusal = Bridge::refused(proxy, keyed(host, key));
    format!("{} {}", refusal.status(), refusal.text().trim_end())
}

#[track_caller]
fn is_taken(proxy: &Proxy, host: &str, key: &str) -> bool {
    let mut bridge = Bridge::connect(proxy);
    bridge.send(keyed(host, key));
    bridge.read_head().head == ACK
}

#[test]
fn keys_of_both_forms_are_accepted() {
    let proxy = guarded("");
    for key in [
        line(&proxy, &["new", "a.test"]),
        line(&proxy, &["old", "a.test", "1100000000"]),
        line(&proxy, &["--secrets", "{dir}/secrets", "a.test"]),
        line(&proxy, &["--secrets", "{dir}/secrets", "a.test", "1100000000"]),
        line(&proxy, &["--modern", "new", "a.test"]),
        line(&proxy, &["--modern", "--secrets", "{dir}/secrets", "--bridges", "9", "A.test:80"]),
        line(
            &proxy,
            &[
                "--modern",
                "--secrets",
                "{dir}/secrets",
                "--expires",
                "9999d",
                "a.test",
                "1100000000",
            ],
        ),
    ] {
        let mut backend = Bridge::register(&proxy, keyed("www.a.test", &key));
        let mut client = Client::get(&proxy, "www.a.test", "/");
        assert_eq!(backend.serve_to(&mut client, "served"), "GET / HTTP/1.1");
        assert!(refusal(&proxy, "b.test", &key).starts_with("401 no Host-Key covers b.test"));
    }
}

#[test]
fn secret_is_read_from_a_file_or_standard_input() {
    let proxy = guarded("");
    let ran = tool(&proxy, &["--secret-file", "-", "a.test", "1700000000"], "new\n");
    // printf new:1700000000:a.test | sha1sum
    let key = "30183353c97f16d8b693f12f5dded80324ba9263:1700000000:a.test";
    assert_eq!(ran, Ran { code: 0, out: format!("{key}\n"), err: String::new() });
    proxy.write("secret", "new\n");
    let words = ["--secret-file", "{dir}/secret", "a.test", "1700000000"];
    assert_eq!(line(&proxy, &words), key);
}

#[test]
fn an_expired_key_gets_401() {
    let proxy = guarded("");
    let key = line(&proxy, &["--modern", "--expires", "90d", "new", "a.test", "1700000000"]);
    assert_eq!(
        refusal(&proxy, "a.test", &key),
        "401 the Host-Key for a.test expired at 1707776000 (Unix time)"
    );
}

#[test]
fn a_key_that_was_changed_gets_401() {
    let proxy = guarded("");
    let key =
        line(&proxy, &["--modern", "--bridges", "1", "--expires", "4000000000", "new", "a.test"]);
    for (old, new) in [
        (":1:a.test", "::a.test"),
        (":1:a.test", ":2:a.test"),
        (":4000000000:", ":4000000001:"),
        (":a.test", ":test"),
    ] {
        let changed = key.replace(old, new);
        assert_ne!(changed, key);
        assert_eq!(
            refusal(&proxy, "a.test", &changed),
            "401 the Host-Key for a.test does not check out: it was changed, or not made with the secret in force at its time"
        );
    }
    assert!(is_taken(&proxy, "a.test", &key));
}

#[test]
fn limit_in_a_key_holds_across_workers() {
    let proxy = guarded("workers 4");
    let key = line(&proxy, &["--modern", "--bridges", "3", "new", "a.test"]);
    // Made at another time, but for the same name and limit.
    let renewed = line(
        &proxy,
        &["--modern", "--bridges", "3", "--expires", "9999d", "new", "a.test", "1700000000"],
    );
    let more = line(&proxy, &["--modern", "--bridges", "4", "new", "a.test"]);
    let mut bridges: Vec<Bridge> =
        (0..3).map(|_| Bridge::register(&proxy, keyed("a.test", &key))).collect();
    for _ in 0..16 {
        for key in [&key, &renewed] {
            let refusal = Bridge::refused(&proxy, keyed("x.a.test", key));
            assert_eq!(refusal.status(), 503);
            assert_eq!(refusal.field("retry-after"), Some("5"));
            assert_eq!(
                refusal.text().trim_end(),
                "as many bridges as the Host-Key for a.test allows are connected: 3"
            );
        }
    }
    assert!(is_taken(&proxy, "a.test", &more), "its own limit is not reached");
    drop(bridges.pop());
    eventually("there is room again", || is_taken(&proxy, "a.test", &key));
}

#[test]
fn limit_in_a_key_counts_a_bridge_on_any_worker() {
    let proxy = guarded("workers 4");
    let key = line(&proxy, &["--modern", "--bridges", "1", "new", "a.test"]);
    let mut bridge = Bridge::register(&proxy, keyed("a.test", &key));
    // Clients come to whichever worker, and the bridge moves there.
    for _ in 0..8 {
        let mut client = Client::get(&proxy, "a.test", "/");
        let request = bridge.accept_request();
        assert_eq!(request.start, "GET / HTTP/1.1");
        assert!(refusal(&proxy, "a.test", &key).starts_with("503 "), "while it serves");
        bridge.respond_to(&mut client, "served");
        assert!(refusal(&proxy, "a.test", &key).starts_with("503 "), "when it has served");
    }
    drop(bridge);
    eventually("there is room again", || is_taken(&proxy, "a.test", &key));
}

#[test]
fn limit_in_a_key_holds_for_registrations_at_the_same_time() {
    let proxy = guarded("workers 4");
    let key = line(&proxy, &["--modern", "--bridges", "5", "new", "a.test"]);
    let mut rivals: Vec<Bridge> = (0..40).map(|_| Bridge::connect(&proxy)).collect();
    for rival in &mut rivals {
        rival.send(keyed("a.test", &key));
    }
    let taken = rivals.iter_mut().map(|rival| rival.read_head().head == ACK).filter(|taken| *taken);
    assert_eq!(taken.count(), 5);
}

#[test]
fn legacy_keys_no_refuses_keys_of_the_old_form() {
    let proxy = guarded("legacy-keys yes");
    let old = line(&proxy, &["new", "a.test"]);
    let modern = line(&proxy, &["--modern", "new", "a.test"]);
    assert!(is_taken(&proxy, "a.test", &old));
    let mut connected = Bridge::register(&proxy, keyed("a.test", &old));
    proxy.change_settings("legacy-keys yes", "legacy-keys no");
    proxy.reload_well();
    assert_eq!(
        refusal(&proxy, "a.test", &old),
        "401 the Host-Key for a.test is of the old form, which `legacy-keys no` turns off; ask for a v2 key"
    );
    connected.expect_closed();
    assert!(is_taken(&proxy, "a.test", &modern));
}

#[test]
fn secrets_are_rotated_without_breaking_a_key() {
    let proxy = guarded("");
    let before = line(&proxy, &["--modern", "--secrets", "{dir}/secrets", "a.test"]);
    let legacy = line(&proxy, &["--secrets", "{dir}/secrets", "a.test"]);
    let path = proxy.dir().join("secrets");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let said = line(&proxy, &["add", "{dir}/secrets"]);
    assert!(said.starts_with("{dir}/secrets: a new secret, in force from 2"), "{said}");
    assert!(said.ends_with(" UTC; send HUP to the proxy"), "{said}");

    let after = line(&proxy, &["--modern", "--secrets", "{dir}/secrets", "a.test"]);
    assert!(!is_taken(&proxy, "a.test", &after), "the proxy knows the secret already");
    proxy.reload_well();
    assert!(is_taken(&proxy, "a.test", &after));
    assert!(is_taken(&proxy, "a.test", &before));
    assert!(is_taken(&proxy, "a.test", &legacy));

    // The lines before it are taken out: what was made with them is revoked.
    let text = std::fs::read_to_string(&path).unwrap();
    let newest = text.lines().last().unwrap();
    proxy.write("secrets", &format!("{newest}\n"));
    proxy.reload_well();
    assert!(!is_taken(&proxy, "a.test", &before));
    assert!(!is_taken(&proxy, "a.test", &legacy));
    assert!(is_taken(&proxy, "a.test", &after));
    let secret = newest.split_once(':').unwrap().1;
    assert!(!proxy.log().contains(secret), "a secret in the log");
}

#[test]
fn the_first_secret_of_a_file_is_good_at_once() {
    let proxy = guarded("");
    line(&proxy, &["add", "{dir}/first"]);
    let path = proxy.dir().join("first");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let key = line(&proxy, &["--modern", "--secrets", "{dir}/first", "a.test"]);
    let report = line(&proxy, &["check", &key, "--secrets", "{dir}/first", "--host", "*.a.test"]);
    assert!(report.starts_with("good: v2, made 2"), "{report}");
    assert!(
        report.ends_with(", any number of bridges at once; covers a.test and every name below it")
    );
}

#[test]
fn checks_end_in_an_exit_code_and_a_line() {
    let proxy = guarded("");
    let check = |key: &str, more: &[&str]| {
        let arguments = [&["check", key, "--secrets", "{dir}/secrets"], more].concat();
        tool(&proxy, &arguments, "")
    };
    let failed = |code: i32, err: &str| Ran {
        code,
        out: String::new(),
        err: format!("cloudbridge-key: {err}\n"),
    };
    let expired = line(&proxy, &["--modern", "new", "a.test", "1700000000"]);
    assert_eq!(check(&expired, &[]), failed(1, "the key expired at 2024-02-12 22:13:20 UTC"));
    let other = line(&proxy, &["--modern", "other", "a.test"]);
    assert_eq!(
        check(&other, &[]),
        failed(
            1,
            "the secret is unknown: the key was made with none of those in {dir}/secrets, or was changed since"
        )
    );
    let good = line(&proxy, &["new", "a.test"]);
    assert_eq!(
        check(&good, &["--host", "b.test"]),
        failed(1, "the key is for a.test, which does not cover b.test")
    );
    assert_eq!(check("x", &[]), failed(1, "the key is malformed: it is not hash:timestamp:name"));
    assert_eq!(check(&good, &["--hosts", "b"]), failed(2, "unknown option (-h for help)"));
    let ran = tool(&proxy, &["check", "-", "--secrets", "{dir}/secrets"], &format!("{good}\n"));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(proxy.dir().join("secrets"), open).unwrap();
    let ran = tool(&proxy, &["add", "{dir}/secrets"], "");
    assert_eq!(ran.code, 1, "the file can be read by others: {ran:?}");
}

#[test]
fn help_and_version_are_printed() {
    let proxy = guarded("");
    let ran = tool(&proxy, &["-h"], "");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.starts_with("Usage: cloudbridge-key [options] SECRET HOST [TIMESTAMP]\n"));
    let start = concat!("cloudbridge-key ", env!("CARGO_PKG_VERSION"), " (");
    assert!(line(&proxy, &["-v"]).starts_with(start));
    let ran = tool(&proxy, &[], "");
    let err = "cloudbridge-key: no SECRET and no HOST given (-h for help)\n";
    assert_eq!(ran, Ran { code: 2, out: String::new(), err: err.to_owned() });
}

/// Written from `doc/protocol.md`, with nothing but what Python has.
const IN_PYTHON: &str = r#"
import hashlib, hmac, sys

def narrow(key, caveat):
    form, hash, rest = ("", *key.split(":", 1)) if key[0] != "v" else key.split(":", 2)
    root = rest if form == "v3" else form + ":" * bool(form) + rest
    signed = "cloudbridge-narrow-1\n" + caveat
    hash = hmac.new(hash.encode(), signed.encode(), hashlib.sha256).hexdigest()
    return f"v3:{hash}:{root}+{caveat}"

key = sys.stdin.readline().strip()
for caveat in sys.argv[1:]:
    key = narrow(key, caveat)
print(key)
"#;

#[test]
fn a_script_narrows_keys_as_the_tool_does() {
    if !has("python3") {
        return skipped("python3 is not installed");
    }
    let proxy = guarded("");
    let vectors = [
        (
            "v2:57e23a4890a9a92a2d5f87d2a8ed6b702069ff8c97afbc82eb66645e19066371:1700000000:1800000000::example.com",
            "v3:9bdfcdd94ff8b4b60efbb098446209f18f03a58caa3190dd5b1f08c82d022781:v2:1700000000:1800000000::example.com",
        ),
        (
            "8077c496f6ccd3cb67f8f2d39b36224c0e3981b7:1700000000:example.com",
            "v3:7c7889d26774d818d3be35ebfd172d1fb3c4aedf981434b950fe45ed5888cfac:1700000000:example.com",
        ),
    ];
    for (root, narrowed) in vectors {
        let options = ["--host", "WWW.example.com:80", "--prefix", "/app/", "--method", "HEAD,GET"];
        let words = [&["narrow", "-", "--bridges", "2"], &options[..]].concat();
        let ran = tool(&proxy, &words, root);
        let caveats = ["host=www.example.com", "prefix=/app", "method=GET/HEAD", "bridges=2"];
        let expected = format!("{narrowed}+{}", caveats.join("+"));
        assert_eq!(ran, Ran { code: 0, out: format!("{expected}\n"), err: String::new() });
        let mut python = Command::new("python3");
        let script = python.args(["-c", IN_PYTHON]).args(caveats);
        assert_eq!(fed(script, root), format!("{expected}\n"));
        // The tool goes on where the script has stopped.
        let half = fed(Command::new("python3").args(["-c", IN_PYTHON]).args(&caveats[..2]), root);
        let rest = tool(&proxy, &["narrow", "-", "--method", "GET,HEAD", "--bridges", "2"], &half);
        assert_eq!(rest.out, format!("{expected}\n"), "{rest:?}");
    }
}

#[test]
fn a_narrowed_key_is_shown_without_its_hash_and_checked() {
    let proxy = guarded("");
    let root =
        line(&proxy, &["--modern", "new", "a.test", "1700000000", "--expires", "4000000000"]);
    proxy.write("root", &format!("{root}\n"));
    let narrowed = line(
        &proxy,
        &[
            "narrow",
            "{dir}/root",
            "--host",
            "x.a.test",
            "--prefix",
            "/app",
            "--bridges",
            "2",
            "--expires",
            "3000000000",
        ],
    );
    let ran = tool(&proxy, &["show", "-"], &narrowed);
    let expected = "form      v2, for a.test\nmade      2023-11-14 22:13:20 UTC\n\
        expires   2065-01-24 05:20:00 UTC\nhosts     x.a.test and every name below it\n\
        paths     /app and every path below it\nmethods   all\n\
        bridges   2, counted for a.test+host=x.a.test+prefix=/app+bridges=2\n\
        narrowed  host=x.a.test\nnarrowed  prefix=/app\nnarrowed  bridges=2\n\
        narrowed  expiry=3000000000, 2065-01-24 05:20:00 UTC\n";
    assert_eq!(ran, Ran { code: 0, out: expected.to_owned(), err: String::new() });
    let check = |more: &[&str]| {
        tool(&proxy, &[&["check", "-", "--secrets", "{dir}/secrets"], more].concat(), &narrowed)
    };
    assert_eq!(
        check(&["--host", "x.a.test"]).out,
        "good: v2, made 2023-11-14 22:13:20 UTC, expires 2065-01-24 05:20:00 UTC, bridges at once: 2; \
         covers x.a.test and every name below it, below the path /app, narrowed from a key for a.test\n"
    );
    let wrong = check(&["--host", "a.test"]);
    assert_eq!(
        wrong.err,
        "cloudbridge-key: the key is for x.a.test, which does not cover a.test\n"
    );
    for (options, err) in [
        (["--host", "a.test"], "--host: the key is for x.a.test, which does not cover a.test"),
        (["--prefix", "/b"], "--prefix: the key is for paths below /app, and /b is not"),
        (["--bridges", "3"], "--bridges: the key allows 2"),
        (
            ["--expires", "3000000001"],
            "--expires: the key expires earlier, at 2065-01-24 05:20:00 UTC",
        ),
    ] {
        let ran = tool(&proxy, &[&["narrow", "-"], &options[..]].concat(), &narrowed);
        let err = format!("cloudbridge-key: {err}\n");
        assert_eq!(ran, Ran { code: 1, out: String::new(), err });
    }
    // A key on the command line is not taken, and not repeated.
    let ran = tool(&proxy, &["narrow", &narrowed, "--bridges", "1"], "");
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.starts_with("cloudbridge-key: narrow takes no key, which others on this machine")
    );
    assert!(!ran.err.contains(&narrowed[3..67]), "{}", ran.err);
    assert_eq!(tool(&proxy, &["narrow", "-"], "").code, 2, "nothing to narrow");
}

/// What a program prints that is given this line.
#[track_caller]
fn fed(command: &mut Command, line: &str) -> String {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it can be started");
    writeln!(child.stdin.take().expect("a pipe"), "{}", line.trim())
        .expect("it fits into the pipe");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("UTF-8")
}
