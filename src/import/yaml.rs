//! A YAML file as a tree with line numbers.
//!
//! Scalars remain text: YAML 1.1, which the original reads, and 1.2 disagree about `yes` and `080`.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use std::collections::HashMap;

use super::Problem;

/// Most nodes of a tree with its aliases expanded. A real file has some hundreds.
const MAX_NODES: usize = 100_000;

/// Deepest nesting, because the tree is walked recursively. A real file has five levels.
const MAX_DEPTH: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Counted from 1.
    pub line: usize,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    Scalar(String),
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<Entry>),
}

/// One pair of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: String,
    /// Of the name.
    pub line: usize,
    pub node: Node,
}

impl Node {
    /// As in Ruby with YAML 1.1: everything is true but null and the words for no.
    pub fn is_true(&self) -> bool {
        match &self.value {
            Value::Null => false,
            Value::Scalar(text) => {
                !["false", "no", "off"].contains(&text.to_ascii_lowercase().as_str())
            }
            Value::List(_) | Value::Map(_) => true,
        }
    }

    /// The text of a scalar.
    ///
    /// # Errors
    /// It is not a scalar.
    pub fn text(&self, name: &str) -> Result<&str, Problem> {
        match &self.value {
            Value::Scalar(text) => Ok(text),
            Value::Null => Err(Problem::new(self.line, format!("{name} has no value"))),
            Value::List(_) | Value::Map(_) => {
                Err(Problem::new(self.line, format!("{name} takes one value")))
            }
        }
    }

    /// The value of `name` in a mapping.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => find(entries, name),
            _ => None,
        }
    }

    /// The items of a list, or the value itself if it is not a list.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::Null => &[],
            Value::List(items) => items,
            Value::Scalar(_) | Value::Map(_) => std::slice::from_ref(self),
        }
    }
}

/// The value of `name`, if there is one.
pub(super) fn find<'n>(entries: &'n [Entry], name: &str) -> Option<&'n Node> {
    let entry = entries.iter().find(|entry| entry.name == name)?;
    (entry.node.value != Value::Null).then_some(&entry.node)
}

/// The texts of a list, or a single text.
pub(super) fn texts(entries: &[Entry], name: &str) -> Result<Vec<String>, Problem> {
    let items = find(entries, name).map_or(&[][..], Node::items);
    items.iter().map(|item| item.text(name).map(str::to_owned)).collect()
}

/// A text that fits on a line of the flat file.
pub(super) fn one_line<'n>(node: &'n Node, name: &str) -> Result<&'n str, Problem> {
    let text = node.text(name)?;
    match text.chars().any(|c| c.is_control() && c != '\t') {
        true => Err(Problem::new(node.line, format!("{name}: holds a control character"))),
        false => Ok(text),
    }
}

/// Reads the first document of a file.
///
/// # Errors
/// It is not YAML, has a name twice in one mapping, or exceeds [`MAX_NODES`] or [`MAX_DEPTH`].
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    let mut reader =
        Reader { events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            Event::StreamEnd => return Err(Problem::new(1, "the file is empty")),
            event => return reader.node(event, span, 0),
        }
    }
}

struct Reader<'t> {
    events: Parser<'t, StrInput<'t>>,
    /// Nodes with an anchor, by its number.
    anchors: HashMap<usize, Node>,
    /// Nodes so far, expanded aliases included.
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Problem> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Problem::new(
                error.marker().line(),
                format!("this is not YAML: {}", error.info()),
            )),
            None => Err(Problem::new(1, "this is not YAML: it ends too early")),
        }
    }

    /// The node that begins with `event`.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Problem> {
        let line = span.start.line();
        if depth > MAX_DEPTH {
            return Err(Problem::new(line, format!("is nested more than {MAX_DEPTH} deep")));
        }
        self.count(1, line)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    text => Value::Scalar(text.to_owned()),
                };
                (value, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(Problem::new(line, "an alias refers to a node that contains it"));
                };
                self.count(size(&node), line)?;
                return Ok(node);
            }
            _ => return Err(Problem::new(line, "a value is missing")),
        };
        let node = Node { line, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), Problem> {
        self.nodes += nodes;
        match self.nodes {
            0..=MAX_NODES => Ok(()),
            _ => Err(Problem::new(line, format!("there are more than {MAX_NODES} values"))),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, span, depth + 1)?;
            let Value::Scalar(name) = key.value else {
                return Err(Problem::new(key.line, "a name is a plain word"));
            };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            if name == "<<" {
                merged.push(node);
                continue;
            }
            if let Some(first) = entries.iter().find(|entry| entry.name == name) {
                let what = format!("{name} is given twice, first on line {}", first.line);
                return Err(Problem::new(key.line, what));
            }
            entries.push(Entry { name, line: key.line, node });
        }
        for node in merged {
            merge(&mut entries, node)?;
        }
        Ok(Value::Map(entries))
    }
}

/// Adds the mapping that `<<` refers to; names already there take precedence.
fn merge(entries: &mut Vec<Entry>, node: Node) -> Result<(), Problem> {
    match node.value {
        Value::Map(others) => {
            for other in others {
                if !entries.iter().any(|entry| entry.name == other.name) {
                    entries.push(other);
                }
            }
            Ok(())
        }
        Value::List(nodes) => nodes.into_iter().try_for_each(|node| merge(entries, node)),
        Value::Null | Value::Scalar(_) => {
            Err(Problem::new(node.line, "<< is followed by an alias of a mapping"))
        }
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Scalar(_) => 1,
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| size(&entry.node)).sum::<usize>(),
    }
}
