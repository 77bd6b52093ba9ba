//! Settings of Swiftiply become settings of ours, which are good and do what they did.

use crate::common::{Client, Dir, Run, Setup, SwiftclientBackend};
use std::path::Path;

/// The example of the original's description, as the YAML it was.
const EXAMPLE: &str = include_str!("../../../src/import/example.yml");

/// Everything that a file of the original's may say.
const WHOLE: &str = "\
cluster_address: [127.0.0.1, \"::1\"]
cluster_port: [0]
pidfile: {dir}/pid
user: root
group: root
descriptors: 1024
timeout: 5
health_check_uri: /alive
logger: {type: stderror, log_level: 3}
updates: {updater: rest, port: 0}
defaults:
  xforwardedfor: true
map:
  - incoming: [one.test, '*.one.test']
    outgoing:
      - 127.0.0.1:0
      - {match: 'php$', to: '127.0.0.1:0'}
      - {prefix: /admin, to: '127.0.0.1:0'}
    key: \"a key with \\\"marks\\\" and #\"
    redeployable: true
    redeployment_sizelimit: 4096
    keepalive: false
    backup: two.test
    docroot: {dir}
    staticmask: ^{dir}/private
    cache_directory: .
    cache_extensions: [html]
    sendfileroot: {dir}
    enable_sendfile_404: true
    manager: http://127.0.0.1/more
    file_cache: {size: 100}
  - incoming: two.test
    proxy: traditional
    servers: [127.0.0.1:3000, '127.0.0.1:3001']
  - incoming: three.test
    proxy: traditional
    directory: redis
    servers: {host: 127.0.0.1, port: 7000}
";

#[track_caller]
fn import(yaml: &str) -> String {
    let run = Run::new(&["--import-swiftiply", "{dir}/s.yml"], &[("s.yml", yaml)]);
    assert!(run.status.success(), "{run:?}");
    run.out
}

#[test]
fn imported_settings_pass_the_check() {
    let imported = import(EXAMPLE);
    let here = imported.replace("/var/log/cloudbridge.log", "{dir}/log");
    assert_ne!(imported, here);
    let run = Run::new(&["-t", "-c", "{dir}/c"], &[("c", &here)]);
    assert!(run.status.success(), "{run:?}\n{here}");
    let imported = import(WHOLE);
    let run = Run::new(&["-t", "-c", "{dir}/c"], &[("c", &imported)]);
    assert!(run.status.success(), "{run:?}\n{imported}");
}

/// The corpus of `src/import/corpus`: each of its files starts with `-t`.
#[test]
fn every_file_of_the_corpus_passes_the_check() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/import/corpus");
    let dir = Dir::new();
    let own = dir.path().display().to_string();
    for folder in ["files", "pub", "priv", "rails/public", "rails/pages"] {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    dir.write("cert.pem", include_str!("../../certificates/proxy.pem"));
    dir.write("key", include_str!("../../certificates/proxy.key"));
    let mut count = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "conf") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("/DIR/", &format!("{own}/"));
        let text = text.replace("/var/log/cloudbridge.log", "{dir}/log");
        let run = Run::new(&["-t", "-c", "{dir}/c"], &[("c", &text)]);
        assert!(run.status.success(), "{}: {run:?}", path.display());
        count += 1;
    }
    assert!(count >= 15, "{count}");
}

#[test]
fn imported_settings_run() {
    let yaml = EXAMPLE
        .replace("swiftcore.org\ncluster_port: 80", "127.0.0.1\ncluster_port: 0")
        .replace("daemonize: true\n", "")
        .replace(":30000", ":0")
        .replace(":30010", ":0")
        .replace(":30020", ":0")
        .replace(":30030", ":0");
    let proxy = Setup::new().settings(&import(&yaml)).start();
    let mut iowa =
        SwiftclientBackend::park(&proxy, "iowa.swiftcore.org", "swiftclient7f000001123400");
    let mut default =
        SwiftclientBackend::park(&proxy, "swiftcore.org", "swiftclient7f000001123500");
    let mut client = Client::get(&proxy, "iowa.swiftcore.org", "/");
    assert_eq!(iowa.serve_to(&mut client, "from iowa"), "GET / HTTP/1.1");
    let mut client = Client::get(&proxy, "nobody.test", "/x");
    assert_eq!(default.serve_to(&mut client, "from the default"), "GET /x HTTP/1.1");
}

#[test]
fn settings_left_out_are_counted_on_standard_error() {
    let run = Run::new(&["--import-swiftiply", "{dir}/s.yml"], &[("s.yml", WHOLE)]);
    let comments = run.out.lines().filter(|line| line.contains("(line ") && line.contains("): "));
    let count = comments.count();
    assert_eq!(
        run.err,
        format!("cloudbridge: {count} of its settings became comments that say why\n")
    );
    assert!(run.out.contains("# file_cache (line 31): open files and their heads"), "{}", run.out);
}

#[test]
fn bad_yaml_is_one_sentence_with_its_line() {
    let run = Run::new(
        &["--import-swiftiply", "{dir}/s.yml"],
        &[("s.yml", "cluster_port: 80\nmap:\n  - incoming: [a\n    outgoing: b\n")],
    );
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    assert!(run.err.starts_with("cloudbridge: {dir}/s.yml:4: this is not YAML: "), "{run:?}");
    assert_eq!(run.err.lines().count(), 1, "{run:?}");
    assert!(run.out.is_empty(), "{run:?}");
}

#[test]
fn key_is_printed_in_its_line_and_in_no_complaint() {
    let yaml =
        "cluster_port: 0\nmap:\n  - incoming: a\n    outgoing: nowhere at all\n    key: hunter2\n";
    let run = Run::new(&["--import-swiftiply", "{dir}/s.yml"], &[("s.yml", yaml)]);
    assert!(!run.status.success(), "{run:?}");
    assert!(run.err.contains("s.yml:3: ") && !run.err.contains("hunter2"), "{run:?}");
    assert!(import(&yaml.replace("nowhere at all", "127.0.0.1:0")).contains(" key=hunter2 "));
}

#[test]
fn a_file_that_is_not_there_is_one_sentence() {
    let run = Run::new(&["--import-swiftiply", "{dir}/none.yml"], &[]);
    assert!(run.err.contains("cannot read {dir}/none.yml: No such file"), "{run:?}");
    assert_eq!(run.status.code(), Some(1), "{run:?}");
}
