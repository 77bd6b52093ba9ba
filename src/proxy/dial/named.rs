//! The servers that Redis names for sites (`servers=redis://...`): those that are in force.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::config::{RedisList, Settings, Site, SiteServer};

/// The servers of each list. One that has not been read yet has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedServers(HashMap<RedisList, Vec<SiteServer>>);

impl NamedServers {
    /// The servers of a list, in its order, perhaps several times each.
    pub(in crate::proxy) fn of(&self, list: &RedisList) -> &[SiteServer] {
        self.0.get(list).map_or(&[], Vec::as_slice)
    }

    /// The servers that Redis names for a site.
    pub(in crate::proxy) fn of_site<'s>(
        &'s self,
        site: &'s Site,
    ) -> impl Iterator<Item = &'s SiteServer> {
        site.redis.iter().flat_map(|list| self.of(list))
    }

    /// Puts these servers in the place of those that the list had. False if they are the same.
    pub(in crate::proxy) fn put(&mut self, list: &RedisList, servers: &[SiteServer]) -> bool {
        let is_new = self.of(list) != servers;
        if is_new {
            self.0.insert(list.clone(), servers.to_vec());
        }
        is_new
    }

    /// Forgets the lists that no site of `settings` has.
    pub(in crate::proxy) fn keep(&mut self, settings: &Settings) {
        let lists: HashSet<&RedisList> =
            settings.site.iter().flat_map(|site| &site.redis).collect();
        self.0.retain(|list, _| lists.contains(list));
    }

    /// For a program that replaces this one; `None` if there are none.
    pub(in crate::proxy) fn note(&self) -> Option<Value> {
        let lists = self.0.iter().map(|(list, servers)| {
            let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
            json!({ "list": list.to_string(), "servers": servers })
        });
        let lists: Vec<Value> = lists.collect();
        (!lists.is_empty()).then(|| lists.into())
    }

    /// Reads such a note. What cannot be read is left out: Redis is asked again.
    pub(in crate::proxy) fn from_note(note: &Value) -> NamedServers {
        let named = note.as_array().into_iter().flatten().filter_map(|entry| {
            let list = RedisList::parse(entry["list"].as_str()?).ok()?;
            let words = entry["servers"].as_array()?.iter().filter_map(Value::as_str);
            Some((list, words.filter_map(|word| SiteServer::named_by_redis(word).ok()).collect()))
        });
        NamedServers(named.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let list = RedisList::parse("redis://u@h:1/a%2Cb?db=2").unwrap();
        let servers = ["10.0.0.5:3000", "app.test:80", "10.0.0.5:3000"];
        let servers = servers.map(|word| SiteServer::named_by_redis(word).unwrap());
        let mut named = NamedServers::default();
        assert_eq!(named.note(), None);
        assert!(named.put(&list, &servers) && !named.put(&list, &servers));
        assert_eq!(NamedServers::from_note(&named.note().unwrap()), named);
        assert_eq!(NamedServers::from_note(&json!([{ "list": "x" }, 7])), NamedServers::default());
        named.keep(&Settings::default());
        assert_eq!(named, NamedServers::default());
    }
}
