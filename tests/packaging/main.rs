//! What is installed beside the programs: manual pages, completions, units, packages, and what
//! `--version` says.
//!
//! Manual pages and completions are made from what `--help` prints and from `conf/cloudbridge.conf`,
//! which are both made from, or held against, the tables of the programs. `make manuals` writes them
//! anew; without it these tests fail when they differ.

mod build_script;
mod completions;
mod container;
mod help;
mod install;
mod manuals;
mod package;
mod settings_page;
mod system_calls;
mod tools;
mod units;
