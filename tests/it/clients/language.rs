//! The languages, and how the application is started in each.

use crate::common::skipped;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A module of `src/clients` and its application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `cloudbridge.js` under an `http.Server`.
    Node,
    /// `serve_wsgi` of `cloudbridge.py`.
    Wsgi,
    /// `serve_asyncio` of the same, under an application that speaks HTTP itself.
    Asyncio,
    /// `cloudbridge.rb`, under one that was written for the original library.
    Ruby,
}

impl Language {
    /// The program that runs it.
    pub fn program(self) -> &'static str {
        match self {
            Language::Node => "node",
            Language::Wsgi | Language::Asyncio => "python3",
            Language::Ruby => "ruby",
        }
    }

    /// Whether that is installed and new enough. If not, says that the test is skipped.
    pub fn is_here(self) -> bool {
        let (least, args) = match self {
            Language::Node => {
                ("16", ["-e", "process.exit(parseInt(process.versions.node) >= 16 ? 0 : 1)"])
            }
            Language::Wsgi | Language::Asyncio => {
                ("3.9", ["-c", "import sys; sys.exit(sys.version_info < (3, 9))"])
            }
            Language::Ruby => {
                ("2.7", ["-e", "exit((RUBY_VERSION.split('.').map(&:to_i) <=> [2, 7]) >= 0)"])
            }
        };
        let tried = Command::new(self.program()).args(args).stdin(Stdio::null()).status();
        let is_here = tried.is_ok_and(|status| status.success());
        if !is_here {
            skipped(&format!("{} {least} or later is not installed", self.program()));
        }
        is_here
    }

    /// Whether its application stops on SIGINT too.
    pub fn takes_sigint(self) -> bool {
        matches!(self, Language::Wsgi | Language::Asyncio)
    }

    /// The module's files.
    pub fn module(self) -> Vec<PathBuf> {
        let names: &[&str] = match self {
            Language::Node => &["node/cloudbridge.js"],
            Language::Wsgi | Language::Asyncio => &["python/cloudbridge.py"],
            Language::Ruby => &["ruby/cloudbridge.rb", "ruby/cloudserver.rb"],
        };
        names.iter().map(|name| clients().join(name)).collect()
    }

    /// The application's file.
    pub fn application(self) -> PathBuf {
        let name = match self {
            Language::Node => "node.js",
            Language::Wsgi => "wsgi.py",
            Language::Asyncio => "streams.py",
            Language::Ruby => "server.rb",
        };
        root().join("tests/it/clients/apps").join(name)
    }
}

/// Where the modules are.
pub fn clients() -> PathBuf {
    root().join("src/clients")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
