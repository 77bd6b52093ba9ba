//! Sites that are made while the proxy runs, and the file that keeps them (`updates-file`,
//! `doc/admin.md`).
//!
//! The file is written by the proxy: `site` lines and nothing else, read by the reader of the
//! settings. What would run a program or read a file is refused, wherever it comes from: the one
//! who may change sites is not thereby one who may read this machine.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::destination::Destination;
use super::directive::{Directive, Takes};
use super::reader::{MAX_FILE, Problem, read, read_bytes};
use super::settings::Settings;
use super::site::{OPTIONS, Site};
use super::tokens::{quote, split};
use super::values::quoted;

/// Most sites that may be made at run time.
const MAX_SITES: usize = 10_000;

/// The options that may be set at run time. Whatever is not here is only for the settings file.
const ALLOWED: &[&str] = &[
    "swiftiply",
    "prefix",
    "match",
    "accept-proxy",
    "key",
    "servers",
    "server-name",
    "max",
    "tunnels",
    "check",
    "check-interval",
    "check-rise",
    "check-fall",
    "default",
    "timeout",
    "redeploy",
    "keepalive",
    "forwarded",
    "backup",
    "sticky",
    "sticky-wait",
];

/// At the beginning of the file.
const HEADER: &str = "\
# The sites that were made while the proxy ran (updates-file). The proxy writes
# this file anew with each change: what is edited here while it runs takes
# effect on HUP, and is lost with the next change before that.
";

/// A site that was made at run time. Its key does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct SiteUpdate {
    site: Arc<Site>,
    /// What is written after `site`, its key included.
    line: Arc<str>,
}

/// All of them, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteUpdates(Vec<SiteUpdate>);

/// Why a site cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is wrong, in one sentence.
    Wrong(String),
    /// It is for the settings file alone.
    Forbidden(String),
}

impl Refusal {
    /// The sentence.
    pub(crate) fn text(&self) -> &str {
        match self {
            Refusal::Wrong(text) | Refusal::Forbidden(text) => text,
        }
    }
}

impl SiteUpdate {
    /// Reads what follows `site` on a line of the settings.
    ///
    /// # Errors
    /// One sentence that repeats no key.
    pub(crate) fn parse(line: &str) -> Result<SiteUpdate, Refusal> {
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Refusal::Wrong(
                "a site is one line, without control characters".to_owned(),
            ));
        }
        let words = split(line).map_err(Refusal::Wrong)?;
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        SiteUpdate::of(&words)
    }

    fn of(words: &[&str]) -> Result<SiteUpdate, Refusal> {
        for option in words.iter().skip(1) {
            let name = option.split('=').next().unwrap_or_default();
            if is_option(name) && !ALLOWED.contains(&name) {
                let text = format!("{name} names what the proxy runs, reads or trusts");
                return Err(Refusal::Forbidden(format!(
                    "{text}: only the settings file may set it"
                )));
            }
        }
        let site = Site::parse(words).map_err(Refusal::Wrong)?;
        if site.servers.iter().any(|server| matches!(server.to, Destination::Unix(_))) {
            let text = "servers: only the settings file may name a Unix socket of this machine";
            return Err(Refusal::Forbidden(text.to_owned()));
        }
        if !site.redis.is_empty() {
            let text = "servers: only the settings file may name a Redis, which gets a password";
            return Err(Refusal::Forbidden(text.to_owned()));
        }
        if words.contains(&"key=...") {
            let text = "key: ... is how a key is shown; write the key itself";
            return Err(Refusal::Wrong(text.to_owned()));
        }
        // The names as they are compared: in lower case.
        let names = site.names.join(",");
        let words = std::iter::once(&*names).chain(words.iter().skip(1).copied());
        let line = words.map(quote).collect::<Vec<_>>().join(" ");
        Ok(SiteUpdate { site: Arc::new(site), line: line.into() })
    }

    /// The site that it makes.
    pub(crate) fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// What is written after `site`, its key included: not to be shown.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }
}

/// Without the key.
impl fmt::Debug for SiteUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "site {}", self.site)
    }
}

/// The file's only directive.
static TABLE: &[Directive<SiteUpdates>] = &[Directive::new(
    "site",
    "A site.",
    Takes::List {
        form: "a site",
        clear: |_| {},
        add: |updates, words| {
            let update = SiteUpdate::of(words).map_err(|refusal| refusal.text().to_owned())?;
            // One that is there twice is found when all sites are compared.
            updates.add(update).map_err(|refusal| refusal.text().to_owned())
        },
        show: |_| String::new(),
        // They are compared with each other and with the settings at once.
        check: |_| Vec::new(),
    },
)];

impl SiteUpdates {
    /// Reads the file that keeps them; `None` if there is none.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn read(
        file: &Path,
        kept: impl FnOnce(std::io::Result<Vec<u8>>) -> std::io::Result<Vec<u8>>,
    ) -> Result<Option<SiteUpdates>, Vec<Problem>> {
        match kept(read_bytes(file)) {
            Ok(bytes) => SiteUpdates::from_bytes(file, &bytes).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(vec![Problem::unreadable(file, &error)]),
        }
    }

    /// Reads what such a file holds.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn from_bytes(file: &Path, bytes: &[u8]) -> Result<SiteUpdates, Vec<Problem>> {
        let mut updates = SiteUpdates::default();
        let problems = read(TABLE, file, bytes, &mut updates);
        if problems.is_empty() { Ok(updates) } else { Err(problems) }
    }

    /// What the file is to hold.
    pub(crate) fn to_text(&self) -> String {
        let lines = self.0.iter().map(|update| format!("site {}\n", update.line));
        std::iter::once(HEADER.to_owned()).chain(lines).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The site of this name, which is its first.
    pub(crate) fn get(&self, name: &str) -> Option<&SiteUpdate> {
        self.0.iter().find(|update| update.site.name() == name)
    }

    /// Puts a site in the place of the one with its name, or adds it.
    ///
    /// # Errors
    /// There would be too many, or too long ones together for a file.
    pub(crate) fn put(&mut self, update: SiteUpdate) -> Result<(), Refusal> {
        match self.0.iter().position(|known| known.site.name() == update.site.name()) {
            Some(at) => self.0[at] = update,
            None => self.add(update)?,
        }
        Ok(())
    }

    fn add(&mut self, update: SiteUpdate) -> Result<(), Refusal> {
        if self.0.len() >= MAX_SITES {
            let text = format!("there are {MAX_SITES} sites from run time already");
            return Err(Refusal::Wrong(text));
        }
        self.0.push(update);
        Ok(())
    }

    /// Removes the site of this name.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|update| update.site.name() != name);
    }

    /// Whether the file can hold them.
    pub(crate) fn fit(&self) -> bool {
        self.0.iter().map(|update| update.line.len() + "site \n".len()).sum::<usize>()
            + HEADER.len()
            <= usize::try_from(MAX_FILE).unwrap_or(usize::MAX)
    }

    /// Adds their sites to those of the settings file.
    ///
    /// # Errors
    /// What they have in common with those, and what is wrong between them: one sentence each.
    pub(crate) fn add_to(&self, settings: &mut Settings) -> Result<(), Vec<String>> {
        let before = settings.site.len();
        settings.site.extend(self.0.iter().map(|update| Arc::clone(&update.site)));
        let mut wrong = Vec::new();
        for (at, what) in settings.check_sites() {
            // The file's own are good by themselves, and none of them names one of these.
            if let Some(update) = at.checked_sub(before).and_then(|at| self.0.get(at)) {
                wrong.push(format!("site {}: {what}", update.site.name()));
            }
        }
        wrong.extend(settings.listened_twice());
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// Whether there is an option of this name.
fn is_option(name: &str) -> bool {
    OPTIONS.split(", ").flat_map(|options| options.split(" and ")).any(|option| option == name)
}

/// The name of a site in a path of the admin listener, where `*` may be escaped.
///
/// # Errors
/// One sentence.
pub(crate) fn site_name(word: &str) -> Result<String, String> {
    let word = word.replace("%2A", "*").replace("%2a", "*");
    let names = Site::parse(&[&word]).map(|site| site.names)?;
    match &names[..] {
        [name] => Ok(name.clone()),
        _ => Err(format!("{} is more than one name", quoted(&word))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::tests::lines;
    use super::*;

    /// The options that only the settings file may set. A new option belongs here or to `ALLOWED`:
    /// here if it names a program or a file, or whom the proxy trusts.
    const REFUSED: &[&str] = &[
        "ca",
        "client-cert",
        "error-page",
        "docroot",
        "hidden",
        "symlinks",
        "cache-control",
        "pages",
        "suffixes",
        "sendfile-root",
        "manager",
        "manager-timeout",
        "waiting-page-after",
        "waiting-page",
    ];

    #[test]
    fn every_option_may_be_set_or_not() {
        let options = OPTIONS.replace(" and ", ", ");
        for option in options.split(", ") {
            assert_ne!(ALLOWED.contains(&option), REFUSED.contains(&option), "{option}");
        }
    }

    #[track_caller]
    fn line(text: &str) -> String {
        SiteUpdate::parse(text).unwrap().line().to_owned()
    }

    #[test]
    fn a_line_is_kept_as_it_can_be_read_again() {
        for (written, kept) in [
            ("A.test", "a.test"),
            (
                "a.test,*.B.test servers=10.0.0.5:3000  max=4 # why",
                "a.test,*.b.test servers=10.0.0.5:3000 max=4",
            ),
            (
                r#"a.test swiftiply=:1 match="x y" key="a \"b\"""#,
                r#"a.test swiftiply=:1 match="x y" key="a \"b\"""#,
            ),
        ] {
            assert_eq!(line(written), kept);
            assert_eq!(line(kept), kept);
        }
        let shown = format!("{:?}", SiteUpdate::parse("a swiftiply=:1 key=sesame").unwrap());
        assert_eq!(shown, "site a swiftiply=*:1 key=...");
    }

    #[test]
    fn what_runs_programs_or_reads_files_is_refused() {
        for options in [
            "error-page=503:/etc/shadow",
            "servers=tls:a:1 ca=/etc/shadow",
            "servers=tls:a:1 client-cert=/a,/b",
            "servers=unix:/run/cloudbridge/admin.sock",
            "servers=redis://evil.test/key",
        ] {
            match SiteUpdate::parse(&format!("a {options}")) {
                Err(Refusal::Forbidden(text)) => assert!(text.contains("only the settings file")),
                other => panic!("{options}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_key() {
        for (text, what) in [
            ("", "has no value"),
            ("a\nsite b", "a site is one line, without control characters"),
            ("a key=\"sesame", "a quotation mark is not closed"),
            ("a swiftiply=:1 key=...", "key: ... is how a key is shown; write the key itself"),
            ("a..b", "\"a..b\" is not a host name: a label is empty or longer than 63 bytes"),
        ] {
            assert_eq!(SiteUpdate::parse(text), Err(Refusal::Wrong(what.to_owned())), "{text}");
        }
    }

    #[test]
    fn sites_are_put_removed_and_written() {
        let mut updates = SiteUpdates::default();
        for text in ["a.test key=x", "b.test", "a.test max=1 servers=h:1"] {
            updates.put(SiteUpdate::parse(text).unwrap()).unwrap();
        }
        let text = updates.to_text();
        assert!(text.starts_with("# The sites that were made"), "{text}");
        assert!(text.ends_with("\nsite a.test max=1 servers=h:1\nsite b.test\n"), "{text}");
        assert_eq!(SiteUpdates::from_bytes(Path::new("f"), text.as_bytes()), Ok(updates.clone()));
        updates.remove("a.test");
        assert!(updates.get("a.test").is_none() && updates.get("b.test").is_some());
    }

    #[test]
    fn the_file_is_read_as_strictly_as_the_settings() {
        let bytes = b"site a\nlisten :1\nsite b error-page=503:/x.html\nsite a..b\n";
        let problems = SiteUpdates::from_bytes(Path::new("u"), bytes).unwrap_err();
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "u:2: there is no directive \"listen\"",
                "u:3: site: error-page names what the proxy runs, reads or trusts: only the \
                 settings file may set it",
                "u:4: site: \"a..b\" is not a host name: a label is empty or longer than 63 bytes",
            ]
        );
    }

    #[test]
    fn they_are_compared_with_the_settings() {
        let mut updates = SiteUpdates::default();
        for text in [
            "b.test,a.test backup=none.test",
            "c.test swiftiply=127.0.0.1:1",
            "d.test backup=a.test",
        ] {
            updates.put(SiteUpdate::parse(text).unwrap()).unwrap();
        }
        let mut settings = lines("listen 127.0.0.1:1\nsite a.test\n").unwrap();
        assert_eq!(
            updates.add_to(&mut settings),
            Err(vec![
                "site b.test: a.test is already a name of the site a.test".to_owned(),
                "site b.test: backup: no site has the name none.test".to_owned(),
                "site c.test: 127.0.0.1:1 is already listened on".to_owned(),
            ])
        );
    }

    #[test]
    fn there_are_bounds() {
        let mut updates = SiteUpdates::default();
        for at in 0..MAX_SITES {
            // The search for a known name is not what this is about.
            updates.0.push(SiteUpdate::parse(&format!("s{at}.test")).unwrap());
        }
        let more = SiteUpdate::parse("one.more.test").unwrap();
        assert!(updates.put(more).is_err() && updates.fit());
        assert_eq!(updates.put(SiteUpdate::parse("s1.test timeout=1s").unwrap()), Ok(()));
        let mut settings = Settings::default();
        assert_eq!(updates.add_to(&mut settings), Ok(()));
        let long = format!("s2.test servers={}h:1", "h:1,".repeat(MAX_FILE as usize / 4));
        updates.put(SiteUpdate::parse(&long).unwrap()).unwrap();
        assert!(!updates.fit());
    }

    #[test]
    fn names_in_paths_are_patterns() {
        assert_eq!(site_name("A.test"), Ok("a.test".to_owned()));
        assert_eq!(site_name("%2a.A.test"), Ok("*.a.test".to_owned()));
        for name in ["", "a,b", "a%20b", "a/b", "..", "a b", "a=b", "*a"] {
            assert!(site_name(name).is_err(), "{name}");
        }
    }
}
