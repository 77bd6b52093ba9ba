//! Sites change while the proxy runs: by the operator (`PUT /sites/NAME`), and when Redis names other
//! servers. Nothing is read again but what the change needs; all workers put it in force as after a
//! HUP, or nothing changes.

use std::sync::{Arc, PoisonError};

use crate::config::{Refusal, SiteServer, SiteUpdate, SiteUpdates};

use super::redis::Found;
use super::site_change::{SiteAnswer, SiteChange};
use super::start::Handle;
use super::state::{AdminMail, Config};
use super::updates_file::write;

/// How many servers a line of the log names.
const SHOWN: usize = 8;

impl Handle {
    /// Makes, changes or removes a site, and answers the operator who asked with this number.
    pub fn change_site(&self, key: u64, change: &SiteChange) {
        let answer = self.changed_site(change).unwrap_or_else(|answer| answer);
        if answer.status >= 300 {
            log::info!("{change:?} of a site is refused: {}", answer.text);
        }
        self.shared.admin.send(AdminMail::SiteChanged { key, answer });
    }

    /// The same, refused.
    pub fn refuse_site_change(&self, key: u64, why: &str) {
        let answer = SiteAnswer::new(503, why);
        self.shared.admin.send(AdminMail::SiteChanged { key, answer });
    }

    fn changed_site(&self, change: &SiteChange) -> Result<SiteAnswer, SiteAnswer> {
        let refuse = |status, text: String| SiteAnswer::new(status, text);
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let old = Arc::clone(&in_force.config);
        let name = &change.name;
        let known = old.updates.get(name);
        if known.is_none() && old.sites.named(name).is_some() {
            // Of the settings file, or another name of a site.
            let text = format!("{name} belongs to a site that is not changed under this name");
            return Err(refuse(409, format!("{text}: GET /sites shows where it is from")));
        }
        let tag = known.map(|known| self.shared.tags.of(known.line()));
        if !change.condition.holds(tag.as_deref()) {
            return Err(refuse(412, format!("{name} is not as the request expects it")));
        }
        let mut updates = old.updates.clone();
        match &change.line {
            Some(line) => {
                let update = SiteUpdate::parse(line).map_err(refused)?;
                if update.site().name() != name {
                    return Err(refuse(422, format!("the line is not one of the site {name}")));
                }
                updates.put(update).map_err(refused)?;
            }
            None if known.is_none() => {
                return Err(refuse(404, format!("there is no site {name}")));
            }
            None => updates.remove(name),
        }
        let now = updates.get(name).map(|update| self.shared.tags.of(update.line()));
        if tag == now {
            let text = format!("site {name} is as it was");
            return Ok(SiteAnswer { tag: now, ..refuse(200, text) });
        }
        if !updates.fit() {
            let text = "the sites that were made at run time would not fit into their file";
            return Err(refuse(422, text.to_owned()));
        }
        let wrong = |problems: Vec<String>| refuse(422, problems.join("\n"));
        let mut config = with_updates(&old, name, updates).map_err(wrong)?;
        let prepared =
            self.prepare(&in_force, &mut config).map_err(|problem| refuse(422, problem))?;
        write(&config.settings, &config.updates).map_err(|problem| refuse(500, problem))?;
        let site = config.updates.get(name).map(|update| Arc::clone(update.site()));
        self.put(&mut in_force, config, prepared);
        let (status, done) = match (&tag, &now) {
            (None, _) => (201, "made"),
            (Some(_), Some(_)) => (200, "changed"),
            (Some(_), None) => (200, "removed"),
        };
        let text = format!("site {name} is {done}");
        match site {
            Some(site) => log::info!("{text} by the operator: {site}"),
            None => log::info!("{text} by the operator"),
        }
        Ok(SiteAnswer { tag: now, ..refuse(status, text) })
    }

    /// Redis has named the servers of a list: puts them in force, if they are others.
    pub fn put_servers(&self, found: &Found) {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let old = Arc::clone(&in_force.config);
        let Found { list, servers } = found;
        // It may have been asked before a reload.
        let is_known = old.settings.site.iter().any(|site| site.redis.contains(list));
        let mut named = old.named.clone();
        let before = named.of(list).to_vec();
        if !is_known || !named.put(list, servers) {
            return;
        }
        let mut config = old.with_sites(old.settings.clone());
        config.named = named;
        match self.prepare(&in_force, &mut config) {
            Ok(prepared) => {
                self.put(&mut in_force, config, prepared);
                let news = news(&before, servers);
                log::info!("{list} names {} servers{news}", servers.len());
            }
            Err(problem) => log::error!("{list}: {problem}; its servers stay as they were"),
        }
    }
}

fn refused(refusal: Refusal) -> SiteAnswer {
    let status = if matches!(refusal, Refusal::Forbidden(_)) { 403 } else { 422 };
    SiteAnswer::new(status, refusal.text())
}

/// What is in force with these sites from run time in place of those that were: the one of this name
/// is another, or gone.
fn with_updates(old: &Config, name: &str, updates: SiteUpdates) -> Result<Config, Vec<String>> {
    let mut settings = old.settings.clone();
    // They come behind those of the file.
    settings.site.truncate(settings.site.len() - old.updates.len());
    updates.add_to(&mut settings)?;
    let mut config = old.with_sites(settings);
    config.tls.speak_to(name, &config.settings)?;
    config.updates = updates;
    Ok(config)
}

/// What has changed, in words.
fn news(before: &[SiteServer], now: &[SiteServer]) -> String {
    let mut text = String::new();
    for (what, here, there) in [("new", now, before), ("gone", before, now)] {
        let only_here = here.iter().filter(|server| !there.contains(server));
        let mut shown: Vec<String> = only_here.map(ToString::to_string).collect();
        let more = shown.len().saturating_sub(SHOWN);
        shown.truncate(SHOWN);
        if more > 0 {
            shown.push(format!("{more} more"));
        }
        if !shown.is_empty() {
            text.push_str(&format!("; {what}: {}", shown.join(", ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_has_changed_is_said_in_words() {
        let of = |words: &[&str]| -> Vec<SiteServer> {
            words.iter().map(|word| SiteServer::named_by_redis(word).unwrap()).collect()
        };
        let (one, two) = (of(&["a:1", "b:1"]), of(&["b:1", "c:1"]));
        assert_eq!(news(&one, &two), "; new: c:1; gone: a:1");
        assert_eq!(news(&one, &one), "");
        let many: Vec<String> = (0..10).map(|n| format!("h{n}:1")).collect();
        let many = of(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(news(&[], &many).ends_with("h7:1, 2 more"));
    }
}
