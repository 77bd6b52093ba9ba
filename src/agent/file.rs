//! The agent's file: one service a line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::service::{
    self, DEFAULT_LIMIT, DEFAULT_TUNNELS, Destination, MAX_LIMIT, Service, TlsFiles,
};
use crate::client::Scope;
use crate::config::{self, Directive, Range, SECRETS_MODE, SecretsMode, Takes};
use crate::http::predicates;

/// The default time for requests in flight after a signal to stop: a third of the time that service
/// managers wait before SIGKILL.
pub(super) const DEFAULT_GRACE: &str = "30s";

/// The default time without a request after which the agent leaves: it stays.
pub(super) const DEFAULT_EXIT_IDLE: &str = "0";

/// The default time for requests and tunnels in flight after an upgrade: as the proxy's.
pub(super) const DEFAULT_UPGRADE_TIMEOUT: &str = "1h";

#[derive(Clone, Default)]
pub(super) struct File {
    /// Hosts, keys and proxies are empty if a line has none.
    pub services: Vec<Service>,
    pub grace: Duration,
    pub upgrade_timeout: Duration,
    pub exit_idle: Duration,
    pub secrets_mode: SecretsMode,
    /// For each of the services.
    pub tls: Vec<ServiceTls>,
    /// What is wrong with the permissions of its key files.
    exposed: Vec<String>,
}

/// What a service needs for TLS. The files are read when its proxies are known.
#[derive(Clone, Default)]
pub(super) struct ServiceTls {
    pub files: TlsFiles,
    /// The application is dialled by TLS.
    pub https: bool,
}

type Row = Directive<File>;

/// Every directive of the file.
static TABLE: &[Row] = &[
    Row::new(
        "service",
        "An application to serve, with options as on the command line.",
        Takes::List {
            form: "ADDRESS:PORT, unix:PATH or https://HOST[:443], then any of host=NAME, prefix=PATH, if-method=METHODS, if-path-prefix=PATH, \
                   if-header=NAME[=VALUE], if-cookie=NAME[=VALUE], if-max-body=BYTES, if-client=NETWORKS, instance=NAME, n=COUNT, \
                   tunnels=COUNT, key=KEY, key-file=FILE, bearer-keys=yes, proxy=[tls://]PROXY[:PORT], all-addresses=yes, ca=FILE, server-name=NAME, \
                   client-cert=CERT,KEY, to-ca=FILE, to-server-name=NAME, to-client-cert=CERT,KEY, check=PATH, \
                   check-interval=TIME, check-rise=COUNT, check-fall=COUNT, send-proxy=yes and rewrite-host=NAME; host, key, key-file, \
                   proxy and those that begin with if- may be repeated",
            clear: |file| {
                file.services.clear();
                file.tls.clear();
            },
            add: |file, words| {
                let (service, tls) = service(words, &mut file.exposed)?;
                file.services.push(service);
                file.tls.push(tls);
                Ok(())
            },
            // Only the address, because a service holds keys.
            show: |file| {
                let shown: Vec<String> =
                    file.services.iter().map(|service| service.to.to_string()).collect();
                shown.join(", ")
            },
            check: |_| Vec::new(),
        },
    ),
    Row::new(
        "grace",
        "How long requests in flight may take after a signal to stop.",
        Takes::Time(|file| &mut file.grace, Range::at_least(Duration::ZERO)),
    )
    .default(DEFAULT_GRACE),
    Row::new(
        "upgrade-timeout",
        "How long requests and tunnels in flight may take after an upgrade, until the old program shuts down.",
        Takes::Time(|file| &mut file.upgrade_timeout, Range::at_least(Duration::ZERO)),
    )
    .default(DEFAULT_UPGRADE_TIMEOUT),
    Row::new(
        "exit-idle",
        "After how long without a request the agent leaves and exits; 0 for never.",
        Takes::Time(|file| &mut file.exit_idle, Range::at_least(Duration::ZERO)),
    )
    .default(DEFAULT_EXIT_IDLE),
    Row::new(
        "secrets-mode",
        "Which permissions the key files may have: none for others but that the group reads, or any.",
        Takes::Word {
            form: "private or any",
            read: |file, word| {
                config::choose(word, &SECRETS_MODE).map(|value| file.secrets_mode = value)
            },
            show: |file| config::word_for(file.secrets_mode, &SECRETS_MODE),
        },
    )
    .default("private"),
];

/// Reads the file. `mode` is that of the command line, which wins.
///
/// # Errors
/// Everything that is wrong, one line each.
pub(super) fn read(path: &Path, mode: Option<SecretsMode>) -> Result<File, Vec<String>> {
    let mut file = config::defaults(TABLE, File::default());
    let problems = config::read_file(TABLE, path, &mut file);
    if !problems.is_empty() {
        return Err(problems.iter().map(ToString::to_string).collect());
    }
    if file.services.is_empty() {
        return Err(vec![format!("{}: no service is named", path.display())]);
    }
    if mode.unwrap_or(file.secrets_mode) == SecretsMode::Private && !file.exposed.is_empty() {
        let shown = path.display();
        return Err(file
            .exposed
            .iter()
            .map(|what| format!("{shown}: {what}, or set `secrets-mode any`"))
            .collect());
    }
    Ok(file)
}

/// Reads the words of one line. Everything that is wrong with them is one sentence, in parts.
fn service(words: &[&str], exposed: &mut Vec<String>) -> Result<(Service, ServiceTls), String> {
    let (to, options) = words.split_first().ok_or("has no value")?;
    let mut wrong = Vec::new();
    let to = service::application(to).map_err(|what| wrong.push(what)).ok();
    // In its place there is an error.
    let (to, https) = to.unwrap_or((Destination::Unix(PathBuf::new()), false));
    let mut tls = ServiceTls { files: TlsFiles::default(), https };
    let mut service = Service {
        scope: Scope::default(),
        to,
        limit: DEFAULT_LIMIT,
        tunnels: DEFAULT_TUNNELS,
        proxies: Vec::new(),
        proxy_tls: None,
        to_tls: None,
        all_addresses: false,
        check: None,
        send_proxy: false,
        rewrite_host: None,
    };
    for option in options {
        wrong.extend(set(&mut service, &mut tls, option, exposed).err());
    }
    wrong.extend(service.registration().err());
    if wrong.is_empty() { Ok((service, tls)) } else { Err(wrong.join("; ")) }
}

/// Sets one option of a service.
fn set(
    service: &mut Service,
    tls: &mut ServiceTls,
    option: &str,
    exposed: &mut Vec<String>,
) -> Result<(), String> {
    // The error must not quote a key without its `key=`.
    let (name, value) = option.split_once('=').ok_or("an option is written NAME=VALUE")?;
    match name {
        "host" => service.scope.hosts.push(value.to_owned()),
        "prefix" => service.scope.prefix = value.to_owned(),
        "instance" => service.scope.instance = Some(value.to_owned()),
        name if predicates::OPTIONS.contains(&name) => {
            let field = predicates::field_of(name);
            service.scope.predicates.push((field.to_owned(), value.to_owned()));
        }
        "n" => service.limit = service::limit(value, MAX_LIMIT)?,
        "tunnels" => service.tunnels = service::tunnels(value)?,
        "key" => service.scope.keys.push(value.to_owned()),
        "key-file" => service.scope.keys.extend(keys_of(value, exposed)?),
        "bearer-keys" => service.scope.bearer_keys = Some(config::yes_no(value)?),
        "proxy" => service.proxies.push(service::proxy(value)?),
        "all-addresses" => service.all_addresses = config::yes_no(value)?,
        "rewrite-host" => service.rewrite_host = Some(service::rewrite_host(value)?),
        "send-proxy" => service.send_proxy = config::yes_no(value)?,
        name if config::CHECK_OPTIONS.contains(&name) => {
            config::Check::set(&mut service.check, name, value)
                .map_err(|what| format!("{name}: {what}"))?;
        }
        name if tls.files.set(name, value)? => {}
        _ => {
            return Err(format!(
                "there is no option {name:?}; there are host, prefix, if-method, if-path-prefix, if-header, if-cookie, if-max-body, if-client, instance, n, tunnels, key, \
                 key-file, bearer-keys, proxy, all-addresses, check, check-interval, check-rise, check-fall, \
                 send-proxy, rewrite-host, ca, server-name, client-cert, to-ca, to-server-name \
                 and to-client-cert"
            ));
        }
    }
    Ok(())
}

/// The keys in a file, one a line. If its permissions are too wide, `exposed` gets a sentence about
/// that.
///
/// # Errors
/// One sentence with the file's name.
pub(super) fn keys_of(file: &str, exposed: &mut Vec<String>) -> Result<Vec<String>, String> {
    let read = config::read_secret(Path::new(file), SecretsMode::Private)
        .map_err(|error| format!("{file}: {error}"))?;
    exposed.extend(read.exposed);
    Ok(filled(read.text.lines()))
}

/// The non-blank items, trimmed.
pub(super) fn filled<'a>(items: impl Iterator<Item = &'a str>) -> Vec<String> {
    items.map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<File, Vec<String>> {
        let mut file = config::defaults(TABLE, File::default());
        let problems = config::read(TABLE, Path::new("agent.conf"), text.as_bytes(), &mut file);
        if problems.is_empty() {
            return Ok(file);
        }
        Err(problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_line_is_a_service() {
        let file = read_text(
            "# shop\nservice 127.0.0.1:3000 host=a.test host=*.b.test prefix=/api n=2 \
             tunnels=30 key=::a.test proxy=p.test proxy=127.0.0.1:80 all-addresses=yes \
             send-proxy=yes rewrite-host=localhost:3000\nservice unix:/run/app.sock\ngrace 5s\nupgrade-timeout 2h\n\
             exit-idle 10m\n",
        )
        .ok()
        .unwrap();
        let [first, second] = &file.services[..] else { panic!("two services") };
        assert_eq!(first.scope.hosts, ["a.test", "*.b.test"]);
        assert_eq!((&first.scope.prefix[..], first.limit, first.all_addresses), ("/api", 2, true));
        assert!(first.send_proxy && !second.send_proxy);
        assert_eq!(first.rewrite_host.as_deref(), Some("localhost:3000"));
        assert_eq!((first.tunnels, second.tunnels), (30, 1000));
        assert_eq!(first.scope.keys, ["::a.test"]);
        let proxies: Vec<String> = first.proxies.iter().map(ToString::to_string).collect();
        assert_eq!(proxies, ["p.test:8079", "127.0.0.1:80"]);
        assert_eq!(second.to.to_string(), "unix:/run/app.sock");
        assert_eq!((second.scope.prefix.as_str(), second.limit), ("/", 8));
        assert!(second.scope.hosts.is_empty() && second.proxies.is_empty());
        assert_eq!(file.grace, Duration::from_secs(5));
        assert_eq!(file.upgrade_timeout, Duration::from_secs(7200));
        assert_eq!(file.exit_idle, Duration::from_secs(600));
    }

    #[test]
    fn every_error_is_reported_with_its_line() {
        let problems = read_text(
            "service\nservice 3000 n=0\nservice app\nservice 3000 sesame\nservice 3000 hots=a\n\
             service 3000 host=a..b\nservice 3000 rewrite-host=http://a\nservice 3000 key-file=/no/such\nserivce 3000\n\
             service http://a key-file=/no/such proxy=*:80 host=a..b\n",
        );
        let expected = [
            "agent.conf:1: service has no value",
            "agent.conf:2: service: -n is a number from 1 to 10000, not \"0\"",
            "agent.conf:3: service: \"app\" has no port; write ADDRESS:PORT or unix:PATH",
            "agent.conf:4: service: an option is written NAME=VALUE",
            "agent.conf:5: service: there is no option \"hots\"; there are host, prefix, if-method, if-path-prefix, if-header, if-cookie, if-max-body, if-client, instance, n, tunnels, \
             key, key-file, bearer-keys, proxy, all-addresses, check, check-interval, check-rise, check-fall, \
             send-proxy, rewrite-host, ca, server-name, client-cert, to-ca, to-server-name and \
             to-client-cert",
            "agent.conf:6: service: bad host \"a..b\": a label is empty or longer than 63 bytes",
            "agent.conf:7: service: --rewrite-host is a host name, with or without a port, not \
             \"http://a\"",
            "agent.conf:8: service: /no/such: No such file or directory (os error 2)",
            "agent.conf:9: there is no directive \"serivce\"; did you mean service?",
            "agent.conf:10: service: \"http://a\" is a URL; write only its host and port; /no/such: No such file or \
             directory (os error 2); \"*:80\" cannot be dialled; write PROXY[:8079] or tls://PROXY[:8443]; bad host \"a..b\": a label is \
             empty or longer than 63 bytes",
        ];
        assert_eq!(problems.err().unwrap(), expected);
    }
}
