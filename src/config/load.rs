//! Loads the settings from the file and the command line, and compares them at a reload.

use super::directive::Directive;
use super::kept::KeptFiles;
use super::reader::{Problem, Setter, read, read_bytes};
use super::settings::Settings;
use super::table::TABLE;
use super::updates::SiteUpdates;
use std::path::PathBuf;

/// Where settings come from. Kept while the proxy runs, so that a reload reads the same again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The settings file, if one was named.
    pub file: Option<PathBuf>,
    /// From the command line; they win over the file.
    pub overrides: Overrides,
    /// What the program that this one replaces has read as root.
    pub kept: KeptFiles,
    /// The sites that were made at run time and that no file keeps.
    pub updates: SiteUpdates,
}

/// Directive names and values from the command line, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    values: Vec<(&'static str, String)>,
}

impl Overrides {
    /// Adds a value for a directive. A list's first value replaces the file's whole list.
    pub(crate) fn push(&mut self, name: &'static str, value: impl Into<String>) {
        self.values.push((name, value.into()));
    }

    /// Whether the directive is set on the command line.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(set, _)| *set == name)
    }

    /// Sets all of them and reports every error.
    pub(super) fn apply(&self, settings: &mut Settings) -> Vec<Problem> {
        let mut setter = Setter::new(TABLE, settings);
        let mut problems = Vec::new();
        for (name, value) in &self.values {
            // One value is one word: the shell has split them.
            if let Err(what) = setter.set(name, &[value], 0) {
                problems.push(Problem::Flag { what });
            }
        }
        problems
    }
}

/// The table's defaults, then the file, then the command line.
///
/// # Errors
/// Everything that is wrong, in the order of the file. Addresses are not resolved here.
pub(crate) fn load(source: &Source) -> Result<Settings, Vec<Problem>> {
    let (settings, problems) = load_all(source);
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// The same, and as much of the settings as can be read if something is wrong.
pub(crate) fn load_all(source: &Source) -> (Settings, Vec<Problem>) {
    let mut settings = Settings::default();
    let mut problems = match &source.file {
        Some(file) => {
            let bytes = source.kept.or(file, read_bytes(file), |kept| Ok(kept.to_vec()));
            match bytes {
                Ok(bytes) => read(TABLE, file, &bytes, &mut settings),
                Err(error) => vec![Problem::unreadable(file, &error)],
            }
        }
        None => Vec::new(),
    };
    problems.extend(source.overrides.apply(&mut settings));
    settings.listen_somewhere();
    if problems.is_empty() {
        problems.extend(settings.conflicts().into_iter().map(|what| Problem::Flag { what }));
    }
    (settings, problems)
}

/// Adds to `settings` the sites that were made at run time: those of `updates-file`, or those of
/// `source` if there is no such file yet. Returns them.
///
/// # Errors
/// Everything that is wrong, one sentence each.
pub(crate) fn add_updates(
    settings: &mut Settings,
    source: &Source,
) -> Result<SiteUpdates, Vec<String>> {
    let shown = |problems: Vec<Problem>| -> Vec<String> {
        problems.iter().map(Problem::to_string).collect()
    };
    let file = settings.updates_file.clone();
    let read = file.as_ref().map(|file| {
        SiteUpdates::read(file, |bytes| source.kept.or(file, bytes, |kept| Ok(kept.to_vec())))
    });
    let kept = read.transpose().map_err(shown)?.flatten();
    let origin = match (&file, &kept) {
        (Some(file), Some(_)) => file.display().to_string(),
        _ => "made at run time".to_owned(),
    };
    let updates = kept.unwrap_or_else(|| source.updates.clone());
    let colon = |what: String| format!("{origin}: {what}");
    updates.add_to(settings).map_err(|all| all.into_iter().map(colon).collect::<Vec<_>>())?;
    Ok(updates)
}

/// The names of the directives whose values differ, in the table's order.
pub(crate) fn changed(old: &Settings, new: &Settings) -> Vec<&'static str> {
    // A site with another key is shown as the same line.
    let sites = |name| name == "site" && old.site != new.site;
    let differs = |row: &&Directive<Settings>| row.show(old) != row.show(new) || sites(row.name);
    TABLE.iter().filter(differs).map(|row| row.name).collect()
}

/// Whether a change of this directive takes effect only at the next start.
pub(crate) fn needs_restart(name: &str) -> bool {
    TABLE.iter().any(|row| row.name == name && row.needs_restart)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::address::Address;
    use super::super::settings::{Listen, Serves, UnknownHost};
    use super::*;
    use crate::http::Forwarded;
    use log::LevelFilter;
    use std::path::Path;
    use std::time::Duration;

    /// Reads these lines of a file over the defaults; the problems as they are shown.
    pub fn lines(text: &str) -> Result<Settings, Vec<String>> {
        let mut settings = Settings::default();
        let problems = read(TABLE, Path::new("f"), text.as_bytes(), &mut settings);
        if problems.is_empty() {
            return Ok(settings);
        }
        Err(problems.iter().map(Problem::to_string).collect())
    }

    #[track_caller]
    fn wrong(text: &str, expected: &str) {
        assert_eq!(lines(text), Err(vec![expected.to_owned()]));
    }

    #[test]
    fn without_a_file_everything_has_a_value() {
        let settings = load(&Source::default()).unwrap();
        assert_eq!(
            settings.listen,
            [Listen {
                address: Address::Any { port: 8079 },
                serves: Serves::Both,
                mode: None,
                accept_proxy: None,
                tls: None,
                redirect_https: None,
            }]
        );
        assert_eq!(settings.workers, 0);
        assert!(settings.worker_count() >= 1);
        assert_eq!(settings.wait_timeout, Duration::from_secs(60));
        assert_eq!(settings.bridge_ack_timeout, Duration::from_millis(500));
        assert_eq!(settings.max_head, 16_384);
        assert_eq!(settings.forwarded, Forwarded::Append);
        assert_eq!(settings.log_level, LevelFilter::Info);
        assert!(!settings.open_bridges);
        assert!(settings.legacy_keys);
    }

    #[test]
    fn listen_says_where_and_for_whom() {
        let settings =
            lines("listen 127.0.0.1:8080 clients\nlisten *:8079 bridges\nlisten [::1]:0\n")
                .unwrap();
        let shown: Vec<String> = settings.listen.iter().map(Listen::to_string).collect();
        assert_eq!(shown, ["127.0.0.1:8080 clients", "*:8079 bridges", "[::1]:0"]);
        assert_eq!(settings.listen[2].serves, Serves::Both);
    }

    #[test]
    fn a_wrong_listen_says_what_is_wrong() {
        wrong("listen *:80 both", "f:1: listen: \"both\" is not clients, bridges or admin");
        wrong("listen *:80 clients bridges", "f:1: listen: \"bridges\" is one word too many");
        wrong(
            "listen *:80 clients\nlisten :80 bridges\n",
            "f:2: listen: *:80 is already listened on",
        );
        assert!(lines("listen *:0\nlisten *:0\n").is_ok());
        wrong("listen *:80 mode=0600", "f:1: listen: mode= is for Unix sockets");
        wrong("listen unix: admin", "f:1: listen: unix: is followed by the path of a socket");
        wrong(
            "listen *:80 accept-proxy=10.0.0.1/8",
            "f:1: listen: accept-proxy: \"10.0.0.1/8\" is an address within 10.0.0.0/8; write that",
        );
        wrong(
            "listen *:80 accept-proxy=::1 accept-proxy=::2",
            "f:1: listen: accept-proxy is given twice",
        );
        wrong(
            "listen *:80 admin accept-proxy=::1",
            "f:1: listen: accept-proxy is not for admin listeners",
        );
        wrong(
            "listen *:80 accept-proxy=unix",
            "f:1: listen: accept-proxy: unix is for the peers of Unix sockets",
        );
        wrong(
            "listen unix:/a accept-proxy=::1",
            "f:1: listen: accept-proxy: the peers of a Unix socket have no address; write unix",
        );
        wrong(
            "trusted-proxies ::1 a",
            "f:1: trusted-proxies: \"a\" is no network; write one such as 10.0.0.0/8 or 10.1.2.3",
        );
        wrong("listen unix:/a mode=900", "f:1: listen: \"900\" are no permissions, such as 0660");
    }

    #[test]
    fn admin_listeners_stand_beside_the_others() {
        let settings = lines("listen unix:/run/a.sock admin mode=0660\n").unwrap();
        assert_eq!(settings.listen[0].to_string(), "unix:/run/a.sock admin mode=0660");
        for line in [
            "*:80 clients accept-proxy=127.0.0.0/8,2001:db8::/32",
            "127.0.0.1:80 accept-proxy=::1",
            "unix:/a bridges mode=0600 accept-proxy=unix",
        ] {
            let settings = lines(&format!("listen {line}\n")).unwrap();
            assert_eq!(settings.listen[0].to_string(), line);
        }
        let dir = std::env::temp_dir().join(format!("cloudbridge-listen-{}", std::process::id()));
        std::fs::write(&dir, "listen 127.0.0.1:8404 admin\nlisten 127.0.0.1:80\n").unwrap();
        let mut source = Source { file: Some(dir.clone()), ..Source::default() };
        let shown = |source: &Source| {
            let settings = load(source).unwrap();
            settings.listen.iter().map(Listen::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shown(&source), ["127.0.0.1:8404 admin", "127.0.0.1:80"]);
        source.overrides.push("listen", "127.0.0.1:81");
        assert_eq!(shown(&source), ["127.0.0.1:8404 admin", "127.0.0.1:81"]);
        std::fs::write(&dir, "listen 127.0.0.1:8404 admin\n").unwrap();
        let source = Source { file: Some(dir.clone()), ..Source::default() };
        assert_eq!(shown(&source), ["*:8079", "127.0.0.1:8404 admin"]);
        std::fs::remove_file(dir).unwrap();
    }

    #[test]
    fn words_are_read_into_their_enums() {
        let settings = lines(
            "unknown-host 404\nforwarded replace\nlog-level debug\ninfo-host Info.Example.COM\naccess-log -\nopen-bridges yes\n",
        )
        .unwrap();
        assert_eq!(settings.unknown_host, UnknownHost::NotFound);
        assert_eq!(settings.forwarded, Forwarded::Replace);
        assert_eq!(settings.log_level, LevelFilter::Debug);
        assert_eq!(settings.info_host.as_deref(), Some("info.example.com"));
        assert!(settings.access_log.is_some_and(|log| log.is_stdout()));
        assert!(settings.open_bridges);
        wrong(
            "info-host a:80",
            "f:1: info-host: \"a:80\" is not a host name (it has no port, and no wildcard)",
        );
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let mut overrides = Overrides::default();
        overrides.push("listen", "1.2.3.4:5");
        overrides.push("listen", "[::1]:6");
        overrides.push("workers", "3");
        let mut settings = lines("listen *:80\nlisten *:81\nworkers 9\nmax-fields 50\n").unwrap();
        assert_eq!(overrides.apply(&mut settings), []);
        let shown: Vec<String> = settings.listen.iter().map(Listen::to_string).collect();
        assert_eq!(shown, ["1.2.3.4:5", "[::1]:6"]);
        assert_eq!(settings.workers, 3);
        assert_eq!(settings.max_fields, 50);
    }

    #[test]
    fn a_reload_can_name_what_changed() {
        let old = Settings::default();
        assert_eq!(changed(&old, &old.clone()), Vec::<&str>::new());
        let new =
            lines("log-level warn\nlisten *:8079 clients\nwait-timeout 1m\nsecrets /s\n").unwrap();
        assert_eq!(changed(&old, &new), ["listen", "secrets", "log-level"]);
        assert!(needs_restart("workers"));
        assert!(!needs_restart("listen"));
        assert!(!needs_restart("secrets"));
    }
}
