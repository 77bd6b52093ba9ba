//! Rooms, and the files of a room, depend on each other one way only; and retired words stay away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// Which rooms each room may use. A new entry changes the architecture.
const MAY_USE: &[(&str, &[&str])] = &[
    ("backoff", &[]),
    ("http", &[]),
    ("time", &[]),
    ("bridge", &["http"]),
    ("config", &["bridge", "http"]),
    ("routing", &["http", "time"]),
    ("net", &["time"]),
    ("tls", &["config", "net"]),
    ("exchange", &["bridge", "http", "net", "time"]),
    ("files", &["http", "net", "time"]),
    ("process", &["net"]),
    ("import", &["config"]),
    ("upstream", &["backoff", "config", "net", "time"]),
    (
        "proxy",
        &[
            "config", "exchange", "files", "http", "routing", "process", "bridge", "net", "time",
            "tls", "upstream",
        ],
    ),
    ("ctl", &["config"]),
    ("demo", &["net"]),
    ("client", &["backoff", "bridge", "config", "http", "net", "routing", "time", "tls"]),
    ("keytool", &["config", "bridge"]),
    ("fuzz", &["bridge", "client", "config", "exchange", "http", "import", "net"]),
    (
        "agent",
        &[
            "backoff", "client", "config", "exchange", "http", "bridge", "net", "process",
            "routing", "time", "tls", "upstream",
        ],
    ),
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

fn all_sources() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&root).unwrap();
            let first = inside.components().next().unwrap();
            let room = Path::new(first.as_os_str()).file_stem().unwrap();
            (room.to_str().unwrap().to_owned(), path.clone())
        })
        .collect()
}

/// The rooms that a line of code names by `crate::`.
fn rooms_named(line: &str) -> Vec<String> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect())
        .filter(|name: &String| !name.is_empty())
        .collect()
}

#[test]
fn a_room_uses_only_the_rooms_below_it() {
    let mut wrong = Vec::new();
    for (room, path) in all_sources() {
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else { continue };
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for (number, line) in code.enumerate() {
            for used in rooms_named(line) {
                let known = MAY_USE.iter().any(|(name, _)| *name == used);
                if known && used != room && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{}:{number}: {room} uses {used}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_has_its_row() {
    let outside = ["main", "lib", "bin"];
    for (room, path) in all_sources() {
        let known = MAY_USE.iter().any(|(name, _)| *name == room);
        assert!(known || outside.contains(&room.as_str()), "{} has no row", path.display());
    }
}

#[test]
fn unsafe_code_is_in_one_file() {
    for (_, path) in all_sources() {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let is_unsafe = code.into_iter().any(|line| line.contains("unsafe {"));
        assert_eq!(is_unsafe, path.ends_with("net/sys.rs"), "{}", path.display());
    }
}

/// A file of a room, by its path of modules: `[]` is the room's front.
type Module = Vec<String>;

/// The files of a room and what each imports from the others.
#[derive(Default)]
struct Room {
    /// Code without comments and tests.
    files: BTreeMap<Module, String>,
    /// For each file, the names that its `pub use` lines give to modules below it.
    exports: BTreeMap<Module, Vec<(String, Vec<String>)>>,
}

/// Compiles a pattern of ASCII classes: the proxy's `regex` is built without Unicode tables.
fn regex(pattern: &str) -> Regex {
    let pattern = pattern.replace(r"\w", "[A-Za-z0-9_]").replace(r"\s", r"[ \t\n]");
    Regex::new(&pattern.replace(r"\b", r"(?-u:\b)")).unwrap()
}

/// The paths that a `use` item names, without `as`.
fn expand(tree: &str, before: &[String], into: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let (head, rest) = match tree.find("::") {
        Some(at) if !tree[..at].contains('{') => (&tree[..at], Some(&tree[at + 2..])),
        _ => (tree, None),
    };
    if let Some(rest) = rest {
        let path: Vec<String> = before.iter().cloned().chain([head.trim().to_owned()]).collect();
        return expand(rest, &path, into);
    }
    let Some(list) = tree.strip_prefix('{').and_then(|tree| tree.strip_suffix('}')) else {
        let name = tree.split(" as ").next().unwrap();
        let own = (name != "self").then(|| name.to_owned());
        return into.push(before.iter().cloned().chain(own).collect());
    };
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&list[start..at], before, into);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !list[start..].trim().is_empty() {
        expand(&list[start..], before, into);
    }
}

impl Room {
    fn read(room: &str) -> Room {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let test_module = regex(r"#\[cfg\(test\)\]\s*(?:pub(?:\([^)]*\))?\s+)?mod (\w+)\s*([;{])");
        let (mut files, mut tests) = (BTreeMap::new(), BTreeSet::new());
        for (_, path) in all_sources().into_iter().filter(|(name, _)| name == room) {
            let inside = path.strip_prefix(&root).unwrap().with_extension("");
            let names = inside.iter().skip(1).map(|name| name.to_str().unwrap().to_owned());
            let module: Module = names.filter(|name| name != "mod").collect();
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let mut code = lines.collect::<Vec<_>>().join("\n");
            let mut end = code.len();
            for found in test_module.captures_iter(&code) {
                tests.insert([&module[..], &[found[1].to_owned()]].concat());
                if &found[2] == "{" {
                    end = end.min(found.get(0).unwrap().start());
                }
            }
            code.truncate(end);
            files.insert(module, code);
        }
        files.retain(|module, _| !(1..=module.len()).any(|n| tests.contains(&module[..n])));
        let mut room = Room { files, exports: BTreeMap::new() };
        let modules: Vec<Module> = room.files.keys().cloned().collect();
        for module in modules {
            let exports = room.uses(&module).filter(|(public, _)| *public);
            let exports = exports.filter_map(|(_, path)| Some((path.last()?.clone(), path)));
            let exports = exports.collect();
            room.exports.insert(module, exports);
        }
        room
    }

    /// What the `use` lines of a file name, and whether they are public.
    fn uses(&self, module: &Module) -> impl Iterator<Item = (bool, Vec<String>)> {
        let item = regex(r"(?m)^\s*(pub(?:\([^)]*\))?\s+)?use ([^;]+);");
        let code = &self.files[module];
        let mut found = Vec::new();
        for use_item in item.captures_iter(code) {
            let mut paths = Vec::new();
            expand(&use_item[2].replace('\n', " "), &[], &mut paths);
            let public = use_item.get(1).is_some();
            found.extend(paths.into_iter().map(|path| (public, path)));
        }
        found.into_iter()
    }

    /// The file that a path means, seen from `module` of `room`; `None` if it is in another room.
    fn resolve(&self, room: &str, module: &Module, path: &[String]) -> Option<Module> {
        let (mut at, mut rest) = (module.clone(), path);
        match rest.first()?.as_str() {
            "crate" if rest.get(1).is_some_and(|name| name == room) => {
                (at, rest) = (Module::new(), &rest[2..]);
            }
            "crate" => return None,
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    at.pop()?;
                    rest = &rest[1..];
                }
            }
            name if self.files.contains_key(&[&at[..], &[name.to_owned()]].concat()) => {}
            _ => return None,
        }
        loop {
            let Some(name) = rest.first() else { return Some(at) };
            let below = [&at[..], std::slice::from_ref(name)].concat();
            if self.files.contains_key(&below) {
                (at, rest) = (below, &rest[1..]);
                continue;
            }
            let exports = self.exports.get(&at);
            let export = exports.and_then(|all| all.iter().find(|(public, _)| public == name));
            return match export {
                Some((_, path)) => self.resolve(room, &at, path).or(Some(at)),
                None => Some(at),
            };
        }
    }

    /// The files of the room that `module` needs. A front that only passes a name on does not need
    /// the file that has it.
    fn imports(&self, room: &str, module: &Module) -> BTreeSet<Module> {
        let code = &self.files[module];
        let inline = regex(r"\b[a-z]\w*(?:::\w+)+");
        let bare = regex(r"(?m)^\s*(pub(?:\([^)]*\))?\s+)?use [^;]+;").replace_all(code, "");
        // A function is used where it is called; the same word may also name a field.
        let used = |name: &str| match name.starts_with(char::is_lowercase) {
            true => regex(&format!(r"\b{name}(?:\(|::)")).is_match(&bare),
            false => regex(&format!(r"\b{name}\b")).is_match(&bare),
        };
        let mut paths: Vec<Vec<String>> = self
            .uses(module)
            .filter(|(public, path)| !public || path.last().is_some_and(|name| used(name)))
            .map(|(_, path)| path)
            .collect();
        for path in inline.find_iter(&bare) {
            paths.push(path.as_str().split("::").map(str::to_owned).collect());
        }
        let files = paths.iter().filter_map(|path| self.resolve(room, module, path));
        files.filter(|file| file != module).collect()
    }
}

/// A circle that can be walked from `at` back to a file on `way`, if there is one.
fn circle(
    graph: &BTreeMap<Module, BTreeSet<Module>>,
    way: &mut Vec<Module>,
    done: &mut BTreeSet<Module>,
) -> Option<Vec<Module>> {
    let at = way.last()?.clone();
    for next in &graph[&at] {
        if let Some(start) = way.iter().position(|file| file == next) {
            return Some(way[start..].to_vec());
        }
        if !done.contains(next) {
            way.push(next.clone());
            if let Some(found) = circle(graph, way, done) {
                return Some(found);
            }
            way.pop();
        }
    }
    done.insert(at);
    None
}

#[test]
fn no_room_has_an_import_circle() {
    let mut wrong = Vec::new();
    for (name, _) in MAY_USE {
        let room = Room::read(name);
        let graph: BTreeMap<_, _> =
            room.files.keys().map(|file| (file.clone(), room.imports(name, file))).collect();
        let mut done = BTreeSet::new();
        let found = graph.keys().find_map(|file| {
            (!done.contains(file)).then(|| circle(&graph, &mut vec![file.clone()], &mut done))?
        });
        let shown = found.map(|files| {
            let files = files.iter().map(|file| match file.join("/") {
                front if front.is_empty() => "front".to_owned(),
                file => file,
            });
            files.collect::<Vec<_>>().join(" -> ")
        });
        wrong.extend(shown.map(|circle| format!("{name}: {circle}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Words and phrases that must not come back, each with the words that replace it. Case, line
/// breaks and the parts of an identifier (`see_off`, `SeeOff`) make no difference.
const RETIRED: &[(&[&str], &str)] = &[
    (&["lobby", "lobbies"], "scheduler"),
    (&["inlet", "inlets"], "swiftclient listener"),
    (&["door", "doors", "doorway", "doorways"], "listener, ListenerSet"),
    (&["knock", "knocks", "knocked", "knocking"], "mark_ready"),
    (&["seat", "seats"], "permit"),
    (&["farewell", "farewells", "departure", "departures"], "deregistration"),
    (&["see off", "sees off", "seen off", "saw off"], "linger"),
    (&["passage", "passages", "parcel", "parcels", "landing", "landings"], "transfer"),
    (&["handover", "handovers", "hand over", "hands over", "handed over"], "transfer, take over"),
    (&["adoption", "adoptions"], "route sync"),
    (&["reactor", "reactors"], "event loop, net"),
    (&["settle", "settles", "settled", "settling"], "finish, await a route sync"),
    (&["verdict", "verdicts"], "Action"),
    (&["patience"], "timeout, TimeoutPhase"),
    (&["be patient"], "rearm"),
    (&["dissolve", "dissolves", "dissolved"], "take"),
    (&["let go", "lets go", "letting go"], "close, release, deregister"),
    (&["turn away", "turns away", "turned away"], "reject"),
    (&["stillborn"], "closed on connect"),
    (&["deserted"], "failed over"),
    (&["hungry", "starving"], "unmet demand, at capacity"),
    (&["elder", "elders"], "oldest waiter"),
    (&["horizon", "horizons", "unrest"], "version"),
    (&["seldom"], "rarely; LogLimiter"),
    (&["letter for letter"], "byte for byte"),
    (&["he", "him", "his", "himself", "she", "her", "hers", "herself"], "it, they, the operator"),
    (&["whoever", "whomever", "whosoever"], "the one that, each client that"),
    (&["is no more", "are no more", "was no more"], "is gone, has been removed"),
    (&["come off", "comes off", "came off", "coming off"], "complete, succeed"),
    (&["that stands in", "that stand in", "who stands", "who stand"], "in, that is in"),
    (&["not any more"], "no longer"),
    (&["has to be", "have to be", "had to be"], "must be"),
    (&["of which", "of whom"], "whose, which"),
    (&["whose word"], "whose reports"),
    (&["for ever"], "forever"),
    (&["hitherto", "whence", "thence", "wherein", "therein", "thereof", "hereby"], "plain words"),
];

/// Names of types and constants that must not come back. Their words are in use otherwise.
const RETIRED_NAMES: &[(&[&str], &str)] = &[
    (&["Subject"], "RequestMeta"),
    (&["Rules"], "ExchangeConfig"),
    (&["Fault"], "ExchangeError, InvalidKey"),
    (&["Why"], "Cause"),
    (&["Reached"], "Progress"),
    (&["Flow"], "BodyPump"),
    (&["Believed"], "DeliveryReports"),
    (&["Repeats"], "RetryPolicy"),
    (&["Standing"], "QueuePos, Handshake"),
    (&["Said", "SAY_AGAIN"], "LogLimiter"),
    (&["SETTLE", "SETTLE_LOOK"], "ROUTE_SYNC_TIMEOUT, ROUTE_SYNC_CHECK"),
    (&["LEAN"], "FAIRNESS"),
    (&["Sight", "Stay"], "a bool field"),
];

/// Every text of the project that people read: path and content.
fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = ["README.md", "CHANGELOG.md"].map(|name| root.join(name)).into();
    let mut folders =
        ["src", "tests", "bench", "doc", "conf", "examples"].map(PathBuf::from).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let below = folder.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                // What was measured at a time is not rewritten.
                true if below == Path::new("bench/results") => {}
                true => folders.push(below),
                false => paths.push(root.join(below)),
            }
        }
    }
    let shown = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
    let readable = paths.iter().filter(|path| !path.ends_with("tests/house.rs"));
    readable.filter_map(|path| Some((shown(path), fs::read_to_string(path).ok()?))).collect()
}

/// The words of a text in lower case, each with its line. An identifier has several words.
fn words(text: &str) -> Vec<(String, usize)> {
    let mut words: Vec<(String, usize)> = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let mut last = ' ';
        for c in text.chars() {
            let starts = !last.is_alphanumeric() || (!last.is_uppercase() && c.is_uppercase());
            if c.is_alphanumeric() {
                if starts {
                    words.push((String::new(), line + 1));
                }
                words.last_mut().unwrap().0.extend(c.to_lowercase());
            }
            last = c;
        }
    }
    words
}

#[test]
fn identifiers_and_comments_are_split_into_words() {
    let split = words("fn see_off(SeeOff) {\n    /// A SEE_OFF comes\n    /// off again.");
    let split: Vec<(&str, usize)> = split.iter().map(|(word, line)| (&**word, *line)).collect();
    let (one, two) = ([("fn", 1), ("see", 1), ("off", 1), ("see", 1), ("off", 1)], ("a", 2));
    assert_eq!(split[..5], one);
    assert_eq!(split[5..], [two, ("see", 2), ("off", 2), ("comes", 2), ("off", 3), ("again", 3)]);
}

#[test]
fn retired_words_are_not_used() {
    let phrase = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let retired: Vec<(Vec<String>, &str)> = RETIRED
        .iter()
        .flat_map(|(old, new)| old.iter().map(move |old| (phrase(old), *new)))
        .collect();
    let mut found = Vec::new();
    for (path, text) in texts() {
        // Published sections of the changelog stay as they were.
        let text = match path.as_str() {
            "CHANGELOG.md" => text.splitn(3, "\n## ").take(2).collect::<Vec<_>>().join("\n"),
            _ => text,
        };
        let words = words(&text);
        for at in 0..words.len() {
            let here = |(old, _): &&(Vec<String>, &str)| {
                let next = words[at..].iter().map(|(word, _)| word);
                old.len() <= words.len() - at && old.iter().eq(next.take(old.len()))
            };
            if let Some((old, new)) = retired.iter().find(here) {
                let old = old.join(" ");
                found.push(format!("{path}:{}: \"{old}\" is now: {new}", words[at].1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn retired_names_are_not_used() {
    let mut found = Vec::new();
    for (path, text) in texts().iter().filter(|(path, _)| path.ends_with(".rs")) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            // A name in a string is text.
            let code = code.split('"').step_by(2);
            let names =
                code.flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_'));
            for name in names {
                let retired = RETIRED_NAMES.iter().find(|(old, _)| old.contains(&name));
                if let Some((_, new)) = retired {
                    found.push(format!("{path}:{}: {name} is now: {new}", number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
