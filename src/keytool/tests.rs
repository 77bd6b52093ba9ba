//! The key tool's command line, and what it answers.

use super::*;
use crate::bridge::hostkey::Caveat;
use options::{Check, Narrow, Secret, parse};
use std::num::NonZeroU32;

/// `printf secret:1234567890:a.example.com | sha1sum`
const A_EXAMPLE: &str = "817d1d4d1f9157057ea40057a7edfa9ac6f2a4eb:1234567890:a.example.com";

/// `printf v2:1000:5000:3:b.com | openssl dgst -sha256 -hmac old`
const OLD_B: &str =
    "v2:c6c5f74e18cc88a3444f3f54e64575f48d1e0a4c4eabb281d01414b6450f59d5:1000:5000:3:b.com";

fn arguments(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

#[track_caller]
fn command(words: &[&str]) -> Command {
    parse(&arguments(words)).unwrap()
}

#[track_caller]
fn prints(words: &[&str], input: &str, expected: &str) {
    assert_eq!(run(&arguments(words), &mut input.as_bytes()), Ok(format!("{expected}\n")));
}

#[track_caller]
fn fails(words: &[&str], input: &str, code: u8, line: &str) {
    let expected = Failure { lines: vec![line.to_owned()], code };
    assert_eq!(run(&arguments(words), &mut input.as_bytes()), Err(expected));
}

/// What `check` says about a key under the secrets `1000:old`, `2000:new` and `9000:next`.
#[track_caller]
fn checked(key: &str, host: Option<&str>, now: u64) -> Result<String, Vec<String>> {
    let secrets = Secrets::parse("1000:old\n2000:new\n9000:next\n", "keys").unwrap();
    checking::check(key, host, &secrets, "keys", now).map_err(|failure| {
        assert_eq!(failure.code, 1);
        failure.lines
    })
}

fn bad(line: &str) -> Result<String, Vec<String>> {
    Err(vec![line.to_owned()])
}

#[test]
fn the_originals_keys_are_printed() {
    prints(&["secret", "a.example.com", "1234567890"], "", A_EXAMPLE);
    let upper = "3a6a09c8d5a0a58b79d2c6772fabf2d7dbc47f3e:1700000000:Example.COM";
    prints(&["s:e:c r:et", "Example.COM", "1700000000"], "", upper);
}

/// `printf '%s' KEY | sha256sum`
#[test]
fn the_hash_of_a_key_is_that_of_its_text() {
    let hash = "2ef2913ef96bf7ef3579a693d512d47517ac4241a758863942693244943d17b6";
    prints(&["hash", A_EXAMPLE], "", hash);
    prints(&["hash", "-"], &format!("{A_EXAMPLE}\n"), hash);
    prints(&["hash", &A_EXAMPLE.replace('d', "D")], "", hash);
    prints(
        &["hash", OLD_B],
        "",
        "7075b5e469af9442d4260f457f723dd97bec5fc6e6c9d08e78cb7aaeb9b18ac8",
    );
    let malformed = "the key is malformed: it is not hash:timestamp:name";
    fails(&["hash", "sesame"], "", 1, malformed);
    fails(&["hash"], "", 2, "hash takes one key (-h for help)");
}

#[test]
fn secrets_come_from_standard_input_too() {
    for input in ["secret", "secret\n", "secret\r\n"] {
        let words = ["--secret-file", "-", "a.example.com", "1234567890"];
        prints(&words, input, A_EXAMPLE);
    }
    for input in ["", "\n", "secret\nanother\n"] {
        fails(&["--secret-file", "-", "a.test"], input, 1, "-: a secret is one line");
    }
}

#[test]
fn modern_keys_are_printed() {
    let words = ["--modern", "--expires", "5000", "--bridges", "3", "old", "b.com", "1000"];
    prints(&words, "", OLD_B);
    let words = ["old", "B.com:80", "1000", "--modern", "--expires=4000s", "--bridges=3"];
    prints(&words, "", OLD_B);
    let ninety = "v2:3104439657dbb69de637f743fc106908fb02507cbdd9301c6ba19b69fb32e304:1234567890:1242343890::a.example.com";
    prints(&["--modern", "secret", "a.example.com", "1234567890"], "", ninety);
}

#[test]
fn invalid_key_is_not_made() {
    let early = "--expires: a key cannot expire before it is made (days are written 90d)";
    fails(&["--modern", "--expires", "90", "s", "a.test"], "", 2, early);
    fails(&["--modern", "--expires", "1000", "s", "a.test", "1000"], "", 2, early);
    fails(&["--modern", "--expires", "0d", "s", "a.test"], "", 2, early);
    fails(
        &["s", "a b"],
        "",
        2,
        "HOST is not a host name: a host name has only letters, digits, '-', '_' and '.'",
    );
    fails(&["", "a.test"], "", 1, "the secret is empty");
    fails(&["a\nb", "a.test"], "", 1, "the secret is more than one line");
}

#[test]
fn the_command_line_is_read() {
    let given = |word: &str| Secret::Given(Origin::Word(Hidden(word.to_owned())));
    let make = |secret, made| {
        Command::Make(Make { secret, host: "a.test".to_owned(), made, form: Form::Legacy })
    };
    assert_eq!(command(&["s", "a.test"]), make(given("s"), None));
    assert_eq!(command(&["s", "a.test", "12"]), make(given("s"), Some(12)));
    assert_eq!(command(&["--", "-s", "a.test"]), make(given("-s"), None));
    assert_eq!(command(&["--", "add", "a.test"]), make(given("add"), None));
    assert_eq!(command(&["--", "check", "a.test"]), make(given("check"), None));
    let file = Secret::Given(Origin::File("f".into()));
    assert_eq!(command(&["a.test", "--secret-file", "f"]), make(file, None));
    assert_eq!(
        command(&["--secrets", "f", "a.test", "12"]),
        make(Secret::InForce("f".into()), Some(12))
    );
    assert_eq!(command(&["add", "f"]), Command::Add("f".into()));
    let check = |key, host: Option<&str>| {
        Command::Check(Check { key, secrets: "f".into(), host: host.map(str::to_owned) })
    };
    let word = Origin::Word(Hidden("k".to_owned()));
    assert_eq!(command(&["check", "k", "--secrets", "f"]), check(word.clone(), None));
    assert_eq!(command(&["check", "--host", "h", "--secrets=f", "k"]), check(word, Some("h")));
    assert_eq!(command(&["check", "--secrets=f", "-"]), check(Origin::File("-".into()), None));
}

#[test]
fn expiries_are_spans_or_points() {
    let expires = |word: &str| match command(&["--modern", "--expires", word, "s", "a.test"]) {
        Command::Make(Make { form: Form::Modern { expires, bridges: None }, .. }) => expires,
        other => panic!("{other:?}"),
    };
    assert_eq!(expires("90d"), Expiry::After(90 * 86_400));
    assert_eq!(expires("12h"), Expiry::After(43_200));
    assert_eq!(expires("1800000000"), Expiry::At(1_800_000_000));
}

#[test]
fn help_and_version_are_accepted_anywhere() {
    for words in [&["-h"][..], &["--help"], &["add", "-h"], &["check", "-h"], &["s", "a", "-h"]] {
        assert_eq!(command(words), Command::Help);
    }
    for words in [&["-v"][..], &["--version"], &["add", "-v"], &["check", "k", "-v"]] {
        assert_eq!(command(words), Command::Version);
    }
    assert_eq!(run(&arguments(&["-h"]), &mut "".as_bytes()).unwrap(), options::HELP);
    for flag in [
        "--secret-file FILE",
        "--secrets FILE",
        "--modern",
        "--expires WHEN",
        "--bridges N",
        "--host NAME",
    ] {
        assert!(options::HELP.contains(flag), "{flag}");
    }
}

#[test]
fn bad_command_line_is_explained() {
    for (words, line) in [
        (&[][..], "no SECRET and no HOST given (-h for help)"),
        (&["s"], "no HOST given (-h for help)"),
        (&["--secrets", "f"], "no HOST given (-h for help)"),
        (&["s", "a", "1", "2"], "too many arguments (-h for help)"),
        (&["--secrets", "f", "s", "a", "1"], "too many arguments (-h for help)"),
        (&["s", "a", "x"], "TIMESTAMP is a Unix time, in seconds"),
        (&["s", "a", "+1"], "TIMESTAMP is a Unix time, in seconds"),
        (&["s", "a", "18446744073709551616"], "TIMESTAMP is a Unix time, in seconds"),
        (&["-sesame", "a"], "unknown option (-h for help)"),
        (&["--secrets=f", "--secret-file=f", "a"], "--secret-file or --secrets, not both"),
        (&["--bridges", "1", "s", "a"], "--expires and --bridges are for --modern keys"),
        (&["--expires", "1d", "s", "a"], "--expires and --bridges are for --modern keys"),
        (&["--modern", "--bridges", "0", "s", "a"], "--bridges is a number from 1 to 4294967295"),
        (
            &["--modern", "--bridges", "4294967296", "s", "a"],
            "--bridges is a number from 1 to 4294967295",
        ),
        (
            &["--modern", "--expires", "soon", "s", "a"],
            "--expires: \"soon\" is not a time; write a whole number and ms, s, m, h or d, such as 500ms or 60s",
        ),
        (&["add"], "add takes one file (-h for help)"),
        (&["add", "f", "g"], "add takes one file (-h for help)"),
        (&["add", "f", "--modern"], "unknown option (-h for help)"),
        (&["check"], "check takes one key (-h for help)"),
        (&["check", "k"], "check needs --secrets FILE"),
    ] {
        fails(words, "", 2, line);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let line = "/no/such: No such file or directory (os error 2)";
    fails(&["--secrets", "/no/such", "a.test"], "", 1, line);
    fails(&["--secret-file", "/no/such", "a.test"], "", 1, line);
    fails(&["check", "k", "--secrets", "/no/such"], "", 1, line);
}

#[test]
fn secrets_and_keys_are_not_shown() {
    let shown = format!(
        "{:?} {:?}",
        command(&["sesame", "a"]),
        command(&["check", "sesame", "--secrets=f"])
    );
    assert!(!shown.contains("sesame"), "{shown}");
}

#[test]
fn good_keys_are_described() {
    assert_eq!(
        checked(OLD_B, Some("*.X.b.com:80"), 3000).unwrap(),
        "good: v2, made 1970-01-01 00:16:40 UTC, expires 1970-01-01 01:23:20 UTC, bridges at once: 3; \
         covers b.com and every name below it\n"
    );
    let star = "8654d235565cbe6e4a1c30be1b91269d326d2750:2500:*.b.com";
    assert_eq!(
        checked(star, None, 3000).unwrap(),
        "good: of the old form, made 1970-01-01 00:41:40 UTC, without an expiry; covers *.b.com\n"
    );
}

#[test]
fn invalid_keys_are_explained() {
    let made = |secret: &str, made| crate::bridge::hostkey::legacy_key(secret, made, "b.com");
    let modern = |secret: &str, made, expires| {
        let terms = Terms { made, expires, bridges: None, name: "b.com".to_owned() };
        crate::bridge::hostkey::modern_key(secret, &terms)
    };
    assert_eq!(checked(OLD_B, None, 5000), bad("the key expired at 1970-01-01 01:23:20 UTC"));
    assert_eq!(
        checked(&modern("new", 3301, 5000), None, 3000),
        bad("the key is too new: it is dated 1970-01-01 00:55:01 UTC")
    );
    let unknown = bad(
        "the secret is unknown: the key was made with none of those in keys, or was changed since",
    );
    assert_eq!(checked(&made("other", 2500), None, 3000), unknown);
    assert_eq!(checked(&modern("other", 2500, 5000), None, 3000), unknown);
    assert_eq!(checked(&modern("other", 500, 5000), None, 3000), unknown);
    let wrong = bad(
        "the key was made with the secret of 1970-01-01 00:16:40 UTC, which is not the one that was in \
         force at the key's own time, 1970-01-01 00:41:40 UTC",
    );
    assert_eq!(checked(&made("old", 2500), None, 3000), wrong);
    assert_eq!(checked(&modern("old", 2500, 5000), None, 3000), wrong);
    let early =
        bad("the key was made with a secret that is not in force before 1970-01-01 02:30:00 UTC");
    assert_eq!(checked(&made("next", 2500), None, 3000), early);
    assert_eq!(checked(&modern("next", 9000, 9999), None, 3000), early);
    assert_eq!(checked("::b.com", None, 3000), bad("the key has no hash and proves nothing"));
    assert_eq!(
        checked(&made("other", 2500), None, 999),
        bad("the key cannot be checked: no secret is in force yet")
    );
    assert_eq!(
        checked("sesame", None, 3000),
        bad("the key is malformed: it is not hash:timestamp:name")
    );
    assert_eq!(
        checked("v4:x", None, 3000),
        bad("the key is malformed: only v2, v3 and the old form are known")
    );
}

#[test]
fn uncovered_host_is_reported_too() {
    let cover = "the key is for b.com, which does not cover a.test";
    assert_eq!(checked(OLD_B, Some("a.test"), 3000), bad(cover));
    let both = vec!["the key expired at 1970-01-01 01:23:20 UTC".to_owned(), cover.to_owned()];
    assert_eq!(checked(OLD_B, Some("a.test"), 5000), Err(both));
    let failure = checking::check(OLD_B, Some("a b"), &Secrets::always("old").unwrap(), "f", 3000);
    assert_eq!(failure.unwrap_err().code, 2);
}

#[test]
fn narrowing_is_read_from_the_command_line() {
    let order = Narrow {
        file: "f".into(),
        host: Some("*.a.test".to_owned()),
        prefix: Some("/app".to_owned()),
        methods: Caveat::parse("method=GET/M-SEARCH").ok(),
        bridges: NonZeroU32::new(2),
        expires: Some(Expiry::After(3600)),
    };
    let options = ["--host", "*.A.test:80", "--prefix", "/app//", "--method=M-SEARCH,GET,GET"];
    let words = [&["narrow", "f", "--bridges=2", "--expires", "1h"], &options[..]].concat();
    assert_eq!(command(&words), Command::Narrow(order));
    assert_eq!(command(&["show", "-"]), Command::Show("-".into()));
    for (words, line) in [
        (
            &["narrow", "f"][..],
            "narrow needs --host, --prefix, --method, --bridges or --expires (-h for help)",
        ),
        (&["narrow", "--bridges", "1"], "narrow takes one file with a key (-h for help)"),
        (&["narrow", "f", "g", "--bridges", "1"], "narrow takes one file with a key (-h for help)"),
        (&["narrow", "f", "--bridges", "0"], "--bridges is a number from 1 to 4294967295"),
        (
            &["narrow", "f", "--method", "get"],
            "--method is a list of methods in capitals: GET,HEAD",
        ),
        (
            &["narrow", "f", "--host", "a b"],
            "--host is not a host name: a host name has only letters, digits, '-', '_' and '.'",
        ),
        (&["show"], "show takes one file with a key (-h for help)"),
    ] {
        fails(words, "", 2, line);
    }
    for path in ["/", "", "app", "/a?b", "/a+b", "/a,b"] {
        let line =
            "--prefix is a path such as /app, without ?, #, + and commas, of at most 256 bytes";
        fails(&["narrow", "f", "--prefix", path], "", 2, line);
    }
    let past = "--expires: 1970-01-01 00:00:01 UTC is past";
    fails(&["narrow", "-", "--expires", "1"], OLD_B, 2, past);
    fails(&["narrow", "-", "--bridges", "1"], "::a.test", 1, "the hash is not 40 hex digits");
    fails(&["show", "-"], "sesame", 1, "the key is malformed: it is not hash:timestamp:name");
    for command in ["narrow", "show"] {
        let line = format!(
            "{command} takes no key, which others on this machine could see, but a file with one, or - \
             for standard input"
        );
        fails(&[command, A_EXAMPLE], "", 2, &line);
    }
}
