//! Settings: one table drives the flat file, the flags, the defaults and `--help`.
//!
//! Read in this order:
//!
//! 1. `table.rs`: every directive of the proxy, one row each: name, help, bounds, default.
//! 2. `settings.rs`: the struct that the rows fill. `load.rs`: `load`, which start-up and every
//!    reload use.
//! 3. `directive.rs` and `range.rs`: what a row can be. They and `reader.rs` know no field of the
//!    proxy, so that the agent can read its own file with its own table.
//! 4. `reader.rs` and `tokens.rs`: the syntax of the file, and `Problem`, one line of what is
//!    wrong with it.
//! 5. `values.rs`, `address.rs`, `network.rs`, `destination.rs`, `endpoint.rs`, `check.rs`,
//!    `key_limits.rs` and `access_log.rs`: times, sizes, words, addresses, networks, programs that
//!    are asked, health checks, limits of keys, formats of log lines.
//! 6. `site.rs` and `sticky.rs`: the words of a `site` line. `error_page.rs`: pages, of sites and of all.
//!    `site_files.rs`: the files that a site serves. `on_demand.rs`: how its backends are started
//!    when they are needed. `sites.rs`: checks between the `site` lines. `redis.rs`: lists of
//!    servers in Redis. `updates.rs`: sites that are made while the proxy runs.
//! 7. `options.rs`: the command line. `kept.rs`: files of the program that this one replaces.
//!
//! The file has one directive a line, `name value [option ...]`, and no nesting and no include; see
//! `conf/cloudbridge.conf`. Every error is fatal, and all of them are reported at once: a proxy
//! that starts with half of its settings is worse than one that does not start.

mod access_log;
mod address;
mod check;
mod destination;
mod directive;
mod endpoint;
mod error_page;
mod kept;
mod key_limits;
mod listen_tls;
mod load;
mod network;
mod on_demand;
mod options;
mod path_pattern;
mod range;
mod reader;
mod redis;
mod secret_file;
mod settings;
#[cfg(test)]
mod shipped;
mod site;
mod site_files;
mod site_servers;
mod sites;
mod sticky;
mod table;
mod tokens;
mod updates;
mod values;

pub(crate) use access_log::VisitFields;
pub use access_log::{AccessLog, Field, LogFormat, LogTo, Part};
pub use address::Address;
pub(crate) use check::CHECK_OPTIONS;
pub use check::Check;
pub use destination::Destination;
pub(crate) use directive::{Directive, Takes, defaults};
pub use endpoint::Endpoint;
pub use error_page::{ErrorPage, PageMedia};
pub use kept::KeptFiles;
pub(crate) use kept::text as kept_text;
pub(crate) use key_limits::LIMITS;
pub use key_limits::{KeyLimits, Limits};
pub use listen_tls::{CertificateFiles, ClientCert, ListenTls, TlsVersion};
pub use load::{Overrides, Source};
pub(crate) use load::{add_updates, changed, load, load_all, needs_restart};
pub use network::{AcceptProxy, Network};
pub use on_demand::{Manager, OnDemand};
pub use options::{Command, parse_args};
pub(crate) use path_pattern::PathPattern;
pub(crate) use range::{MAX_HEAD, Range};
pub(crate) use reader::{MAX_FILE, Problem, read, read_file};
pub use redis::{Redis, RedisList};
pub use secret_file::SecretsMode;
pub(crate) use secret_file::{SECRETS_MODE, SecretFile, read_secret};
pub use settings::{
    AdminReads, ExpiredKeys, HalfClosedClients, Listen, Serves, Settings, UnknownHost,
};
pub(crate) use site::{Keepalive, Key, Paths, Site};
pub use site_files::{CacheControl, SiteFiles};
pub use site_servers::{ServerTls, SiteServer};
pub(crate) use sticky::STICKY_WAIT;
pub use sticky::{Sticky, StickyCookie};
pub(crate) use table::TABLE;
pub(crate) use tokens::quote;
pub(crate) use updates::{Refusal, site_name};
pub use updates::{SiteUpdate, SiteUpdates};
pub(crate) use values::{choose, time, word_for, yes_no};
