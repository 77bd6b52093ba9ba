use super::super::load::tests::lines;
use super::super::table::TABLE;
use super::*;

#[track_caller]
fn site(line: &str) -> Site {
    match lines(&format!("site {line}\n")) {
        Ok(settings) => settings.site[0].as_ref().clone(),
        Err(problems) => panic!("{problems:?}"),
    }
}

#[track_caller]
fn wrong(text: &str, expected: &[&str]) {
    assert_eq!(lines(text).map(|_| ()), Err(expected.iter().map(|p| p.to_string()).collect()));
}

#[test]
fn every_option_is_read() {
    let settings = lines(
        "site WWW.example.com,*.Example.com swiftiply=127.0.0.1:30000,[::1]:30000 key=abc default \
         redeploy=16k timeout=3s forwarded=no keepalive=no backup=b.test \
         servers=10.0.0.5:3000,unix:/run/app.sock max=16\n\
         site b.test\n",
    );
    let settings = settings.unwrap();
    let site = &settings.site[0];
    assert_eq!(site.name(), "www.example.com");
    assert_eq!(site.names, ["www.example.com", "*.example.com"]);
    assert_eq!(site.listeners.len(), 1);
    assert_eq!(list(&site.listeners[0].addresses), "127.0.0.1:30000,[::1]:30000");
    assert_eq!(site.listeners[0].paths, Paths::All);
    assert_eq!(site.key.as_ref().map(Key::bytes), Some(&b"abc"[..]));
    assert!(site.default);
    assert_eq!(site.redeploy, Some(16_384));
    assert_eq!(site.timeout, Some(Duration::from_secs(3)));
    assert_eq!(site.forwarded, Some(Forwarded::Off));
    assert_eq!(site.keepalive, Keepalive::No);
    assert_eq!(site.backup.as_deref(), Some("b.test"));
    assert_eq!(list(&site.servers), "10.0.0.5:3000,unix:/run/app.sock");
    assert_eq!(site.max, Some(16));
}

#[test]
fn a_site_may_be_started_on_demand() {
    let line = "a.test manager=exec:/usr/lib/start manager-timeout=1m waiting-page-after=3s \
                waiting-page=/etc/w.html";
    let site = site(line);
    assert_eq!(site.on_demand.timeout, Some(Duration::from_secs(60)));
    assert_eq!(site.on_demand.page_after, Some(Duration::from_secs(3)));
    assert_eq!(site.to_string(), line);
    for (options, what) in [
        ("manager-timeout=1m", "manager-timeout is for a manager, and there is none"),
        ("manager=http://b/?key=sesame manager=exec:/x", "manager is given twice"),
        ("manager=http://b manager-timeout=0", "manager-timeout: 0 is less than 1ms"),
        ("waiting-page=w.html", "waiting-page is shown after waiting-page-after, which is not set"),
        (
            "waiting-page-after=1s waiting-page=w.txt",
            "waiting-page: \"w.txt\" does not end in .html",
        ),
    ] {
        wrong(&format!("site a {options}\n"), &[&format!("f:1: site: {what}")]);
    }
}

#[test]
fn a_site_may_have_pages() {
    let line = "a.test error-page=502,503:/etc/a:b.html error-page=503:p.json";
    let site = site(line);
    assert_eq!(site.error_pages[0].statuses, [502, 503]);
    assert_eq!(site.error_pages[0].file.to_str(), Some("/etc/a:b.html"));
    assert_eq!(site.to_string(), line);
    for (option, what) in [
        ("error-page=/p.html", "write STATUS:FILE, such as 503,504:/etc/page.html"),
        ("error-page=503:p.html error-page=503:p.txt", "503 already has a page"),
        ("error-page=99:p.html", "\"99\" is not a status from 400 to 599"),
    ] {
        wrong(&format!("site a {option}\n"), &[&format!("f:1: site: error-page: {what}")]);
    }
}

#[test]
fn a_site_may_be_sticky() {
    for line in ["a.test sticky=cookie", "a.test sticky=cookie:X sticky-wait=0", "a.test sticky=id"]
    {
        assert_eq!(site(line).to_string(), line);
    }
    for (options, what) in [
        ("sticky=ip", "sticky: is cookie, cookie:NAME or id"),
        ("sticky-wait=1s", "sticky-wait is for sticky sites, and this is none"),
        (
            "sticky=id servers=127.0.0.1:1",
            "sticky is for backends that connect, and not for servers",
        ),
        ("sticky=id sticky=id", "sticky is given twice"),
    ] {
        wrong(&format!("site a {options}\n"), &[&format!("f:1: site: {what}")]);
    }
}

#[test]
fn an_agent_check_has_an_address_of_its_own() {
    assert!(lines("agent-check *:8405\nagent-check 127.0.0.1:8406\n").is_ok());
    for (text, what) in [
        (
            "agent-check 127.0.0.1\n",
            "f:1: agent-check: \"127.0.0.1\" has no port; write ADDRESS:PORT",
        ),
        ("agent-check :1 :2\n", "f:1: agent-check: takes one address a line, not 2"),
        ("agent-check :1\nagent-check :1\n", "f:2: agent-check: *:1 is already listened on"),
    ] {
        wrong(text, &[what]);
    }
    for text in ["listen :1\nagent-check :1\n", "site a swiftiply=:1\nagent-check :1\n"] {
        let conflicts = lines(text).unwrap().conflicts();
        assert_eq!(conflicts, ["agent-check: *:1 is already listened on"], "{text}");
    }
}

#[test]
fn a_site_needs_no_more_than_a_name() {
    let plain = site("a.test");
    assert_eq!(plain, Site { names: vec!["a.test".to_owned()], ..Site::default() });
    assert_eq!(plain.keepalive, Keepalive::Yes);
}

#[test]
fn a_prefix_or_match_belongs_to_the_addresses_right_before_it() {
    let site = site(
        r#"a.test swiftiply=:1 swiftiply=:2,:3 prefix=/app/ swiftiply=:4 match=^/img/.*\.png$ swiftiply=:5 match="a b|\"c" swiftiply=:6 prefix=/"#,
    );
    let matching = |text| Paths::Matching(PathPattern::new(text).unwrap());
    let paths: Vec<&Paths> = site.listeners.iter().map(|listener| &listener.paths).collect();
    assert_eq!(
        paths,
        [
            &Paths::All,
            &Paths::Under("/app".to_owned()),
            &matching(r"^/img/.*\.png$"),
            &matching("a b|\"c"),
            &Paths::All
        ]
    );
    assert_eq!(list(&site.listeners[1].addresses), "*:2,*:3");
    for line in ["prefix=/x", "swiftiply=:1 default prefix=/x", "swiftiply=:1 prefix=/a prefix=/b"]
    {
        wrong(
            &format!("site a.test {line}\n"),
            &["f:1: site: prefix must follow the swiftiply= to which it applies"],
        );
    }
}

#[test]
fn a_key_is_any_text_of_a_line() {
    for (written, bytes) in [
        ("abc", &b"abc"[..]),
        ("a=b#c", b"a=b#c"),
        (r#""with blanks # and \"marks\" and \\""#, br#"with blanks # and "marks" and \"#),
        ("\u{fc}", b"\xc3\xbc"),
        ("\"\ttab\"", b"\ttab"),
    ] {
        let site = site(&format!("a.test key={written}"));
        assert_eq!(site.key.as_ref().map(Key::bytes), Some(bytes), "{written}");
    }
    assert_eq!(site(&format!("a.test key={}", "k".repeat(255))).key.unwrap().bytes().len(), 255);
    wrong(
        &format!("site a.test key={}\nsite b.test key=\n", "k".repeat(256)),
        &[
            "f:1: site: key: has 256 bytes; at most 255 can be sent",
            "f:2: site: key: is empty; leave it out for a site without a key",
        ],
    );
}

#[test]
fn site_key_is_never_shown() {
    let settings = lines("site a.test swiftiply=:1 key=hunter2 timeout=3s\n").unwrap();
    let row = TABLE.iter().find(|row| row.name == "site").unwrap();
    assert_eq!(row.show(&settings), "a.test swiftiply=*:1 key=... timeout=3s");
    assert!(!format!("{settings:?}").contains("hunter2"));
    let other = lines("site a.test swiftiply=:1 key=hunter3 timeout=3s\n").unwrap();
    assert_eq!(super::super::changed(&settings, &other), ["site"]);
    for line in [
        "key hunter2",
        "=hunter2",
        "hunter2",
        "key=\"hunter2",
        "key=\"hunter2\"x",
        "\"hunter2\"",
        "swiftiply=:1,key=hunter2",
        "timeout=3s,key=hunter2",
    ] {
        let problems = lines(&format!("site a.test {line}\n")).unwrap_err();
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
}

#[test]
fn malformed_site_is_explained() {
    for (line, what) in [
        ("", "site has no value"),
        ("swiftiply=:1", "site: the names of the site come before its options"),
        ("a,,b", "site: \"\" is not a host name: the name is empty"),
        ("a,A", "site: \"a\" is given twice"),
        ("a.*.b", "site: \"a.*.b\" is not a host name: '*' must be alone or the whole first label"),
        ("a swiftiply=127.0.0.1", "site: swiftiply: \"127.0.0.1\" has no port; write ADDRESS:PORT"),
        ("a swiftiply=:1,:x", "site: swiftiply: \"x\" is not a port"),
        (
            "a swiftiply=:1 key=b accept-proxy=::1",
            "site: accept-proxy must follow the swiftiply= to which it applies",
        ),
        (
            "a swiftiply=:1 accept-proxy=b",
            "site: accept-proxy: \"b\" is no network; write one such as 10.0.0.0/8 or 10.1.2.3",
        ),
        (
            "a swiftiply=:1 prefix=app",
            "site: prefix: \"app\" is not a path without a query, such as /app",
        ),
        ("a timeout=3", "site: timeout is given twice"),
        ("a timeout=0", "site: timeout: 0 is less than 1ms"),
        ("a max=3", "site: max is for servers, and there are none"),
        ("a check=/", "site: check is for servers, and there are none"),
        ("a servers=10.0.0.1:1 check-rise=3", "site: check-rise: there is no check before it"),
        ("a servers=b", "site: servers: \"b\" has no port; write ADDRESS:PORT or unix:PATH"),
        ("a keepalive=off", "site: keepalive: \"off\" is not yes or no"),
        ("a forwarded=x", "site: forwarded: \"x\" is not append, replace, off, yes or no"),
        (
            "a backend=b",
            "site: there is no option \"backend\"; there are swiftiply, prefix, match, accept-proxy, key, servers, ca, server-name, client-cert, max, tunnels, check, check-interval, check-rise, check-fall, default, timeout, redeploy, keepalive, forwarded, backup, sticky, sticky-wait, error-page, docroot, hidden, symlinks, cache-control, \
             pages, suffixes, sendfile-root, manager, manager-timeout, waiting-page-after and waiting-page",
        ),
    ] {
        let line =
            if what.ends_with("timeout is given twice") { "a timeout=3 timeout=3" } else { line };
        wrong(&format!("site {line}\n"), &[&format!("f:1: {what}")]);
    }
}

#[test]
fn an_expression_is_compiled_within_bounds() {
    wrong(
        "site a swiftiply=:1 match=(\n",
        &["f:1: site: match: \"(\" is not a regular expression: unclosed group"],
    );
    let problems = lines("site a swiftiply=:1 match=(a{1000}){1000}\n").unwrap_err();
    assert!(problems[0].contains("is not a regular expression: "), "{problems:?}");
    let problems = lines(&format!("site a swiftiply=:1 match={}\n", "a".repeat(1025)));
    assert_eq!(problems.unwrap_err(), ["f:1: site: match: an expression has 1 to 1024 bytes"]);
    assert!(PathPattern::new(r"(?i)^/\d+/[^/]*\.(png|jpe?g)$").is_ok());
}

#[test]
fn sites_do_not_share_names_addresses_or_default() {
    wrong(
        "site a.test,b.test swiftiply=:1 default\n\
         site B.test swiftiply=:2,:1 default\n\
         site c.test swiftiply=:3 swiftiply=:3\n\
         site d.test swiftiply=:0 swiftiply=:0\n",
        &[
            "f:2: site: b.test is already a name of the site a.test",
            "f:2: site: swiftiply: *:1 already belongs to the site a.test",
            "f:2: site: a.test is already the default",
            "f:3: site: swiftiply: *:3 already belongs to the site c.test",
        ],
    );
    let settings = lines("listen :80\nsite a.test swiftiply=:80\n").unwrap();
    assert_eq!(settings.listened_twice(), ["site a.test: *:80 is already listened on"]);
}

#[test]
fn backup_must_be_a_site_without_a_circle() {
    assert!(lines("site a backup=b\nsite b backup=c\nsite c\n").is_ok());
    wrong("site a backup=b\n", &["f:1: site: backup: no site has the name b"]);
    wrong(
        "site a backup=A\nsite b backup=c\nsite c backup=d\nsite d backup=c\n",
        &[
            "f:1: site: backup: a leads back to this site",
            "f:3: site: backup: d leads back to this site",
            "f:4: site: backup: c leads back to this site",
        ],
    );
}

#[test]
fn the_health_uri_is_a_path() {
    let settings = lines("health-uri /swiftiply_health\n").unwrap();
    assert_eq!(settings.health_uri.as_deref(), Some("/swiftiply_health"));
    wrong("health-uri health\n", &["f:1: health-uri: \"health\" is not a path without a query"]);
}
