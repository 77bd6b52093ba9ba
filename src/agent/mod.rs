//! The agent: the program that stands beside a backend and holds its bridges to the proxy.
//!
//! - [`options`]: the command line
//! - [`echo`]: the mode that is its own backend, and answers each request with the request

pub mod echo;
pub mod options;
