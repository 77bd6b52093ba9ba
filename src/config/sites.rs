//! The `site` lines together: what refers to another line or conflicts with it.

use super::address::Address;
use super::settings::Settings;
use super::site::Site;
use std::collections::HashMap;
use std::sync::Arc;

impl Settings {
    pub(super) fn add_site(&mut self, words: &[&str]) -> Result<(), String> {
        self.site.push(Arc::new(Site::parse(words)?));
        Ok(())
    }

    /// What is wrong between the `site` lines: which of them, counted from 0, and what.
    pub(super) fn check_sites(&self) -> Vec<(usize, String)> {
        let mut known = Known::default();
        let mut wrong = Vec::new();
        for (at, site) in self.site.iter().enumerate() {
            wrong.extend(known.conflicts(site).into_iter().map(|what| (at, what)));
            known.add(site, at);
        }
        let backup = |site: &Arc<Site>| known.named(site.backup.as_ref()?);
        let backups: Vec<Option<usize>> = self.site.iter().map(backup).collect();
        let in_circles = in_circles(&backups);
        for (at, site) in self.site.iter().enumerate() {
            let Some(backup) = &site.backup else { continue };
            if backups[at].is_none() {
                wrong.push((at, format!("backup: no site has the name {backup}")));
            } else if in_circles[at] {
                wrong.push((at, format!("backup: {backup} leads back to this site")));
            }
        }
        wrong.sort_by_key(|(at, _)| *at);
        wrong
    }

    /// Addresses of more than one of `listen`, `agent-check` and the sites, over which the kernel
    /// would spread connections. One sentence each.
    pub(super) fn listened_twice(&self) -> Vec<String> {
        let mut twice = Vec::new();
        for address in self.agent_check.iter().filter(|address| !address.is_any_port()) {
            let mut sites = self.site.iter().flat_map(|site| addresses(site));
            let listened = self.listen.iter().any(|l| l.address == *address);
            if listened || sites.any(|other| other == address) {
                twice.push(format!("agent-check: {address} is already listened on"));
            }
        }
        for site in &self.site {
            for address in addresses(site) {
                if !address.is_any_port() && self.listen.iter().any(|l| l.address == *address) {
                    let name = site.name();
                    twice.push(format!("site {name}: {address} is already listened on"));
                }
            }
        }
        twice
    }
}

/// Which sites are the backup of themselves, by way of others or not. `backups` has each one's.
fn in_circles(backups: &[Option<usize>]) -> Vec<bool> {
    let mut found = vec![false; backups.len()];
    // In which walk a site was met first: each is walked over once.
    let mut met = vec![usize::MAX; backups.len()];
    for start in 0..backups.len() {
        let mut next = Some(start);
        while let Some(at) = next.filter(|at| met[*at] == usize::MAX) {
            met[at] = start;
            next = backups[at];
        }
        // A circle is new if this walk has come back to a site of its own.
        while let Some(at) = next.filter(|at| met[*at] == start && !found[*at]) {
            found[at] = true;
            next = backups[at];
        }
    }
    found
}

/// What the sites so far have, so that thousands of them are compared in no time.
#[derive(Default)]
struct Known<'s> {
    /// Each name with its site, and with the place of that.
    names: HashMap<&'s str, (&'s Site, usize)>,
    addresses: HashMap<&'s Address, &'s Site>,
    default: Option<&'s Site>,
}

impl<'s> Known<'s> {
    fn named(&self, name: &str) -> Option<usize> {
        self.names.get(name).map(|(_, at)| *at)
    }

    /// The first that has a name or address keeps it.
    fn add(&mut self, site: &'s Site, at: usize) {
        for name in &site.names {
            self.names.entry(name).or_insert((site, at));
        }
        for address in addresses(site) {
            self.addresses.entry(address).or_insert(site);
        }
        self.default = self.default.or(site.default.then_some(site));
    }

    /// What a site has in common with an earlier one.
    fn conflicts(&self, site: &'s Site) -> Vec<String> {
        let names = site.names.iter().filter_map(|name| {
            let (other, _) = self.names.get(name.as_str())?;
            Some(format!("{name} is already a name of the site {}", other.name()))
        });
        let listened = addresses(site).enumerate().filter_map(|(at, address)| {
            if address.is_any_port() {
                return None;
            }
            let here = addresses(site).take(at).any(|other| other == address);
            let whose = if here { site } else { self.addresses.get(address).copied()? };
            Some(format!("swiftiply: {address} already belongs to the site {}", whose.name()))
        });
        let default = self.default.filter(|_| site.default);
        let default = default.map(|other| format!("{} is already the default", other.name()));
        names.chain(listened).chain(default).collect()
    }
}

fn addresses(site: &Site) -> impl Iterator<Item = &Address> {
    site.listeners.iter().flat_map(|listener| &listener.addresses)
}
