//! Narrowed keys against known answers (`doc/protocol.md`, "Narrower keys", has them by openssl), and
//! what their holders might try.

use std::collections::BTreeSet;

use super::*;
use crate::bridge::hostkey::{
    Forms, HostKey, InvalidKey, KeyHash, Keyring, NamedKey, Revoked, Secrets, authorise,
};
use crate::bridge::proof::{NONCE_BYTES, Nonce, PLAIN_TEXT, RequestDigest, SignedText, parts};
use crate::bridge::request::{self, Registration};
use crate::http::Limits;

const SECRETS: &str = "1600000000:sesame";
const NOW: u64 = 1_700_000_100;

/// `sesame`, for `example.com`, until 1800000000, without a limit.
const MODERN: &str = "v2:57e23a4890a9a92a2d5f87d2a8ed6b702069ff8c97afbc82eb66645e19066371:1700000000:1800000000::example.com";
/// `sesame`, for `example.com`.
const LEGACY: &str = "8077c496f6ccd3cb67f8f2d39b36224c0e3981b7:1700000000:example.com";

/// The caveats of these, one after another, and the hashes of the keys.
const KNOWN: [(&str, &str, &str); 5] = [
    (
        "host=www.example.com",
        "5fb96cb41adae4c8701ec41ac43850b450705b27821a84bfdc367b8ff15ee1e0",
        "726df9ef2be5b12a544440c3608908a88ac2d997e976c6f4105081cecbca5a89",
    ),
    (
        "prefix=/app",
        "f33b52522e4b683b5172a70f899894967ad817f93b9bf72180f4c77972d763a9",
        "9685b780f68988c23787cb0df7fcc7bf32b038da4f2a9b49e78ce666a796b54f",
    ),
    (
        "method=GET/HEAD",
        "28686926a9d56654230ee205c2fa18a77d2d5ced5039836fc226597c8b03c643",
        "0d79c78c59db835a375d8adf81e1bb8b91c4b168da1e9bf9635792ed696e8e0f",
    ),
    (
        "bridges=2",
        "9bdfcdd94ff8b4b60efbb098446209f18f03a58caa3190dd5b1f08c82d022781",
        "7c7889d26774d818d3be35ebfd172d1fb3c4aedf981434b950fe45ed5888cfac",
    ),
    (
        "expiry=1750000000",
        "d60f590893bbfa6278fd44442b74c0319fd6ec30c51e8654ab03baaf26774b1a",
        "7a15b5afe881df9dadce74cdd93aa6dcd0c79eaa24bf98b6226991271104b615",
    ),
];

/// What the holder of the forged keys below really has.
const CAVEATS: [&str; 4] = ["host=a.example.com", "prefix=/app", "bridges=2", "expiry=1750000000"];

#[track_caller]
fn key(text: &str) -> HostKey {
    HostKey::parse(text.as_bytes()).unwrap()
}

fn secrets() -> Secrets {
    Secrets::parse(SECRETS, "keys").unwrap()
}

fn ring(revoked: &[&HostKey], forms: Forms) -> Keyring {
    let revoked: String = revoked.iter().map(|key| format!("{}\n", KeyHash::of(key))).collect();
    Keyring::new(secrets(), Revoked::parse(&revoked, "f").unwrap(), forms)
}

/// A key with these caveats more, as its holder makes it.
#[track_caller]
fn narrow(key: &HostKey, caveats: &[&str]) -> HostKey {
    let caveats: Vec<Caveat> = caveats.iter().map(|text| Caveat::parse(text).unwrap()).collect();
    key.narrowed(&caveats).unwrap()
}

fn registration(host: &str, target: &str, key: &HostKey) -> Registration {
    let head =
        format!("BRIDGE {target} HTTP/1.1\r\nHost: {host}\r\nHost-Key: {}\r\n\r\n", key.text());
    request::parse(head.as_bytes(), &Limits::default()).unwrap().expect("whole")
}

/// What is said to a registration with this key.
fn judge(host: &str, target: &str, key: &HostKey, now: u64) -> Result<(), String> {
    let ring = ring(&[], Forms::Both);
    let judged = authorise(&registration(host, target, key), &ring, now);
    judged.map(drop).map_err(|refusal| refusal.text)
}

#[test]
fn keys_are_narrowed_as_documented() {
    for (root, of) in [(MODERN, 1), (LEGACY, 2)] {
        let (version, _, rest) = parts(root).unwrap();
        let mut text = format!("{version}{}", &rest[1..]);
        let (mut narrowed, mut all) = (key(root), Vec::new());
        for (caveat, modern, legacy) in KNOWN {
            text += &format!("+{caveat}");
            all.push(caveat);
            narrowed = narrow(&narrowed, &[caveat]);
            let expected = format!("v3:{}:{text}", if of == 1 { modern } else { legacy });
            assert_eq!(narrowed.text(), expected);
            assert_eq!(narrow(&key(root), &all).text(), expected, "at once or one by one");
            assert_eq!(key(&expected).text(), expected);
            assert_eq!(secrets().check(&key(&expected), NOW), Ok(()));
        }
        let scope = narrowed.scope();
        assert_eq!((scope.name.as_str(), scope.prefix.as_str()), ("www.example.com", "/app"));
        assert_eq!(scope.methods, Some(vec!["GET".to_owned(), "HEAD".to_owned()]));
        assert_eq!(
            (scope.bridges.map(NonZeroU32::get), scope.expires),
            (Some(2), Some(1_750_000_000))
        );
    }
}

#[test]
fn key_is_good_within_its_caveats_alone() {
    let narrowed = narrow(&key(MODERN), &CAVEATS);
    let judge = |host: &str, target: &str, now| judge(host, target, &narrowed, now);
    for (host, target) in [
        ("a.example.com", "/app"),
        ("A.Example.com:80", "/app/"),
        ("x.a.example.com", "/app/x"),
        ("*.a.example.com", "/app//"),
    ] {
        assert_eq!(judge(host, target, NOW), Ok(()), "{host} {target}");
    }
    for host in [
        "example.com",
        "b.example.com",
        "xa.example.com",
        "*.example.com",
        "*",
        "a.example.com.evil",
        "com",
        "a.example",
        "[::1]",
        "a-example.com",
        "example.com.a",
        "*.b.example.com",
    ] {
        assert_eq!(judge(host, "/app", NOW), Err(format!("no Host-Key covers {host}")));
    }
    for target in [
        "/",
        "//",
        "/ap",
        "/apple",
        "/APP",
        "/app%2f",
        "/app;x",
        "//app",
        "/./app",
        "/x/../app",
        "/%61pp",
        "/x/app",
        "/app.",
        "/app\\x",
        "/App/app",
    ] {
        let said = judge("a.example.com", target, NOW);
        let text = "was narrowed to a path, and the target of this BRIDGE is not below it";
        assert_eq!(said, Err(format!("the Host-Key for a.example.com {text}")), "{target}");
    }
    assert_eq!(judge("a.example.com", "/app", 1_749_999_999), Ok(()));
    for now in [1_750_000_000, 1_790_000_000, u64::MAX] {
        let said = judge("a.example.com", "/app", now).unwrap_err();
        assert_eq!(said, "the Host-Key for a.example.com expired at 1750000000 (Unix time)");
    }
    let said = judge("a.example.com", "/app", 1_699_999_699).unwrap_err();
    assert!(said.ends_with("is dated 1700000000 (Unix time), which is in the future"), "{said}");
}

#[test]
fn a_key_for_methods_needs_a_bridge_that_says_so() {
    let narrowed = narrow(&key(MODERN), &["method=GET/HEAD"]);
    let said = judge("example.com", "/", &narrowed, NOW).unwrap_err();
    assert_eq!(
        said,
        "the Host-Key for example.com was narrowed to some methods, and this BRIDGE does not say by \
         If-Method that it takes no others"
    );
    let takes = |list: &[&str]| {
        narrowed.scope().takes(&list.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    for list in [&["GET"][..], &["HEAD"], &["HEAD", "GET"], &["GET", "GET"]] {
        assert!(takes(list), "{list:?}");
    }
    for list in [&[][..], &["POST"], &["GET", "POST"], &["get"], &["GET/HEAD"], &["*"], &[""]] {
        assert!(!takes(list), "{list:?}");
    }
}

/// Whatever a holder appends, the key allows no more than before.
#[test]
fn caveats_in_a_row_only_ever_narrow() {
    let before = narrow(&key(MODERN), &[CAVEATS.as_slice(), &["method=GET/HEAD"]].concat());
    let scope = before.scope();
    for wider in [
        "host=example.com",
        "host=com",
        "host=a.example.com",
        "prefix=/app",
        "bridges=2",
        "bridges=3",
        "bridges=4294967295",
        "expiry=1750000000",
        "expiry=1800000000",
        "expiry=18446744073709551615",
        "method=GET/HEAD/POST",
        "method=DELETE/GET/HEAD",
    ] {
        let after = narrow(&before, &[wider]);
        assert_eq!(after.scope(), scope, "{wider}");
        assert_eq!(secrets().check(&after, NOW), Ok(()));
    }
    for nothing in [
        "host=b.example.com",
        "host=*.example.com",
        "host=*",
        "host=aa.example.com",
        "prefix=/b",
        "prefix=/apple",
        "prefix=/ap",
        "method=POST",
        "host=[::1]",
    ] {
        let caveat = Caveat::parse(nothing).unwrap();
        assert_eq!(before.narrowed(&[caveat]).unwrap_err(), KeyError::Nothing, "{nothing}");
    }
    let less =
        narrow(&before, &["host=*.a.example.com", "prefix=/app/x", "bridges=1", "method=GET"]);
    let Scope { name, prefix, methods, bridges, .. } = less.scope();
    assert_eq!((name.as_str(), prefix.as_str()), ("*.a.example.com", "/app/x"));
    assert_eq!((methods.unwrap().concat(), bridges.unwrap().get()), ("GET".to_owned(), 1));
    // The limits that were there stay, too.
    let limits: Vec<String> =
        less.limits().iter().map(|(of, most)| format!("{most} {of}")).collect();
    let of = "example.com+host=a.example.com+prefix=/app+bridges=2";
    let more = "+method=GET/HEAD+host=*.a.example.com+prefix=/app/x+bridges=1";
    assert_eq!(limits, [format!("2 {of}"), format!("1 {of}{more}")]);
    let many = vec!["bridges=1"; MOST_CAVEATS - 5];
    let most = narrow(&before, &many);
    let more = most.narrowed(&[Caveat::Expiry(1)]).unwrap_err();
    assert_eq!(more, KeyError::Caveats);
}

#[test]
fn what_a_key_was_narrowed_from_takes_it_back() {
    let root = key(MODERN);
    let first = narrow(&root, &CAVEATS[..1]);
    let second = narrow(&first, &CAVEATS[1..]);
    let sibling = narrow(&root, &["host=b.example.com"]);
    for (revoked, is_lost) in [
        (&root, [true, true, true, true]),
        (&first, [false, true, true, false]),
        (&narrow(&root, &CAVEATS[..3]), [false, false, true, false]),
        (&second, [false, false, true, false]),
        (&sibling, [false, false, false, true]),
        (&key(LEGACY), [false, false, false, false]),
    ] {
        let ring = ring(&[revoked], Forms::Both);
        for (key, is_lost) in [&root, &first, &second, &sibling].into_iter().zip(is_lost) {
            let expected = if is_lost { Err(InvalidKey::Revoked) } else { Ok(()) };
            assert_eq!(ring.check(key, NOW), expected, "{key:?} when {revoked:?} is revoked");
        }
    }
    let of_legacy = narrow(&key(&LEGACY.replace("8077c", "8077C")), &["bridges=1"]);
    assert_eq!(ring(&[&key(LEGACY)], Forms::Both).check(&of_legacy, NOW), Err(InvalidKey::Revoked));
    assert_eq!(ring(&[], Forms::Modern).check(&of_legacy, NOW), Err(InvalidKey::OldForm));
    // A forger does not learn what was revoked.
    let forged = key(&second.text().replace("bridges=2", "bridges=3"));
    assert_eq!(ring(&[&root], Forms::Both).check(&forged, NOW), Err(InvalidKey::Mismatch));
}

#[test]
fn secrets_rotate_under_narrowed_keys_as_under_others() {
    let check =
        |secrets: &str, key: &HostKey| Secrets::parse(secrets, "f").unwrap().check(key, NOW);
    let [modern, legacy] = [MODERN, LEGACY].map(|root| narrow(&key(root), &CAVEATS));
    for key in [&modern, &legacy] {
        assert_eq!(check("1:sesame\n1700000050:new", key), Ok(()), "rotation breaks no key");
        assert_eq!(check("1:other\n1700000050:new", key), Err(InvalidKey::Mismatch));
        assert!(check("1700000050:new", key).is_err(), "its secret was removed");
    }
    // Only the old form is made with the newest secret, whatever its time.
    assert_eq!(check("1:old\n1700000050:sesame", &modern), Err(InvalidKey::Mismatch));
    assert_eq!(check("1:old\n1700000050:sesame", &legacy), Ok(()));
    assert_eq!(check("1700000050:sesame", &modern), Err(InvalidKey::TooOld));
    assert_eq!(check("1800000000:sesame", &modern), Err(InvalidKey::NoSecretYet));
}

#[test]
fn debug_output_holds_no_hash() {
    let shown = format!("{:?}", narrow(&key(MODERN), &CAVEATS[..1]));
    let of = "v2:1700000000:1800000000::example.com";
    assert_eq!(shown, format!("Narrowed(v3:***:{of}+host=a.example.com)"));
}

#[test]
fn keys_without_a_hash_cannot_be_narrowed() {
    let made = key("::a.test").narrowed(&[Caveat::Expiry(1)]);
    assert_eq!(made.unwrap_err(), KeyError::Hash);
}

#[test]
fn malformed_keys_are_told_apart() {
    let hash = "0".repeat(64);
    for (text, expected) in [
        ("v3:".to_owned(), KeyError::NarrowedShape),
        (format!("v3:{hash}"), KeyError::NarrowedShape),
        (format!("v3:{hash}:1:a"), KeyError::NarrowedShape),
        (format!("v3:{hash}:1+bridges=1"), KeyError::Shape),
        (format!("v3:{hash}:v2:1:2:a+bridges=1"), KeyError::ModernShape),
        (format!("v3:{hash}:v3:1:2::a+bridges=1"), KeyError::Version),
        (format!("v3:{}:1:a+bridges=1", &hash[1..]), KeyError::ModernHash),
        (format!("v3:{}A:1:a+bridges=1", &hash[1..]), KeyError::ModernHash),
        (format!("v3:{hash}:1:a+"), KeyError::Caveat),
        (format!("v3:{hash}:1:a+colour=red"), KeyError::Caveat),
        (format!("v3:{hash}:1:a{}", "+bridges=1".repeat(13)), KeyError::Caveats),
        (format!("v3:{hash}:1:a+host=b"), KeyError::Nothing),
    ] {
        assert_eq!(HostKey::parse(text.as_bytes()).unwrap_err(), expected, "{text}");
    }
    let long = format!("/{}", "a".repeat(256));
    for caveat in [
        "",
        "host",
        "host=",
        "host=A.test",
        "host=a.test.",
        "host=a.test:80",
        "host=a.*",
        "Host=a.test",
        "prefix=",
        "prefix=/",
        "prefix=app",
        "prefix=/app/",
        "prefix=/a?b",
        "prefix=/a#b",
        "prefix=/a,b",
        "prefix=/a b",
        "prefix=/ä",
        &format!("prefix={long}"),
        "method=",
        "method=get",
        "method=GET/GET",
        "method=HEAD/GET",
        "method=GET,HEAD",
        "method=/GET",
        "method=GET/",
        "bridges=",
        "bridges=0",
        "bridges=01",
        "bridges=-1",
        "bridges=4294967296",
        "bridges= 1",
        "expiry=",
        "expiry=01",
        "expiry=never",
        "expiry=18446744073709551616",
        "expires=1",
        "bridges:1",
        "bridges=1 ",
    ] {
        assert_eq!(Caveat::parse(caveat), Err(KeyError::Caveat), "{caveat}");
    }
}

/// All orders of some things.
fn orders(all: &[&'static str]) -> Vec<Vec<&'static str>> {
    if all.is_empty() {
        return vec![Vec::new()];
    }
    let with_first = |at: usize| {
        let rest = [&all[..at], &all[at + 1..]].concat();
        orders(&rest).into_iter().map(move |order| [&[all[at]][..], &order].concat())
    };
    (0..all.len()).flat_map(with_first).collect()
}

/// What the holder of a narrowed key, who knows its hash, that of another narrowed key, and how all of
/// it works, may try to have more. The hash of the key itself is in all that takes none of its own.
fn forgeries(held: &str, other: &str) -> Vec<String> {
    let hash_of = |text: &str| parts(text).unwrap().1.to_owned();
    let (hash, other) = (hash_of(held), hash_of(other));
    let root = "v2:1700000000:1800000000:16:example.com";
    let with = |hash: &str, caveats: &[&str]| {
        let caveats: String = caveats.iter().map(|caveat| format!("+{caveat}")).collect();
        format!("v3:{hash}:{root}{caveats}")
    };
    let mut all = Vec::new();
    // Caveats left out, in another order, and twice.
    for chosen in 0..15 {
        let kept: Vec<&str> =
            (0..4).filter(|at| chosen >> at & 1 == 1).map(|at| CAVEATS[at]).collect();
        all.push(with(&hash, &kept));
    }
    all.extend(orders(&CAVEATS).iter().skip(1).map(|order| with(&hash, order)));
    all.extend(CAVEATS.map(|caveat| with(&hash, &[&CAVEATS[..], &[caveat]].concat())));
    // Another caveat in place of one.
    for (at, others) in [
        (
            0,
            &[
                "host=example.com",
                "host=com",
                "host=b.example.com",
                "host=*",
                "host=*.example.com",
                "host=A.EXAMPLE.COM",
                "host=a.example.com.",
                "host=a.example.com:80",
                "host=x.a.example.com",
                "HOST=a.example.com",
                "host=a.example.com/",
                "host=a%2eexample.com",
                "host=",
                "hosts=a.example.com",
                "host=a.example.com&host=example.com",
                "name=example.com",
                "",
            ][..],
        ),
        (
            1,
            &[
                "prefix=/",
                "prefix=",
                "prefix=/ap",
                "prefix=/App",
                "prefix=/app/",
                "prefix=//app",
                "prefix=/%61pp",
                "prefix=/app/..",
                "prefix=/app/../",
                "prefix=/app/x",
                "prefix=/apple",
                "prefix=/app%2f..",
                "path=/",
                "prefix=/app?",
                "prefix=/app#",
                "Prefix=/app",
            ],
        ),
        (
            2,
            &[
                "bridges=3",
                "bridges=1",
                "bridges=16",
                "bridges=02",
                "bridges=0",
                "bridges=-2",
                "bridges=",
                "bridges=4294967295",
                "bridges=4294967298",
                "bridges=0x2",
                "bridges=2.0",
                "bridges=2e1",
                "bridges=2 ",
                "bridges= 2",
                "bridges=２",
                "bridge=2",
                "bridges=20",
            ],
        ),
        (
            3,
            &[
                "expiry=1750000001",
                "expiry=1800000000",
                "expiry=18446744073709551615",
                "expiry=18446744073709551616",
                "expiry=18446744075459551616",
                "expiry=01750000000",
                "expiry=17500000000",
                "expiry=-1",
                "expiry=",
                "expiry=never",
                "expiry=1.75e9",
                "expires=1750000000",
                "expiry=1750000000s",
                "not-before=1750000000",
            ],
        ),
    ] {
        for other in others {
            let mut caveats = CAVEATS;
            caveats[at] = other;
            all.push(with(&hash, &caveats));
        }
    }
    // Another root.
    for changed in [
        "v2:1700000000:1800000000:16:com",
        "v2:1700000000:1800000000:16:*",
        "v2:1700000000:1800000000::example.com",
        "v2:1700000000:1800000000:17:example.com",
        "v2:1700000000:1900000000:16:example.com",
        "v2:1700000001:1800000000:16:example.com",
        "v2:1700000000:1800000000:16:EXAMPLE.com",
        "v2:1700000000:1800000000:16:example.com.",
        "v2:1700000000:1800000000:16:example.com:80",
        "v2:01700000000:1800000000:16:example.com",
        "1700000000:example.com",
        ":example.com",
        "v1:1700000000:1800000000:16:example.com",
        "v3:1700000000:1800000000:16:example.com",
        "V2:1700000000:1800000000:16:example.com",
        "v2::1700000000:1800000000:16:example.com",
        "1800000000:16:example.com",
    ] {
        all.push(held.replace(root, changed));
    }
    // Other separators and encodings, and bytes before, between and behind.
    for separator in
        ["++", "%2B", "%2b", ";", ",", "&", " +", "+ ", "＋", "\0+", "\t", "\r\n", ":", "|"]
    {
        all.push(held.replacen('+', separator, 1));
        all.push(held.replace("+bridges", &format!("{separator}bridges")));
    }
    for behind in
        ["+", "+ ", "\0", "\n", "\r\n", "=", "0", "+host=example.com", "+bridges=16", "/", ".", ":"]
    {
        all.push(format!("{held}{behind}"));
    }
    all.extend([" ", "v", "v3:", "\u{feff}", "+", ":"].map(|before| format!("{before}{held}")));
    for version in ["v1", "v2", "v4", "V3", "v03", "v3 ", "v", "3", "v33"] {
        all.push(held.replacen("v3", version, 1));
    }
    // The hash in other ways, and as the hash of other forms.
    let other_hash = |new: &str| held.replace(&hash, new);
    all.push(other_hash(&hash.to_uppercase()));
    all.extend([&hash[1..], &hash[..40], "", other.as_str()].map(other_hash));
    all.extend([format!("{hash}0"), "0".repeat(64), "f".repeat(64)].map(|new| other_hash(&new)));
    all.push(format!("v2:{hash}:1700000000:1800000000:16:example.com"));
    all.push(format!("v2:{hash}:1700000000:1750000000:2:a.example.com"));
    all.push(format!("{}:1700000000:example.com", &hash[..40]));
    all.push(format!("{hash}:1700000000:example.com"));
    all.push(with(&other, &CAVEATS));
    all.push(with(&hash, &["host=b.example.com"]));
    // Chains that go on from the known hash, under fewer caveats, and chains with other secrets.
    let link = |begin: &str, message: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(begin.as_bytes()).unwrap();
        mac.update(message.as_bytes());
        hex(&mac.finalize().into_bytes())
    };
    for end in ["host=example.com", "bridges=16", "expiry=1800000000", "prefix=/app"] {
        let next = link(&hash, &format!("{LABEL}{end}"));
        all.push(with(&next, &[end]));
        all.push(with(&next, &[&CAVEATS[..3], &[end]].concat()));
        all.push(with(&next, &[&[end][..], &CAVEATS[..]].concat()));
        all.push(with(&link(&hash, end), &[&CAVEATS[..], &[end]].concat()));
        all.push(with(&link(&format!("{hash}{LABEL}"), end), &[&CAVEATS[..], &[end]].concat()));
    }
    for secret in ["", "Sesame", "sesame ", "other", "example.com", root] {
        let mut digits = link(secret, root);
        for caveat in CAVEATS {
            digits = link(&digits, &format!("{LABEL}{caveat}"));
        }
        all.push(with(&digits, &CAVEATS));
    }
    // A proof, which is made with the same hash, is no link.
    all.push(with(&link(&hash, "cloudbridge-proof-1\nhost=example.com"), &["host=example.com"]));
    all
}

#[test]
fn hundreds_of_ways_to_widen_a_narrowed_key_fail() {
    let terms = "v2:1700000000:1800000000:16:example.com";
    let root = Root::unsigned(terms).unwrap().signed_with("sesame");
    let [held, other] = [&CAVEATS[..], &["host=b.example.com", "bridges=16"]]
        .map(|caveats| narrow(&HostKey::Root(root.clone()), caveats).text());
    let secrets = secrets();
    let signed = SignedText::new(Nonce::new([7; NONCE_BYTES]), PLAIN_TEXT, RequestDigest::of(b"x"));
    // Shown as it is, or proven: whether the proxy finds that somebody has the key.
    let is_bought = |text: &str| {
        let bare =
            HostKey::parse(text.as_bytes()).is_ok_and(|key| secrets.check(&key, NOW).is_ok());
        let proven = parts(text).and_then(|(version, hash, rest)| {
            let proof = hex(&signed.mac(hash).finalize().into_bytes());
            let named = NamedKey::parse(format!("{version}proof-{proof}{rest}").as_bytes()).ok()?.0;
            secrets.recover(&named, &signed, NOW)
        });
        (bare, proven.is_some_and(|key| secrets.check(&key, NOW).is_ok()))
    };
    assert_eq!(is_bought(&held), (true, true), "the key itself");
    assert_eq!(is_bought(&other), (true, true));
    let forgeries = forgeries(&held, &other);
    let distinct: BTreeSet<&String> = forgeries.iter().filter(|text| **text != held).collect();
    assert!(distinct.len() >= 200, "{} forgeries", distinct.len());
    for text in distinct {
        assert_eq!(is_bought(text), (false, false), "{}", text.escape_debug());
    }
}

#[test]
fn key_with_a_changed_byte_is_invalid() {
    let (held, secrets) = (narrow(&key(MODERN), &CAVEATS).text(), secrets());
    for at in 0..held.len() {
        for bit in 0..8 {
            let mut bytes = held.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let good = HostKey::parse(&bytes).is_ok_and(|key| secrets.check(&key, NOW).is_ok());
            assert!(!good, "{}", bytes.escape_ascii());
        }
        let mut without = held.clone().into_bytes();
        without.remove(at);
        for bytes in [&without[..], &held.as_bytes()[..at], &held.as_bytes()[at..][1..]] {
            let good = HostKey::parse(bytes).is_ok_and(|key| secrets.check(&key, NOW).is_ok());
            assert!(!good, "{}", bytes.escape_ascii());
        }
    }
}

#[test]
fn the_names_of_a_chain_are_each_below_the_one_before() {
    let key = |caveats: &str| {
        let text = format!("v3:{}:v2:1:9:3:b.test+{caveats}", "0".repeat(64));
        HostKey::parse(text.as_bytes()).unwrap()
    };
    for (caveats, names) in [
        ("prefix=/a", &["b.test"][..]),
        ("host=a.b.test+bridges=1", &["b.test", "a.b.test"]),
        ("host=test+host=b.test", &["b.test"]),
        ("host=a.b.test+host=b.test+host=x.a.b.test", &["b.test", "a.b.test", "x.a.b.test"]),
    ] {
        assert_eq!(key(caveats).names(), names, "{caveats}");
        assert_eq!(key(caveats).caveats().join("+"), caveats);
    }
    assert_eq!(HostKey::parse(b"::b.test").unwrap().names(), ["b.test"]);
}
