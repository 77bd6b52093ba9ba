use super::output::word;
use super::*;
use crate::config;
use std::path::Path;

/// The example of the original's description, as the YAML it was.
const EXAMPLE: &str = include_str!("example.yml");

#[track_caller]
fn import(yaml: &str) -> Vec<String> {
    match swiftiply(yaml, "s.yml") {
        Ok(imported) => imported.text.lines().map(str::to_owned).collect(),
        Err(problems) => panic!("{problems:?}"),
    }
}

/// The `site` lines of a file with one entry under `map:`, whose lines are given.
#[track_caller]
fn site(entry: &str) -> String {
    let entry = entry.replace('\n', "\n    ");
    let lines = import(&format!("cluster_port: 80\nmap:\n  - {entry}\n"));
    let sites: Vec<String> = lines.into_iter().filter(|line| line.starts_with("site ")).collect();
    assert_eq!(sites.len(), 1, "{sites:?}");
    sites[0].clone()
}

#[track_caller]
fn wrong(yaml: &str, expected: &[&str]) {
    let problems = swiftiply(yaml, "s.yml").unwrap_err();
    let shown: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(shown, expected);
}

#[test]
fn the_example_of_the_original() {
    let plain: Vec<String> = import(EXAMPLE)
        .into_iter()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    assert_eq!(
        plain,
        [
            "listen swiftcore.org:80 clients",
            "health-uri /swiftiply_health",
            "unknown-host 404",
            "daemonize yes",
            "log-file /var/log/cloudbridge.log",
            "site swiftcore.org,www.swiftcore.org swiftiply=127.0.0.1:30000 default timeout=3s forwarded=no",
            "site iowa.swiftcore.org swiftiply=127.0.0.1:30010 timeout=3s forwarded=no",
            "site analogger.swiftcore.org swiftiply=127.0.0.1:30020 timeout=3s forwarded=no",
            "site swiftiply.com,www.swiftiply.com,swiftiply.swiftcore.org swiftiply=127.0.0.1:30030 \
             timeout=3s forwarded=no",
        ]
    );
    assert_eq!(swiftiply(EXAMPLE, "s.yml").unwrap().left_out, 0);
}

#[test]
fn every_address_goes_with_every_port() {
    let lines = import(
        "cluster_address: [127.0.0.1, '::1']\ncluster_port:\n  - 80\n  - 8080\nmap:\n  - incoming: a\n    outgoing: :1\n",
    );
    let listens: Vec<&String> = lines.iter().filter(|line| line.starts_with("listen")).collect();
    assert_eq!(
        listens,
        [
            "listen 127.0.0.1:80 clients",
            "listen [::1]:80 clients",
            "listen 127.0.0.1:8080 clients",
            "listen [::1]:8080 clients"
        ]
    );
    assert!(import("cluster_port: 80\nmap: []\n").contains(&"listen *:80 clients".to_owned()));
}

#[test]
fn process_and_global_settings_are_converted() {
    let lines = import(
        "cluster_port: 80\npidfile: /run/s.pid\nuser: www\ngroup: web\ndescriptors: 20000\ntimeout: 0.5\n\
         health_check_uri: /alive\ndaemonize: false\nmap:\n  - {incoming: a, outgoing: '127.0.0.1:1'}\n",
    );
    for line in [
        "pidfile /run/s.pid",
        "user www",
        "group web",
        "descriptors 20000",
        "health-uri /alive",
        "site a swiftiply=127.0.0.1:1 timeout=500ms forwarded=no",
    ] {
        assert!(lines.contains(&line.to_owned()), "{line}: {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.starts_with("daemonize")));
}

/// The original takes backends from anywhere.
#[test]
fn site_without_key_gets_a_comment() {
    let of = |entry: &str| {
        let lines = import(&format!("cluster_port: 80\nmap:\n  - {{incoming: a, {entry}}}\n"));
        let site = lines.iter().position(|line| line.starts_with("site ")).expect("a site");
        lines[..site].iter().any(|line| line.starts_with("# Without a key, backends on other"))
            && lines[site - 1].starts_with("# or set open-bridges yes ")
    };
    for open in [
        "outgoing: ':1'",
        "outgoing: '*:1'",
        "outgoing: 10.0.0.1:1",
        "outgoing: 127.example.com:1",
        "outgoing: {to: '[::]:1', prefix: /x}",
        "outgoing: [127.0.0.1:1, '0.0.0.0:2']",
        "outgoing: ':1', key: ~",
    ] {
        assert!(of(open), "{open}");
    }
    for closed in [
        "outgoing: ':1', key: k",
        "outgoing: 127.0.0.2:1",
        "outgoing: [LocalHost:1, '[::1]:2']",
        "proxy: traditional, servers: '10.0.0.1:1'",
    ] {
        assert!(!of(closed), "{closed}");
    }
}

#[test]
fn every_option_of_a_site() {
    let lines = import(
        "cluster_port: 80\nmap:\n  - incoming: [WWW.a.test, '*.b.test']\n    outgoing: 127.0.0.1:1\n    \
         key: \"a \\\"b\\\" #c\"\n    redeployable: true\n    redeployment_sizelimit: 4096\n    keepalive: false\n    \
         xforwardedfor: true\n    backup: c.test\n    default: yes\n  - {incoming: c.test, outgoing: ':2', key: k}\n",
    );
    let sites: Vec<&String> = lines.iter().filter(|line| line.starts_with("site")).collect();
    assert_eq!(
        sites,
        [
            "site WWW.a.test,*.b.test swiftiply=127.0.0.1:1 key=\"a \\\"b\\\" #c\" default timeout=3s \
             redeploy=4096 keepalive=no forwarded=yes backup=c.test",
            "site c.test swiftiply=:2 key=k timeout=3s forwarded=no"
        ]
    );
}

#[test]
fn requests_are_sent_again_up_to_the_originals_size() {
    assert!(site("incoming: a\noutgoing: :1\nredeployable: true").contains(" redeploy=16384 "));
    assert!(!site("incoming: a\noutgoing: :1\nredeployable: false").contains("redeploy"));
    let ignored = "incoming: a\noutgoing: :1\nredeployment_sizelimit: 5";
    assert!(!site(ignored).contains("redeploy"));
}

#[test]
fn outgoing_addresses_may_say_which_paths() {
    assert_eq!(
        site(
            "incoming: a\noutgoing:\n  - 127.0.0.1:1\n  - match: 'php$| x'\n    to: 127.0.0.1:2\n  \
             - {to: '127.0.0.1:3', prefix: /blah}"
        ),
        "site a swiftiply=127.0.0.1:1 swiftiply=127.0.0.1:2 match=\"php$| x\" \
         swiftiply=127.0.0.1:3 prefix=/blah timeout=3s forwarded=no"
    );
    let one = site("incoming: a\noutgoing:\n  to: 127.0.0.1:1");
    assert_eq!(one, "site a swiftiply=127.0.0.1:1 timeout=3s forwarded=no");
}

#[test]
fn a_traditional_site_names_its_servers() {
    assert_eq!(
        site("incoming: a\nproxy: traditional\nservers:\n - 10.0.0.1:3000\n - http://b.test/x"),
        "site a servers=10.0.0.1:3000,b.test:80 timeout=3s forwarded=no"
    );
    let redis =
        "cluster_port: 80\nmap:\n  - incoming: a\n    proxy: traditional\n    directory: redis\n";
    let imported = swiftiply(redis, "s.yml").unwrap();
    assert_eq!(imported.left_out, 0);
    let line = "site a servers=redis://127.0.0.1:6379/a max=1 timeout=3s forwarded=no";
    assert!(imported.text.lines().any(|own| own == line), "{}", imported.text);
}

#[test]
fn unsupported_setting_becomes_a_comment() {
    let imported = swiftiply(
        "cluster_port: 80\nlogger:\n  type: Analogger\nupdates:\n  updater: soap\nmap:\n  - incoming: a\n    \
         outgoing: :1\n    docroot: var/www\n    staticmask: x\n    caching: true\n    novelty: 1\n",
        "s.yml",
    )
    .unwrap();
    assert_eq!(imported.left_out, 6);
    for comment in [
        "# logger of type Analogger (line 3): the log goes to",
        "# updates (line 5): only updater: rest is known",
        "# docroot (line 9): the original served nothing below a relative path",
        "# staticmask (line 10): it is about the files below docroot",
        "# caching (line 11): responses of backends are not cached",
        "# novelty (line 12): this is not a known setting of Swiftiply",
    ] {
        assert!(imported.text.contains(comment), "{comment}: {}", imported.text);
    }
}

#[test]
fn sticky_sites_stay_sticky() {
    let lines =
        import("cluster_port: 80\nmap:\n  - incoming: a\n    outgoing: :1\n    sticky: true\n");
    assert!(lines.iter().any(|line| line.ends_with(" sticky=id")), "{lines:?}");
}

#[test]
fn an_address_that_had_tls_has_it_here() {
    const START: &str = "cluster_address: 127.0.0.1\ncluster_port: [80, 443]\nmap: []\nssl:\n  - at: 127.0.0.1:443\n";
    let lines = import(&format!("{START}    certfile: /a b\n    keyfile: /k\n"));
    let listens: Vec<&String> = lines.iter().filter(|line| line.starts_with("listen")).collect();
    assert_eq!(
        listens,
        ["listen 127.0.0.1:80 clients", "listen 127.0.0.1:443 clients \"tls=/a b,/k\""]
    );
    // Never in clear.
    wrong(&format!("{START}    certfile: c\n"), &["5: ssl: there is no keyfile"]);
}

#[test]
fn aliases_and_defaults_are_followed() {
    let lines = import(
        "cluster_port: 80\ndefaults:\n  xforwardedfor: true\n  key: k\nmap:\n  - &one\n    incoming: a\n    \
         outgoing: 127.0.0.1:1\n    redeployable: true\n  - <<: *one\n    incoming: b\n    outgoing: 127.0.0.1:2\n    key: other\n",
    );
    let sites: Vec<&String> = lines.iter().filter(|line| line.starts_with("site")).collect();
    assert_eq!(
        sites,
        [
            "site a swiftiply=127.0.0.1:1 key=k timeout=3s redeploy=16384 forwarded=yes",
            "site b swiftiply=127.0.0.1:2 key=other timeout=3s redeploy=16384 forwarded=yes"
        ]
    );
}

#[test]
fn malformed_yaml_is_one_error_with_its_line() {
    let problems =
        swiftiply("cluster_port: 80\nmap:\n  - incoming: [a\n    outgoing: b\n", "s").unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().starts_with("4: this is not YAML: "), "{problems:?}");
    wrong("", &["1: the file is empty"]);
    wrong("- a\n", &["1: there are no settings here: names with values are missing"]);
    wrong("a: 1\nb: 2\na: 3\n", &["3: a is given twice, first on line 1"]);
    wrong("a: &x [*x]\n", &["1: an alias refers to a node that contains it"]);
    wrong("a: b\n", &["1: there is no cluster_port", "1: there is no map, and so no site"]);
}

#[test]
fn alias_expansion_is_bounded() {
    let mut yaml = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let earlier = vec![format!("*a{}", level - 1); 10].join(", ");
        yaml.push_str(&format!("b{level}: &a{level} [{earlier}]\n"));
    }
    let problems = swiftiply(&yaml, "s").unwrap_err();
    assert!(problems[0].what.contains("more than 100000 values"), "{problems:?}");
    let deep = format!("a: {}{}\n", "[".repeat(100), "]".repeat(100));
    assert!(swiftiply(&deep, "s").unwrap_err()[0].what.contains("nested more than 32 deep"));
}

#[test]
fn errors_have_the_line_of_the_yaml() {
    wrong(
        "cluster_port: high\ntimeout: never\nmap:\n  - incoming: a..b\n    outgoing: 127.0.0.1:1\n  - incoming: c\n  \
         - incoming: d\n    outgoing: {to: ':1', match: '(?!x)'}\n    key: hunter2\n",
        &[
            "1: listen: \"high\" is not a port",
            "2: timeout: this is not a number of seconds above 0",
            "4: site: \"a..b\" is not a host name: a label is empty or longer than 63 bytes",
            "6: an entry has no outgoing address",
            "7: site: match: \"(?!x)\" is not a regular expression: look-around, including look-ahead and \
             look-behind, is not supported",
        ],
    );
    wrong(
        "cluster_port: 80\nmap:\n  - incoming: a\n    outgoing: :1\n    key: \"a\\nb\"\n",
        &["5: key: holds a control character"],
    );
}

#[test]
fn quoted_words_parse_to_the_same_value() {
    for value in ["plain", "a b", "a\"b", "#x", "a\\b", "a \\\" b", "", "\\", "a\t#"] {
        let key = if value.is_empty() { "x" } else { value };
        let line = format!("site a.test swiftiply=:1 key={} default\n", word(key));
        let mut settings = config::Settings::default();
        let problems = config::read(config::TABLE, Path::new("f"), line.as_bytes(), &mut settings);
        assert_eq!(problems, [], "{line}");
        let found = settings.site[0].key.as_ref().map(|key| key.bytes().to_vec());
        assert_eq!(found.as_deref(), Some(key.as_bytes()), "{line}");
        assert!(settings.site[0].default);
    }
}
