//! `/sites`: shows the sites, and has the main thread make, change and remove those that are not of
//! the settings file.

use serde_json::{Value, json};

use crate::config::Site;

use super::super::site_change::SiteChange;
use super::super::state::{Config, Shared};
use super::wanted::AskedSite;

/// With every answer that is true only now.
pub(super) const FRESH: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";

impl AskedSite {
    /// The change, once its body has come: what follows the name on a line of the settings.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn change(&self, body: &[u8]) -> Result<SiteChange, &'static str> {
        let line = match self.length {
            None => None,
            Some(_) => {
                let body = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8")?;
                let body = body.trim_end_matches(['\r', '\n']);
                // Further names come behind the first one, without white space.
                let gap = if body.starts_with(',') { "" } else { " " };
                Some(format!("{}{gap}{body}", self.name))
            }
        };
        Ok(SiteChange { name: self.name.clone(), line, condition: self.condition.clone() })
    }
}

/// All sites, in the order of the settings.
pub(super) fn list(config: &Config) -> Value {
    let sites: Vec<Value> = config.sites.all().iter().map(|site| shown(site, config)).collect();
    json!({ "sites": sites })
}

/// One site, without its key.
fn shown(site: &Site, config: &Config) -> Value {
    let from = match config.updates.get(site.name()) {
        Some(_) => "run-time",
        None => "settings",
    };
    json!({ "name": site.name(), "names": site.names, "line": site.to_string(), "from": from })
}

/// The site with this name among its names, and its tag if it can be changed.
pub(super) fn one(name: &str, config: &Config, shared: &Shared) -> Option<(Value, Option<String>)> {
    let site = config.sites.named(name)?;
    let tag = config.updates.get(site.name()).map(|update| shared.tags.of(update.line()));
    Some((shown(site, config), tag))
}

/// The fields of an answer about a site with this tag.
pub(super) fn tagged(tag: Option<&str>) -> String {
    match tag {
        Some(tag) => format!("{FRESH}ETag: {tag}\r\n"),
        None => FRESH.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::site_change::Condition;
    use super::*;

    #[test]
    fn a_body_is_the_rest_of_a_line() {
        let line = |body: &str| {
            let asked = AskedSite {
                name: "a.test".to_owned(),
                length: Some(body.len()),
                condition: Condition::default(),
            };
            asked.change(body.as_bytes()).unwrap().line.unwrap()
        };
        assert_eq!(line("servers=h:1 max=1\r\n"), "a.test servers=h:1 max=1");
        assert_eq!(line(",b.test timeout=1s"), "a.test,b.test timeout=1s");
        assert_eq!(line(""), "a.test ");
        assert_eq!(line("\nsite x"), "a.test \nsite x", "which is no line");
    }
}
