//! The `site` lines together: what refers to another line or conflicts with it.

use super::address::Address;
use super::settings::Settings;
use super::site::Site;
use std::sync::Arc;

impl Settings {
    pub(super) fn add_site(&mut self, words: &[&str]) -> Result<(), String> {
        self.site.push(Arc::new(Site::parse(words)?));
        Ok(())
    }

    /// The site with exactly this pattern among its names.
    pub(crate) fn site_named(&self, pattern: &str) -> Option<usize> {
        self.site.iter().position(|site| site.names.iter().any(|name| name == pattern))
    }

    /// What is wrong between the `site` lines: which of them, counted from 0, and what.
    pub(super) fn check_sites(&self) -> Vec<(usize, String)> {
        let mut wrong = Vec::new();
        for (at, site) in self.site.iter().enumerate() {
            let before = &self.site[..at];
            wrong.extend(conflicts(site, before).map(|what| (at, what)));
            let Some(backup) = &site.backup else { continue };
            match self.site_named(backup) {
                None => wrong.push((at, format!("backup: no site has the name {backup}"))),
                Some(other) if self.leads_back(at, other) => {
                    wrong.push((at, format!("backup: {backup} leads back to this site")));
                }
                Some(_) => {}
            }
        }
        wrong
    }

    /// Whether the chain of backups from `from` reaches `to`.
    fn leads_back(&self, to: usize, from: usize) -> bool {
        let backup = |at: &usize| self.site_named(self.site[*at].backup.as_ref()?);
        // No more steps than sites: a circle without `to` is reported at its own lines.
        let mut chain = std::iter::successors(Some(from), backup).take(self.site.len());
        chain.any(|at| at == to)
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

/// What a site has in common with an earlier one.
fn conflicts<'s>(site: &'s Site, before: &'s [Arc<Site>]) -> impl Iterator<Item = String> + 's {
    let names = site.names.iter().filter_map(|name| {
        let other = before.iter().find(|other| other.names.contains(name))?;
        Some(format!("{name} is already a name of the site {}", other.name()))
    });
    let listened = addresses(site).enumerate().filter_map(move |(at, address)| {
        if address.is_any_port() {
            return None;
        }
        let here = addresses(site).take(at).any(|other| other == address);
        let there = || before.iter().find(|other| addresses(other).any(|a| a == address));
        let whose = if here { site } else { there()? };
        Some(format!("swiftiply: {address} already belongs to the site {}", whose.name()))
    });
    let default = before.iter().find(|other| other.default && site.default);
    let default = default.map(|other| format!("{} is already the default", other.name()));
    names.chain(listened).chain(default)
}

fn addresses(site: &Site) -> impl Iterator<Item = &Address> {
    site.listeners.iter().flat_map(|listener| &listener.addresses)
}
