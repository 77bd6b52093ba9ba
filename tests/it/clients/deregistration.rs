//! Leaving under load.

use super::language::Language;
use super::program::Program;
use crate::common::{Load, Proxy, at, eventually};

/// A POST is never sent twice, so one that meets a bridge which is just being closed would be
/// answered with 502.
pub fn deregistration_under_load_loses_no_request(language: Language) {
    let proxy = Proxy::start();
    let _staying = Program::parked(language, &proxy, 2);
    let is_answer = |_: &str, text: &str| text == "hi";
    Load::run(&proxy, "POST", 6, is_answer, |load| {
        for _ in 0..3 {
            let mut leaving = Program::start(language, &at(&proxy), 4, &[]);
            eventually("the second program has its bridges", || bridges(&proxy) == 6);
            load.await_more(15);
            leaving.terminate();
            leaving.await_end();
        }
    });
}

/// Bridges that are parked or in an exchange.
fn bridges(proxy: &Proxy) -> u64 {
    proxy.count("b") + proxy.count("B")
}
