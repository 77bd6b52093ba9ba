//! The languages and servers, and how the application is started in each.

use crate::common::skipped;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A module of `src/clients` with its application, or with a server that it feeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `cloudbridge.js` under an `http.Server`.
    Node,
    /// `serve_wsgi` of `cloudbridge.py`.
    Wsgi,
    /// `serve_asyncio` of the same, under an application that speaks HTTP itself.
    Asyncio,
    /// `cloudbridge.uvicorn`.
    Uvicorn,
    /// `cloudbridge.hypercorn`.
    Hypercorn,
    /// `cloudbridge.gunicorn`.
    Gunicorn,
    /// `cloudbridge.rb`, under one that was written for the original library.
    Ruby,
    /// `rackup -s cloudbridge`.
    Rack,
    /// `AsyncBridgeListener` of the crate, under axum.
    Axum,
}

impl Language {
    /// The program that runs it.
    pub fn program(self) -> PathBuf {
        match self {
            Language::Node => "node".into(),
            Language::Wsgi | Language::Asyncio => "python3".into(),
            Language::Uvicorn | Language::Hypercorn | Language::Gunicorn => {
                tools().join("python/bin/python")
            }
            Language::Ruby => "ruby".into(),
            Language::Rack => "rackup".into(),
            Language::Axum => example("clients-application"),
        }
    }

    /// Whether that is installed and new enough. If not, says that the test is skipped.
    pub fn is_here(self) -> bool {
        const OLD_PYTHON: [&str; 2] = ["-c", "import sys; sys.exit(sys.version_info < (3, 9))"];
        let (what, args) = match self {
            Language::Node => (
                "node 16 or later",
                ["-e", "process.exit(parseInt(process.versions.node) >= 16 ? 0 : 1)"],
            ),
            Language::Wsgi | Language::Asyncio => ("python3 3.9 or later", OLD_PYTHON),
            Language::Uvicorn => ("uvicorn", ["-c", "import uvicorn"]),
            Language::Hypercorn => ("hypercorn", ["-c", "import hypercorn"]),
            Language::Gunicorn => ("gunicorn", ["-c", "import gunicorn"]),
            Language::Ruby => (
                "ruby 2.7 or later",
                ["-e", "exit((RUBY_VERSION.split('.').map(&:to_i) <=> [2, 7]) >= 0)"],
            ),
            Language::Rack => ("rackup with puma", ["-e", "require 'puma'; require 'rack'; exit"]),
            Language::Axum => return is_built(&self.program()),
        };
        let program = if self == Language::Rack { "ruby".into() } else { self.program() };
        let mut tried = Command::new(program);
        tried.args(args).stdin(Stdio::null()).stderr(Stdio::null());
        let is_here = tried.status().is_ok_and(|status| status.success());
        if !is_here {
            skipped(&format!("{what} is not installed"));
        }
        is_here
    }

    /// Whether its application takes two signals of different kinds for one.
    pub fn takes_sigint(self) -> bool {
        matches!(self, Language::Wsgi | Language::Asyncio | Language::Hypercorn | Language::Rack)
    }

    /// The module's files.
    pub fn module(self) -> Vec<PathBuf> {
        let names: &[&str] = match self {
            Language::Node => &["node/cloudbridge.js"],
            Language::Wsgi | Language::Asyncio => &["python/cloudbridge.py"],
            Language::Uvicorn => &[
                "python/package/cloudbridge/uvicorn.py",
                "python/package/cloudbridge/_forwarded.py",
                "python/package/cloudbridge/_places.py",
            ],
            Language::Hypercorn => &["python/package/cloudbridge/hypercorn.py"],
            Language::Gunicorn => &["python/package/cloudbridge/gunicorn.py"],
            Language::Ruby => &["ruby/cloudbridge.rb", "ruby/cloudserver.rb"],
            Language::Rack => &[
                "ruby/cloudbridge/listener.rb",
                "ruby/cloudbridge/rack_handler.rb",
                "ruby/rack/handler/cloudbridge.rb",
                "ruby/rackup/handler/cloudbridge.rb",
            ],
            Language::Axum => &[],
        };
        names.iter().map(|name| clients().join(name)).collect()
    }

    /// Starts the application with so many bridges at these proxies.
    pub fn application(self, proxies: &str, bridges: u64) -> Command {
        let apps = root().join("tests/it/clients/apps");
        let mut command = Command::new(self.program());
        let bridges = bridges.to_string();
        match self {
            Language::Node => command.arg(apps.join("node.js")),
            Language::Wsgi => command.arg(apps.join("wsgi.py")),
            Language::Asyncio => command.arg(apps.join("streams.py")),
            Language::Uvicorn => command.arg(apps.join("asgi.py")).arg("uvicorn"),
            Language::Hypercorn => command.arg(apps.join("asgi.py")).arg("hypercorn"),
            Language::Gunicorn => command
                .args([
                    "-m",
                    "gunicorn",
                    "-c",
                    "python:cloudbridge.gunicorn",
                    "--threads",
                    &bridges,
                ])
                .arg("--no-control-socket")
                .arg("--chdir")
                .arg(apps)
                .arg("wsgi:app")
                .env("PYTHONPATH", clients().join("python/package"))
                .env("BRIDGE_PROXIES", proxies),
            Language::Ruby => command.arg(apps.join("server.rb")),
            Language::Rack => command
                .args(["-s", "cloudbridge", "-q", "-E", "deployment"])
                .arg(format!("-OConnections={bridges}"))
                .arg(apps.join("config.ru"))
                .env("RUBYLIB", clients().join("ruby"))
                .env("BRIDGE_PROXIES", proxies),
            Language::Axum => &mut command,
        };
        command.env("CLIENTS", clients()).env("PROXIES", proxies).env("CONNECTIONS", bridges);
        command
    }

    /// What it says when it has ended well.
    pub fn deregistration(self) -> &'static str {
        if self == Language::Gunicorn { "Shutting down: Master" } else { "stopped" }
    }

    /// What its BRIDGE says of the extensions, to each of several proxies.
    pub fn extensions_at_several(self) -> &'static str {
        match self {
            Language::Node | Language::Wsgi => "receipts, probes, places",
            Language::Uvicorn | Language::Hypercorn | Language::Gunicorn => "places",
            Language::Asyncio => "",
            // Applications of these write to the proxy, so it is said what is taken from them.
            Language::Ruby | Language::Rack | Language::Axum => "undelivered, probes, places",
        }
    }

    /// What its BRIDGE says of the extensions, to one proxy.
    pub fn extensions(self) -> Option<&'static str> {
        matches!(self, Language::Node | Language::Wsgi).then_some("receipts, probes")
    }
}

/// Where the modules are.
pub fn clients() -> PathBuf {
    root().join("src/clients")
}

/// Where `.ci/run` installs what comes from the registries of Python and Node.
pub fn tools() -> PathBuf {
    root().join("target/test-tools")
}

/// Where cargo puts an example: it is built with all tests, but not when this file is asked for
/// alone.
pub fn example(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a path");
    let profile = here.ancestors().nth(2).expect("a folder of cargo's").to_owned();
    profile.join("examples").join(name)
}

fn is_built(example: &Path) -> bool {
    let there = example.exists();
    if !there {
        skipped("the example is not built; `cargo test` builds it, or `cargo build --examples`");
    }
    there
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
