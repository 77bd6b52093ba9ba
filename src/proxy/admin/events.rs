//! The stream of changes that the live page reads (server-sent events).

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use serde_json::{Map, Value, json};

use super::view::{BackendRow, HostRow, View};

/// What all readers of the stream have been told. A reader that joins is told the same, and not
/// what is newer: a value that changes and changes back between two events would stay wrong for it.
#[derive(Default)]
pub(super) struct Told {
    view: Option<View>,
}

impl Told {
    /// What a reader is told first: everything, as of the last event, or of now if nobody reads.
    pub fn begin(&mut self, take: impl FnOnce() -> View, actions: bool) -> String {
        whole(self.view.get_or_insert_with(take), actions)
    }

    /// Goes on to `view`. Readers who have had all events so far are told the changes.
    pub fn advance(&mut self, view: View) -> News {
        let Some(old) = self.view.replace(view) else { return News::default() };
        let new = self.view.as_ref().expect("it has just been put there");
        let mut change = Map::new();
        let (hosts, gone) = differences(&old.hosts, &new.hosts, |row| row.id, HostRow::to_json);
        change.insert("hosts".to_owned(), hosts);
        change.insert("hosts_gone".to_owned(), gone.into_iter().map(Value::from).collect());
        let id = |row: &BackendRow| row.id.clone();
        let (backends, gone) = differences(&old.backends, &new.backends, id, BackendRow::to_json);
        change.insert("backends".to_owned(), backends);
        change.insert("backends_gone".to_owned(), gone.into_iter().map(Value::from).collect());
        if old.drained != new.drained {
            change.insert("drained".to_owned(), new.drained_json());
        }
        News { change, ..News::default() }
    }

    /// The event for readers of the news, which are of the view that was advanced to.
    pub fn event<'n>(&self, news: &'n mut News, kind: Kind, actions: bool) -> &'n str {
        let at = usize::from(actions);
        let text = match kind {
            Kind::Change => &mut news.changes[at],
            Kind::Whole => &mut news.wholes[at],
        };
        text.get_or_insert_with(|| match (&self.view, kind) {
            (None, _) => String::new(),
            (Some(view), Kind::Whole) => whole(view, actions),
            (Some(view), Kind::Change) => {
                let mut data = news.change.clone();
                data.insert("totals".to_owned(), view.totals.to_json(actions));
                write("change", &Value::Object(data))
            }
        })
    }

    /// Nobody reads any more.
    pub fn forget(&mut self) {
        self.view = None;
    }
}

/// Which event a reader is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What has changed since the last event.
    Change,
    /// Everything.
    Whole,
}

/// What is new. The texts are written once for all readers, without actions and with them.
#[derive(Default)]
pub(super) struct News {
    change: Map<String, Value>,
    changes: [Option<String>; 2],
    wholes: [Option<String>; 2],
}

fn whole(view: &View, actions: bool) -> String {
    write("state", &view.to_json(actions))
}

fn write(kind: &str, data: &Value) -> String {
    format!("event: {kind}\ndata: {data}\n\n")
}

/// What readers of the rows `old` must be told to know the rows `new`: of each row its `id`, and
/// what has changed of it, which is everything if it is new; and the ids of those that are gone.
fn differences<R: PartialEq, I: Eq + Hash>(
    old: &[R],
    new: &[R],
    id: impl Fn(&R) -> I,
    to_json: impl Fn(&R) -> Value,
) -> (Value, Vec<I>) {
    let known: HashMap<I, &R> = old.iter().map(|row| (id(row), row)).collect();
    let mut seen = 0;
    let mut changed = Vec::new();
    for row in new {
        let before = known.get(&id(row));
        seen += usize::from(before.is_some());
        match before {
            Some(before) if *before == row => {}
            Some(before) => changed.push(changes(to_json(before), to_json(row))),
            None => changed.push(to_json(row)),
        }
    }
    let mut gone = Vec::new();
    if seen < old.len() {
        let still: HashSet<I> = new.iter().map(&id).collect();
        gone.extend(old.iter().map(&id).filter(|id| !still.contains(id)));
    }
    (Value::Array(changed), gone)
}

/// The members of `new` that `old` has not, or has otherwise, and `id`.
fn changes(old: Value, new: Value) -> Value {
    let (Value::Object(old), Value::Object(mut new)) = (old, new) else { return json!(null) };
    new.retain(|name, value| name == "id" || old.get(name) != Some(value));
    Value::Object(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (u64, &'static str, u64);

    fn told(old: &[Row], new: &[Row]) -> (Value, Vec<u64>) {
        let to_json = |row: &Row| json!({ "id": row.0, "name": row.1, "busy": row.2 });
        differences(old, new, |row| row.0, to_json)
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let rows = [(1, "a", 7), (2, "b", 0)];
        assert_eq!(told(&[], &rows[..1]), (json!([{ "id": 1, "name": "a", "busy": 7 }]), vec![]));
        assert_eq!(told(&rows, &rows), (json!([]), vec![]));
        assert_eq!(told(&rows, &[(1, "a", 8), rows[1]]), (json!([{ "id": 1, "busy": 8 }]), vec![]));
        let other = [(1, "c", 7), (3, "d", 0)];
        let news = json!([{ "id": 1, "name": "c" }, { "id": 3, "name": "d", "busy": 0 }]);
        assert_eq!(told(&rows, &other), (news, vec![2]));
        assert_eq!(told(&rows, &[]), (json!([]), vec![1, 2]));
    }
}
