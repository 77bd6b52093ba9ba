//! The stream of changes that the live page reads (server-sent events).

use std::collections::HashMap;
use std::hash::Hash;

use serde_json::{Value, json};

use super::view::{BackendRow, HostRow, View};

/// What the readers of the stream know.
#[derive(Default)]
pub(super) struct Known {
    hosts: HashMap<u64, HostRow>,
    backends: HashMap<String, BackendRow>,
}

impl Known {
    /// What has changed since the last call.
    pub fn changes(&mut self, view: &View) -> Changes {
        let hosts = view.hosts.iter().map(|row| (row.id, row));
        let (hosts, hosts_gone) = differences(&mut self.hosts, hosts);
        let backends = view.backends.iter().map(|row| (row.id.clone(), row));
        let (backends, backends_gone) = differences(&mut self.backends, backends);
        Changes {
            hosts: hosts.into_iter().map(HostRow::to_json).collect(),
            hosts_gone,
            backends: backends.into_iter().map(BackendRow::to_json).collect(),
            backends_gone,
        }
    }
}

/// What has changed between two events.
pub(super) struct Changes {
    hosts: Vec<Value>,
    hosts_gone: Vec<u64>,
    backends: Vec<Value>,
    backends_gone: Vec<String>,
}

impl Changes {
    /// The event that tells it to a reader that may act, or may not.
    pub fn event(&self, view: &View, actions: bool) -> String {
        let data = json!({
            "totals": view.totals.to_json(actions),
            "hosts": self.hosts,
            "hosts_gone": self.hosts_gone,
            "backends": self.backends,
            "backends_gone": self.backends_gone,
        });
        event("change", &data)
    }
}

/// The first event of a reader: everything.
pub(super) fn whole(view: &View, actions: bool) -> String {
    event("state", &view.to_json(actions))
}

fn event(kind: &str, data: &Value) -> String {
    format!("event: {kind}\ndata: {data}\n\n")
}

/// Brings `known` up to date. Returns the rows that are new or have changed, and the names of those
/// that are gone.
fn differences<'v, K: Eq + Hash + Clone, R: PartialEq + Clone>(
    known: &mut HashMap<K, R>,
    rows: impl Iterator<Item = (K, &'v R)> + Clone,
) -> (Vec<&'v R>, Vec<K>) {
    let changed = rows.clone().filter(|(name, row)| known.get(name) != Some(row));
    let changed: Vec<(K, &R)> = changed.collect();
    let now: std::collections::HashSet<K> = rows.map(|(name, _)| name).collect();
    let gone: Vec<K> = known.keys().filter(|name| !now.contains(name)).cloned().collect();
    gone.iter().for_each(|name| _ = known.remove(name));
    let mut list = Vec::with_capacity(changed.len());
    for (name, row) in changed {
        known.insert(name, row.clone());
        list.push(row);
    }
    (list, gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_changed_is_told() {
        let mut known = HashMap::new();
        let (one, two, other) = ("a".to_owned(), "b".to_owned(), "c".to_owned());
        let mut tell = |rows: &[(u8, &String)]| {
            let (changed, gone) = differences(&mut known, rows.iter().copied());
            (changed.into_iter().cloned().collect::<Vec<String>>(), gone)
        };
        assert_eq!(tell(&[(1, &one), (2, &two)]), (vec!["a".to_owned(), "b".to_owned()], vec![]));
        assert_eq!(tell(&[(1, &one), (2, &two)]), (vec![], vec![]));
        assert_eq!(tell(&[(1, &other)]), (vec!["c".to_owned()], vec![2]));
        assert_eq!(tell(&[]), (vec![], vec![1]));
    }
}
