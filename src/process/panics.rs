//! A panic ends the process.

use std::panic::{self, PanicHookInfo};
use std::process;

/// From now on a panic of any thread is reported as usual, and then ends the process (SIGABRT).
///
/// A worker with inconsistent tables must not go on, and the others must not wait for it. A profile
/// of Cargo can say so too, but a build may choose another.
pub fn end_process() {
    end_process_after(panic::take_hook());
}

/// The same, with a report of one's own.
pub(super) fn end_process_after(report: impl Fn(&PanicHookInfo<'_>) + Send + Sync + 'static) {
    panic::set_hook(Box::new(move |what| {
        report(what);
        process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::thread;

    use crate::process::logging;

    const SIGABRT: i32 = 6;

    #[test]
    fn panic_of_one_thread_ends_the_process() {
        const VICTIM: &str = "CLOUDBRIDGE_TEST_PANICS";
        if let Some(with_log) = env::var_os(VICTIM) {
            super::end_process();
            let _log = (with_log == "with a log").then(|| logging::start(env_logger::builder()));
            let _ = thread::spawn(|| panic!("a broken invariant")).join();
            return;
        }
        for manner in ["with a log", "without one"] {
            let test = "process::panics::tests::panic_of_one_thread_ends_the_process";
            let ended = Command::new(env::current_exe().expect("a path"))
                .args(["--exact", "--nocapture", test])
                .env(VICTIM, manner)
                .output()
                .expect("this program");
            assert_eq!(ended.status.signal(), Some(SIGABRT), "{manner}: {ended:?}");
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(said.contains("a broken invariant"), "{manner}: {said}");
        }
    }
}
