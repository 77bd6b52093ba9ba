//! The agent's command line.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use getopts::{Matches, Options as Flags};

use super::file::{
    self, DEFAULT_EXIT_IDLE, DEFAULT_GRACE, DEFAULT_UPGRADE_TIMEOUT, filled, keys_of,
};
use super::service::{
    self, DEFAULT_LIMIT, DEFAULT_TUNNELS, MAX_LIMIT, ProxyAddress, Service, TlsFiles,
};
use crate::bridge::extensions::AGENT_OF_AGENT;
use crate::client::{BridgeListener, Scope};
use crate::config::{self, CHECK_OPTIONS, Check, SECRETS_MODE, SecretsMode};
use crate::http::predicates;
use crate::tls::ClientFiles;

/// Most bridges of an echo. Each has a thread.
const MAX_BRIDGES: usize = 1000;

/// The default number of bridges of an echo, since a browser sends several requests at once.
const BRIDGES: usize = 4;

/// The options about TLS to proxies, which are the first three, and to the application.
const TLS_OPTIONS: [&str; 6] =
    ["ca", "server-name", "client-cert", "to-ca", "to-server-name", "to-client-cert"];
/// The flag that sends keys as they are.
const BEARER_KEYS: &str = "bearer-keys";

/// Its variable.
const BRIDGE_BEARER_KEYS: &str = "BRIDGE_BEARER_KEYS";

/// The beginning of the help.
const BRIEF: &str = "\
Usage: cloudbridge-agent --to APPLICATION [options] PROXY[:8079] ...
       cloudbridge-agent -c FILE [--grace TIME] [--upgrade-timeout TIME]
                         [--exit-idle TIME] [--healthz ADDRESS] [PROXY[:8079] ...]
       cloudbridge-agent --echo [options] PROXY[:8079]

Connects to cloudbridge proxies and passes their requests to the application at
APPLICATION (ADDRESS:PORT, PORT, unix:PATH or https://HOST[:443]), or to those
that FILE names, or answers them itself. tls://PROXY[:8443] is dialled by TLS.
BRIDGE_HOSTS and BRIDGE_KEYS are comma-separated lists, BRIDGE_BEARER_KEYS is yes\nor no.";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Print this text.
    Help(String),
    /// Print the version.
    Version,
    /// Say that nothing is wrong with the command line and the files.
    Check,
    /// Run as an echo.
    Echo(Echo),
    /// Run in front of applications.
    Serve(Serve),
}

/// How to run in front of applications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// The applications; never empty.
    pub services: Vec<Service>,
    /// How long requests in flight may take after a signal to stop.
    pub grace: Duration,
    /// How long requests and tunnels in flight may take after an upgrade.
    pub upgrade_timeout: Duration,
    /// After how long without a request the agent leaves; zero for never.
    pub exit_idle: Duration,
    /// Where to say whether there are bridges.
    pub healthz: Option<config::Address>,
}

/// How to run as an echo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The proxy, as `host:port` or `host`.
    pub proxy: String,
    /// How many requests are served at once.
    pub bridges: usize,
    /// What it serves; names at least one host.
    pub scope: Scope,
    /// How it is dialled, if by TLS.
    tls: ClientFiles,
    /// Which permissions the private key in `tls` may have.
    secrets_mode: SecretsMode,
}

impl Echo {
    /// Where its bridges come from.
    ///
    /// # Errors
    /// `InvalidInput`, with one sentence about a host, prefix or key that a proxy would refuse, or about a file
    /// for TLS.
    pub fn listener(&self) -> io::Result<BridgeListener> {
        let builder = BridgeListener::builder(&self.proxy).agent(AGENT_OF_AGENT);
        builder.scope(self.scope.clone()).tls(self.tls.clone(), self.secrets_mode).build()
    }
}

fn flags() -> Flags {
    let mut flags = Flags::new();
    flags.optopt("", "to", "serve the application at this address", "APPLICATION");
    flags.optopt("c", "config", "serve the applications in this file, one a line", "FILE");
    flags.optflag("", "echo", "answer each request with the request itself");
    let about = "how many requests at once, over all proxies together (default 8; echo: 4)";
    flags.optopt("n", "", about, "COUNT");
    let about =
        "how many tunnels (WebSockets) beside these, over all proxies together (default 1000)";
    flags.optopt("", "tunnels", about, "COUNT");
    let about = "how long requests in flight may take after TERM (default 30s)";
    flags.optopt("", "grace", about, "TIME");
    let about =
        "how long requests and tunnels in flight may take after USR2, an upgrade (default 1h)";
    flags.optopt("", "upgrade-timeout", about, "TIME");
    let about = "leave and exit after so long without a request, for one that is started when it is \
                 needed (default: stay)";
    flags.optopt("", "exit-idle", about, "TIME");
    let about = "treat every address of a PROXY's name as a proxy of its own";
    flags.optflag("", "all-addresses", about);
    let about =
        "check the application's health: a GET of PATH must be answered with a status below 400";
    flags.optopt("", "check", about, "PATH");
    flags.optopt("", "check-interval", "how often (default 2s)", "TIME");
    let about = "how many checks must succeed for an application that is down to be up (default 2)";
    flags.optopt("", "check-rise", about, "COUNT");
    let about = "how many must fail for one that is up to be down (default 3)";
    flags.optopt("", "check-fall", about, "COUNT");
    let about = "begin each connection to the application with a PROXY header (version 2) about the \
                 client";
    flags.optflag("", "send-proxy", about);
    let about = "the Host that the application gets in place of the client's, such as localhost";
    flags.optopt("", "rewrite-host", about, "NAME");
    flags.optmulti("", "host", "serve this host: a name, '*.' and a name, or '*'; may be repeated (default $BRIDGE_HOSTS, or '*')", "NAME");
    flags.optopt("", "prefix", "serve only paths below this one (default /)", "PATH");
    for (option, about, form) in [
        ("if-method", "take only requests with one of these methods, such as GET,HEAD", "METHODS"),
        (
            "if-path-prefix",
            "take only requests below this path; may be repeated, for one of several",
            "PATH",
        ),
        (
            "if-header",
            "take only requests with this header field, or with X-Tenant=red only those with this value; may be \
                       repeated, for all of several",
            "FIELD",
        ),
        ("if-cookie", "the same by a cookie", "COOKIE"),
        ("if-max-body", "take only requests whose body has at most so many bytes", "BYTES"),
        (
            "if-client",
            "take only requests of clients in one of these networks, such as 10.0.0.0/8",
            "NETWORKS",
        ),
    ] {
        flags.optmulti("", option, about, form);
    }
    let about = "the name by which clients of a sticky site come back to this application, the same at all \
                 proxies and after a restart (default: the machine's name and APPLICATION)";
    flags.optopt("", "instance", about, "NAME");
    flags.optmulti("", "key", "a host key; may be repeated (default $BRIDGE_KEYS)", "KEY");
    flags.optmulti(
        "",
        "key-file",
        "read host keys from this file, one a line; others on this machine can see --key",
        "FILE",
    );
    let about = "send host keys as they are, as the original and old versions need them, and do not prove \
                 them (default $BRIDGE_BEARER_KEYS)";
    flags.optflag("", BEARER_KEYS, about);
    let about = "the file of the issuers that a tls:// proxy's certificate may be from (default: those that \
                 this machine trusts)";
    flags.optopt("", "ca", about, "FILE");
    let about = "the name that its certificate must be for (default: the name that is dialled)";
    flags.optopt("", "server-name", about, "NAME");
    let about = "the certificate, and its private key, that is shown to tls:// proxies";
    flags.optopt("", "client-cert", about, "CERT,KEY");
    flags.optopt("", "to-ca", "as --ca, for an https:// application", "FILE");
    flags.optopt("", "to-server-name", "as --server-name, for an https:// application", "NAME");
    flags.optopt("", "to-client-cert", "as --client-cert, for an https:// application", "CERT,KEY");
    let about = "which permissions a key file may have: private (the default), for nobody but its owner and \
         group; or any";
    flags.optopt("", "secrets-mode", about, "MODE");
    let about = "answer GET /healthz at this address and port: 200 while every application has a bridge, otherwise 503";
    flags.optopt("", "healthz", about, "ADDRESS");
    flags.optflag("t", "", "check the command line and the files, print what is wrong and exit");
    flags.optflag("h", "help", "print this help");
    flags.optflag("v", "version", "print the version");
    flags
}

/// Reads the arguments (without the program's name). `variable` looks up an environment variable.
///
/// # Errors
///
/// What is wrong, one sentence each.
pub fn parse(
    arguments: &[String],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Command, Vec<String>> {
    let flags = flags();
    let matches = flags.parse(arguments).map_err(|error| vec![error.to_string()])?;
    if matches.opt_present("help") {
        // A flag that is as wide as its column has a blank behind it.
        let usage = flags.usage(BRIEF);
        let lines: Vec<&str> = usage.lines().map(str::trim_end).collect();
        return Ok(Command::Help(lines.join("\n") + "\n"));
    }
    if matches.opt_present("version") {
        return Ok(Command::Version);
    }
    let modes = ["to", "config", "echo"].map(|mode| matches.opt_present(mode));
    let command = match modes {
        [true, false, false] => one_service(&matches, variable),
        [false, true, false] => services(&matches, variable),
        [false, false, true] => echo(&matches, variable),
        [false, false, false] => {
            Err(vec!["one of --to, -c and --echo is required (-h for help)".to_owned()])
        }
        _ => Err(vec!["--to, -c and --echo exclude each other (-h for help)".to_owned()]),
    }?;
    if !matches.opt_present("t") {
        return Ok(command);
    }
    if let Command::Echo(echo) = &command {
        echo.listener().map_err(|error| vec![error.to_string()])?;
    }
    Ok(Command::Check)
}

fn echo(
    matches: &Matches,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Command, Vec<String>> {
    let mut wrong = Wrong::default();
    let unfit = [
        "grace",
        "upgrade-timeout",
        "exit-idle",
        "all-addresses",
        "tunnels",
        "send-proxy",
        "rewrite-host",
        "healthz",
    ];
    wrong.not_with(matches, "--echo", &unfit);
    wrong.not_with(matches, "--echo", &CHECK_OPTIONS);
    wrong.not_with(matches, "--echo", &TLS_OPTIONS[3..]);
    let proxy = wrong.unless(match matches.free.as_slice() {
        [proxy] => Ok(proxy.clone()),
        [] => Err(NO_PROXY.to_owned()),
        [_, more, ..] => Err(format!("an echo has only one proxy, not {more:?} too")),
    });
    let bridges = wrong.unless(limit(matches, BRIDGES, MAX_BRIDGES));
    let scope = scope(matches, variable, &mut wrong);
    wrong.unless(service::registration(&scope));
    let tls = tls(matches, &mut wrong).proxy;
    // `scope` has said what is wrong with it.
    let secrets_mode = secrets_mode(matches).ok().flatten().unwrap_or_default();
    let (Some(proxy), Some(bridges), true) = (proxy, bridges, wrong.is_nothing()) else {
        return Err(wrong.sentences);
    };
    Ok(Command::Echo(Echo { proxy, bridges, scope, tls, secrets_mode }))
}

/// `--to`.
fn one_service(
    matches: &Matches,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Command, Vec<String>> {
    let mut wrong = Wrong::default();
    let to = wrong.unless(service::application(&matches.opt_str("to").unwrap_or_default()));
    let tls = tls(matches, &mut wrong);
    let mode = wrong.unless(secrets_mode(matches)).flatten().unwrap_or_default();
    let scope = scope(matches, variable, &mut wrong);
    wrong.unless(service::registration(&scope));
    let limit = wrong.unless(limit(matches, DEFAULT_LIMIT, MAX_LIMIT));
    let tunnels = wrong.unless(tunnels(matches));
    let check = wrong.unless(check(matches));
    let rewrite_host = wrong.unless(rewrite_host(matches));
    let grace = wrong.unless(time(matches, "grace", DEFAULT_GRACE));
    let upgrade_timeout = wrong.unless(time(matches, "upgrade-timeout", DEFAULT_UPGRADE_TIMEOUT));
    let exit_idle = wrong.unless(time(matches, "exit-idle", DEFAULT_EXIT_IDLE));
    let healthz = wrong.unless(healthz(matches));
    let proxies = proxies(matches, &mut wrong);
    if matches.free.is_empty() {
        wrong.sentences.push(NO_PROXY.to_owned());
    }
    if let (Some((to, https)), Some(limit), Some(tunnels), Some(check), Some(rewrite_host), true) =
        (to, limit, tunnels, check, rewrite_host, wrong.is_nothing())
        && let (Some(grace), Some(upgrade_timeout), Some(exit_idle), Some(healthz)) =
            (grace, upgrade_timeout, exit_idle, healthz)
    {
        let mut service = Service {
            scope,
            to,
            limit,
            tunnels,
            proxies,
            proxy_tls: None,
            to_tls: None,
            all_addresses: matches.opt_present("all-addresses"),
            check,
            send_proxy: matches.opt_present("send-proxy"),
            rewrite_host,
        };
        service.fill_in_instance();
        tls.load(&mut service, https, mode).map_err(|what| vec![what])?;
        let services = vec![service];
        let serve = Serve { services, grace, upgrade_timeout, exit_idle, healthz };
        return Ok(Command::Serve(serve));
    }
    Err(wrong.sentences)
}

/// `-c`. The environment and the command line are the defaults of each line of the file.
fn services(
    matches: &Matches,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Command, Vec<String>> {
    let mut wrong = Wrong::default();
    let unfit = [
        "n",
        "tunnels",
        "host",
        "prefix",
        "instance",
        "key",
        "key-file",
        BEARER_KEYS,
        "all-addresses",
        "send-proxy",
        "rewrite-host",
    ];
    wrong.not_with(matches, "-c", &unfit);
    wrong.not_with(matches, "-c", &predicates::OPTIONS);
    wrong.not_with(matches, "-c", &CHECK_OPTIONS);
    wrong.not_with(matches, "-c", &TLS_OPTIONS);
    let proxies = proxies(matches, &mut wrong);
    let given = |name: &str, wrong: &mut Wrong| {
        matches.opt_present(name).then(|| wrong.unless(time(matches, name, ""))).flatten()
    };
    let grace = given("grace", &mut wrong);
    let upgrade_timeout = given("upgrade-timeout", &mut wrong);
    let exit_idle = given("exit-idle", &mut wrong);
    let healthz = wrong.unless(healthz(matches));
    let mode = wrong.unless(secrets_mode(matches)).flatten();
    let path = matches.opt_str("config").unwrap_or_default();
    let mut file = match file::read(Path::new(&path), mode) {
        Ok(file) => file,
        Err(more) => {
            wrong.sentences.extend(more);
            return Err(wrong.sentences);
        }
    };
    let bearer_keys = wrong.unless(bearer_keys(&variable)).flatten();
    for (service, tls) in file.services.iter_mut().zip(&file.tls) {
        service.scope.bearer_keys = service.scope.bearer_keys.or(bearer_keys);
        fill_in(&mut service.scope, &variable);
        service.fill_in_instance();
        if service.proxies.is_empty() {
            service.proxies.clone_from(&proxies);
        }
        if service.proxies.is_empty() && matches.free.is_empty() {
            wrong.sentences.push(format!(
                "{path}: {} has no proxy=, and there is none on the command line",
                service.to
            ));
        }
        if let Err(what) = service.registration() {
            wrong.sentences.push(format!("{path}: {}: {what}", service.to));
        }
        if let Err(what) = tls.files.load(service, tls.https, mode.unwrap_or(file.secrets_mode)) {
            wrong.sentences.push(format!("{path}: {}: {what}", service.to));
        }
    }
    let (Some(healthz), true) = (healthz, wrong.is_nothing()) else {
        return Err(wrong.sentences);
    };
    Ok(Command::Serve(Serve {
        services: file.services,
        grace: grace.unwrap_or(file.grace),
        upgrade_timeout: upgrade_timeout.unwrap_or(file.upgrade_timeout),
        exit_idle: exit_idle.unwrap_or(file.exit_idle),
        healthz,
    }))
}

const NO_PROXY: &str = "no PROXY[:8079] given (-h for help)";

/// What is wrong with the command line, one sentence each. All of it is said at once, so that one
/// mistake does not hide the next.
#[derive(Default)]
struct Wrong {
    sentences: Vec<String>,
}

impl Wrong {
    fn is_nothing(&self) -> bool {
        self.sentences.is_empty()
    }

    /// What was read, unless something is wrong with it.
    fn unless<T>(&mut self, read: Result<T, String>) -> Option<T> {
        read.map_err(|what| self.sentences.push(what)).ok()
    }

    /// Refuses flags that have no meaning in this mode.
    fn not_with(&mut self, matches: &Matches, mode: &str, flags: &[&str]) {
        for flag in flags.iter().filter(|flag| matches.opt_present(flag)) {
            let dashes = if flag.len() == 1 { "-" } else { "--" };
            self.sentences.push(format!("{dashes}{flag} cannot be used with {mode}"));
        }
    }
}

/// The files for TLS.
fn tls(matches: &Matches, wrong: &mut Wrong) -> TlsFiles {
    let mut files = TlsFiles::default();
    for name in TLS_OPTIONS {
        if let Some(value) = matches.opt_str(name) {
            wrong.unless(files.set(name, &value));
        }
    }
    files
}

/// Those that can be read.
fn proxies(matches: &Matches, wrong: &mut Wrong) -> Vec<ProxyAddress> {
    matches.free.iter().filter_map(|word| wrong.unless(service::proxy(word))).collect()
}

fn time(matches: &Matches, name: &str, default: &str) -> Result<Duration, String> {
    let word = matches.opt_str(name).unwrap_or_else(|| default.to_owned());
    config::time(&word).map_err(|what| format!("--{name}: {what}"))
}

fn check(matches: &Matches) -> Result<Option<Check>, String> {
    let mut check = None;
    for name in CHECK_OPTIONS {
        if let Some(value) = matches.opt_str(name) {
            Check::set(&mut check, name, &value).map_err(|what| format!("--{name}: {what}"))?;
        }
    }
    Ok(check)
}

fn limit(matches: &Matches, default: usize, most: usize) -> Result<usize, String> {
    matches.opt_str("n").map_or(Ok(default), |word| service::limit(&word, most))
}

fn tunnels(matches: &Matches) -> Result<usize, String> {
    matches.opt_str("tunnels").map_or(Ok(DEFAULT_TUNNELS), |word| service::tunnels(&word))
}

fn rewrite_host(matches: &Matches) -> Result<Option<Arc<str>>, String> {
    matches.opt_str("rewrite-host").map(|word| service::rewrite_host(&word)).transpose()
}

fn healthz(matches: &Matches) -> Result<Option<config::Address>, String> {
    let address = |word: String| match config::Address::parse(&word) {
        Ok(config::Address::Unix(_) | config::Address::Passed(_)) => {
            Err(format!("--healthz: {word:?} is not ADDRESS:PORT"))
        }
        address => address.map_err(|what| format!("--healthz: {what}")),
    };
    matches.opt_str("healthz").map(address).transpose()
}

fn secrets_mode(matches: &Matches) -> Result<Option<SecretsMode>, String> {
    let mode = |word: String| {
        config::choose(&word, &SECRETS_MODE).map_err(|what| format!("--secrets-mode: {what}"))
    };
    matches.opt_str("secrets-mode").map(mode).transpose()
}

/// The keys are those of --key and then those of each --key-file that can be read.
fn scope(matches: &Matches, variable: impl Fn(&str) -> Option<String>, wrong: &mut Wrong) -> Scope {
    let mut scope = Scope {
        hosts: matches.opt_strs("host"),
        prefix: matches.opt_str("prefix").unwrap_or_else(|| "/".to_owned()),
        keys: matches.opt_strs("key"),
        bearer_keys: matches.opt_present(BEARER_KEYS).then_some(true),
        instance: matches.opt_str("instance"),
        predicates: predicates_of(matches),
    };
    let mode = wrong.unless(secrets_mode(matches)).flatten().unwrap_or_default();
    for file in matches.opt_strs("key-file") {
        let mut exposed = Vec::new();
        scope.keys.extend(wrong.unless(keys_of(&file, &mut exposed)).unwrap_or_default());
        if let (SecretsMode::Private, Some(what)) = (mode, exposed.pop()) {
            wrong.sentences.push(format!("{what}, or give --secrets-mode any"));
        }
    }
    let variable_says = wrong.unless(bearer_keys(&variable)).flatten();
    scope.bearer_keys = scope.bearer_keys.or(variable_says);
    fill_in(&mut scope, variable);
    scope
}

/// The predicates, as fields.
fn predicates_of(matches: &Matches) -> Vec<(String, String)> {
    let given = |option: &&'static str| {
        let field = predicates::field_of(option);
        matches.opt_strs(option).into_iter().map(move |value| (field.to_owned(), value))
    };
    predicates::OPTIONS.iter().flat_map(given).collect()
}

/// Whether the environment says that keys are sent as they are.
fn bearer_keys(variable: impl Fn(&str) -> Option<String>) -> Result<Option<bool>, String> {
    match variable(BRIDGE_BEARER_KEYS).unwrap_or_default().as_str() {
        "" => Ok(None),
        word => {
            config::yes_no(word).map(Some).map_err(|what| format!("{BRIDGE_BEARER_KEYS}: {what}"))
        }
    }
}

/// Fills in what is not given: from the environment, or else `*`.
fn fill_in(scope: &mut Scope, variable: impl Fn(&str) -> Option<String>) {
    for (given, name) in [(&mut scope.hosts, "BRIDGE_HOSTS"), (&mut scope.keys, "BRIDGE_KEYS")] {
        if given.is_empty() {
            *given = filled(variable(name).unwrap_or_default().split(','));
        }
    }
    if scope.hosts.is_empty() {
        scope.hosts.push("*".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(line: &str, variables: &[(&str, &str)]) -> Result<Command, Vec<String>> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&arguments, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[track_caller]
    fn echo(line: &str, variables: &[(&str, &str)]) -> Echo {
        match with(line, variables) {
            Ok(Command::Echo(echo)) => echo,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn bad(line: &str, what: &str) {
        assert_eq!(with(line, &[]), Err(vec![what.to_owned()]));
    }

    #[test]
    fn there_are_defaults() {
        let expected = Echo {
            proxy: "proxy".to_owned(),
            bridges: 4,
            scope: Scope { hosts: vec!["*".to_owned()], ..Scope::default() },
            tls: ClientFiles::default(),
            secrets_mode: SecretsMode::Private,
        };
        assert_eq!(echo("--echo proxy", &[]), expected);
    }

    #[test]
    fn flags_are_read() {
        let expected = Echo {
            proxy: "proxy:80".to_owned(),
            bridges: 1000,
            scope: Scope {
                hosts: vec!["a.test".to_owned(), "*.b.test".to_owned()],
                prefix: "/api".to_owned(),
                keys: vec!["::a.test".to_owned()],
                bearer_keys: None,
                instance: None,
                predicates: vec![("If-Method".to_owned(), "GET,HEAD".to_owned())],
            },
            tls: ClientFiles { ca: Some("/ca".into()), ..ClientFiles::default() },
            secrets_mode: SecretsMode::Any,
        };
        let line = "-n 1000 --host a.test --host *.b.test --prefix /api --if-method GET,HEAD --key ::a.test proxy:80 --echo --ca /ca \
                    --secrets-mode any";
        let variables = [("BRIDGE_HOSTS", "c.test"), ("BRIDGE_KEYS", "::c.test")];
        assert_eq!(echo(line, &variables), expected);
    }

    #[test]
    fn environment_variables_are_defaults() {
        let variables = [("BRIDGE_HOSTS", "a.test, b.test,"), ("BRIDGE_KEYS", "::a.test")];
        let echo = echo("--echo proxy", &variables);
        assert_eq!(echo.scope.hosts, ["a.test", "b.test"]);
        assert_eq!(echo.scope.keys, ["::a.test"]);
    }

    #[track_caller]
    fn serve(line: &str, variables: &[(&str, &str)]) -> Serve {
        match with(line, variables) {
            Ok(Command::Serve(serve)) => serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_application_has_defaults_and_may_have_several_proxies() {
        let serve = serve("--to 3000 p q:80 [::1]", &[("BRIDGE_HOSTS", "a.test,b.test")]);
        assert_eq!(serve.grace, Duration::from_secs(30));
        assert_eq!(serve.upgrade_timeout, Duration::from_secs(3600));
        assert_eq!(serve.exit_idle, Duration::ZERO);
        let [service] = &serve.services[..] else { panic!("one service") };
        assert_eq!(service.to.to_string(), "localhost:3000");
        assert_eq!(service.scope.hosts, ["a.test", "b.test"]);
        assert_eq!((service.limit, service.scope.prefix.as_str()), (8, "/"));
        assert_eq!(service.tunnels, 1000);
        let proxies: Vec<String> = service.proxies.iter().map(ToString::to_string).collect();
        assert_eq!(proxies, ["p:8079", "q:80", "[::1]:8079"]);
        assert!(!service.all_addresses);
    }

    #[test]
    fn an_application_is_described_by_flags() {
        let line = "--to unix:/run/a --host a.test --prefix /x -n 3 --tunnels 0 --key ::a.test --grace 5s \
                    --upgrade-timeout 9s --exit-idle 10m --all-addresses --send-proxy p";
        let serve = serve(line, &[("BRIDGE_KEYS", "::b.test")]);
        assert_eq!(serve.grace, Duration::from_secs(5));
        assert_eq!(serve.upgrade_timeout, Duration::from_secs(9));
        assert_eq!(serve.exit_idle, Duration::from_secs(600));
        let [service] = &serve.services[..] else { panic!("one service") };
        assert_eq!(service.to.to_string(), "unix:/run/a");
        assert_eq!(service.scope.keys, ["::a.test"]);
        assert_eq!((service.limit, service.scope.prefix.as_str()), (3, "/x"));
        assert_eq!(service.tunnels, 0);
        assert!(service.all_addresses && service.send_proxy);
        assert_eq!(service.check, None);
        let checked = |line: &str| match with(line, &[]) {
            Ok(Command::Serve(serve)) => serve.services[0].check.clone().unwrap().to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            checked("--to 80 --check-fall 1 --check /up --check-interval 5s p"),
            "check=/up check-interval=5s check-rise=2 check-fall=1"
        );
    }

    #[test]
    fn help_and_version_need_nothing_else() {
        assert_eq!(with("-v", &[]), Ok(Command::Version));
        let Ok(Command::Help(text)) = with("-h --echo", &[]) else {
            panic!("no help");
        };
        assert!(
            text.starts_with("Usage: cloudbridge-agent --to APPLICATION [options] PROXY[:8079]")
        );
        for flag in [
            "--echo",
            "--to APPLICATION",
            "-n COUNT",
            "--tunnels COUNT",
            "--host NAME",
            "--key-file FILE",
            "-v, --version",
        ] {
            assert!(text.contains(flag), "{flag}");
        }
    }

    #[test]
    fn errors_are_one_sentence() {
        bad("proxy", "one of --to, -c and --echo is required (-h for help)");
        bad("--echo --to 80 proxy", "--to, -c and --echo exclude each other (-h for help)");
        bad("--echo --grace 1s a", "--grace cannot be used with --echo");
        bad("--echo --exit-idle 1s a", "--exit-idle cannot be used with --echo");
        bad("--echo --upgrade-timeout 1s a", "--upgrade-timeout cannot be used with --echo");
        bad(
            "--to 80 --upgrade-timeout x p",
            "--upgrade-timeout: \"x\" is not a time; write a whole number and ms, s, m, h or d, such as 500ms or 60s",
        );
        bad("--echo --to-ca /ca a", "--to-ca cannot be used with --echo");
        bad("--echo --check / a", "--check cannot be used with --echo");
        bad("--to 80 --check-rise 2 p", "--check-rise: there is no check before it");
        bad("--to 80 --check x p", "--check: \"x\" is not a path, such as /health");
        bad("-c /no/such a", "cannot read /no/such: No such file or directory (os error 2)");
        bad("--to 80", "no PROXY[:8079] given (-h for help)");
        bad("--to 80 *:80", "\"*:80\" cannot be dialled; write PROXY[:8079] or tls://PROXY[:8443]");
        bad("--to 80 --host a..b p", "bad host \"a..b\": a label is empty or longer than 63 bytes");
        bad("--to 80 -n 0 p", "-n is a number from 1 to 10000, not \"0\"");
        bad("--to 80 --tunnels 10001 p", "--tunnels is a number from 0 to 10000, not \"10001\"");
        bad("--to app p", "\"app\" has no port; write ADDRESS:PORT or unix:PATH");
        bad("--echo", "no PROXY[:8079] given (-h for help)");
        bad("--echo a b", "an echo has only one proxy, not \"b\" too");
        bad("--echo -n 0 a", "-n is a number from 1 to 1000, not \"0\"");
        bad("--echo -n 1001 a", "-n is a number from 1 to 1000, not \"1001\"");
        bad("--echo -n x a", "-n is a number from 1 to 1000, not \"x\"");
        bad("--echo --nonsense a", "Unrecognized option: 'nonsense'");
        bad("--echo --key-file /no/such a", "/no/such: No such file or directory (os error 2)");
    }

    #[track_caller]
    fn all_bad(line: &str, expected: &[&str]) {
        let expected = expected.iter().map(|&what| what.to_owned()).collect();
        assert_eq!(with(line, &[]), Err(expected));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let missing = "/no/such: No such file or directory (os error 2)";
        all_bad(
            "--to http://a:80 --host https://b --key-file /no/such -n 0 --grace x http://p *:80",
            &[
                "\"http://a:80\" is a URL; write only its host and port",
                missing,
                "bad host \"https://b\": this is a URL; only its host is needed",
                "-n is a number from 1 to 10000, not \"0\"",
                "--grace: \"x\" is not a time; write a whole number and ms, s, m, h or d, such as 500ms or 60s",
                "\"http://p\" is a URL; write only its host and port",
                "\"*:80\" cannot be dialled; write PROXY[:8079] or tls://PROXY[:8443]",
            ],
        );
        all_bad(
            "--echo --grace 1s --check / --key-file /no/such -n 0",
            &[
                "--grace cannot be used with --echo",
                "--check cannot be used with --echo",
                NO_PROXY,
                "-n is a number from 1 to 1000, not \"0\"",
                missing,
            ],
        );
        all_bad(
            "-c /no/such -n 1 --key x --healthz unix:/h",
            &[
                "-n cannot be used with -c",
                "--key cannot be used with -c",
                "--healthz: \"/h\" is not a port",
                "cannot read /no/such: No such file or directory (os error 2)",
            ],
        );
    }

    #[test]
    fn a_key_file_that_everybody_can_read_is_refused() {
        use std::fs::{self, Permissions};
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("cloudbridge-key-{}", std::process::id()));
        fs::write(&path, "::a.test\n").unwrap();
        let line = format!("--echo --key-file {} proxy", path.display());
        let chmod = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        chmod(0o640);
        assert_eq!(echo(&line, &[]).scope.keys, ["::a.test"]);
        chmod(0o644);
        let wrong = format!(
            "{} has mode 0644: everybody on this machine can read it; chmod it to 0600 or 0640, or \
             give --secrets-mode any",
            path.display()
        );
        assert_eq!(with(&line, &[]), Err(vec![wrong]));
        assert_eq!(echo(&format!("{line} --secrets-mode any"), &[]).scope.keys, ["::a.test"]);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn keys_are_not_shown() {
        let key = "817d1d4d1f9157057ea40057a7edfa9ac6f2a4eb:1234567890:a.example.com";
        let shown = format!("{:?}", echo(&format!("--echo --key {key} proxy"), &[]));
        assert!(!shown.contains("817d1d4d"));
    }
}
