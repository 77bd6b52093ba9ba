//! Settings: one table drives the flat file, the flags, the defaults and `--help`.
//!
//! The order to read in:
//!
//! 1. `table.rs`: every directive of the proxy, one row each: name, default, bounds with their reasons, help.
//! 2. `settings.rs`: the struct the rows fill, and [`load`], which start-up and every reload go through.
//! 3. `directive.rs`: what a row can be. It and `reader.rs` know no field of the proxy, so that another
//!    program can read its own file with its own table.
//! 4. `reader.rs` and `words.rs`: the syntax of the file, and [`Problem`], one line of what is wrong with it.
//! 5. `values.rs`, `address.rs` and `destination.rs`: times, sizes, words, addresses.
//! 6. `site.rs`: the words of a `site` line; `sites.rs`: all of them together.
//! 7. `options.rs`: the command line.
//!
//! The file, `conf/cloudbridge.conf`, is one directive a line, `name value [option ...]`; `#` at the start of a
//! word begins a comment; a value with white space stands in quotation marks. There is no nesting and no include. Every mistake is fatal and all of
//! them are reported at once: a proxy that starts with half of its settings is worse than one that does not start.

mod address;
mod destination;
mod directive;
mod options;
mod reader;
mod settings;
#[cfg(test)]
mod shipped;
mod site;
mod sites;
mod table;
mod values;
mod words;

pub use address::{Address, DEFAULT_PORT};
pub use destination::Destination;
pub use directive::{Applies, Bound, Directive, Flag, Range, Takes, Zero, defaults};
pub use options::{Command, parse_args};
pub use reader::{MAX_FILE, Problem, Setter, read, read_file};
pub use settings::{
    Forwarded, Listen, Overrides, Serves, Settings, Source, UnknownHost, changed, load,
    needs_restart,
};
pub use site::{Inlet, Keepalive, Key, MAX_KEY, PathPattern, Paths, Site};
pub use table::{MAX_FIELDS, MAX_HEAD, MAX_WORKERS, TABLE};
pub use values::{choose, count, path, size, time, yes_no};
