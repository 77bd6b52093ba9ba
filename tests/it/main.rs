//! The programs from outside: the real binaries as child processes, and literal bytes on every side
//! of them. One behaviour a function, and one subject a file.
//!
//! A test that needs a program that is not installed is skipped, and says so on the error output.

mod common;

mod agent;
mod applications;
mod clients;
mod demo;
mod docs;
mod fleet;
mod in_front;
mod keytool;
mod library;
mod proxy;
mod soak;
mod stress;
mod swiftiply;
mod tls;
mod tools;
