//! The secrets file, and single secrets.

use super::*;

#[track_caller]
fn secrets(text: &str) -> Secrets {
    Secrets::parse(text, "keys").unwrap()
}

#[track_caller]
fn errors(text: &str) -> Vec<String> {
    Secrets::parse(text, "keys").unwrap_err()
}

#[test]
fn a_secrets_file_may_have_blank_lines_and_any_line_end() {
    for text in ["1:a\n2:b\n", "1:a\n2:b", "\n1:a\r\n\n  \n2:b\r\n"] {
        let read = secrets(text);
        let lines: Vec<_> = read.lines.iter().map(|s| (s.from, s.text.as_str())).collect();
        assert_eq!(lines, [(1, "a"), (2, "b")], "{text:?}");
    }
    assert_eq!(secrets("1:#a: b ").lines[0].text, "#a: b ");
}

#[test]
fn all_bad_lines_are_reported_and_none_is_quoted() {
    assert_eq!(
        errors(
            "10:good\nsesame\nx:sesame\n+11:sesame\n:sesame\n12:\n10:sesame\n\n9:sesame\n13:fine\n"
        ),
        [
            "keys:2: a line is timestamp:secret, and this one has no colon",
            "keys:3: the timestamp is not a number of seconds",
            "keys:4: the timestamp is not a number of seconds",
            "keys:5: the timestamp is not a number of seconds",
            "keys:6: the secret is empty",
            "keys:7: the timestamp is not above the one before it",
            "keys:9: the timestamp is not above the one before it",
        ]
    );
    assert_eq!(errors(""), ["keys:1: no secret in this file"]);
    assert_eq!(errors("\n\n"), ["keys:1: no secret in this file"]);
}

#[test]
fn the_newest_secret_in_force_is_known() {
    let dated = secrets("1000:a\n2000:b\n");
    assert_eq!(dated.newest(999), None);
    assert_eq!(dated.newest(1000), Some(1000));
    assert_eq!(dated.newest(1999), Some(1000));
    assert_eq!(dated.newest(u64::MAX), Some(2000));
}

#[test]
fn a_single_secret_fits_into_a_line() {
    assert_eq!(Secrets::always("a: b").unwrap().newest(0), Some(0));
    assert_eq!(Secrets::always("").unwrap_err(), "the secret is empty");
    for text in ["a\nb", "a\n", "\ra"] {
        assert_eq!(Secrets::always(text).unwrap_err(), "the secret is more than one line");
    }
}

#[test]
fn keys_are_made_with_a_secret_that_is_in_force() {
    let dated = secrets("1000:old\n2000:new\n");
    let made = |made, now| dated.make_legacy(made, "b.com", now);
    assert_eq!(made(999, 9999), None);
    assert_eq!(made(1000, 999), None);
    assert_eq!(made(1000, 9999), Some(legacy_key("old", 1000, "b.com")));
    assert_eq!(made(2500, 9999), Some(legacy_key("new", 2500, "b.com")));
    assert_eq!(made(2500, 1999), Some(legacy_key("old", 2500, "b.com")));
    let terms = Terms { made: 2500, expires: 9000, bridges: None, name: "b.com".to_owned() };
    assert_eq!(dated.make_modern(&terms, 9999), Some(modern_key("new", &terms)));
    assert_eq!(dated.make_modern(&terms, 1999), Some(modern_key("old", &terms)));
    assert_eq!(dated.make_modern(&terms, 999), None);
}

#[test]
fn the_maker_of_a_key_is_found() {
    let dated = secrets("1000:old\n2000:new\n9000:next\n");
    for (secret, expected) in
        [("old", Some(1000)), ("new", Some(2000)), ("next", Some(9000)), ("other", None)]
    {
        let key = HostKey::parse(legacy_key(secret, 1, "b.com").as_bytes()).unwrap();
        assert_eq!(dated.maker(&key), expected, "{secret}");
    }
}
