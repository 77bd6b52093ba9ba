//! What the kernel says of this process, in the units of Prometheus' `process_` metrics (proc(5)).

use std::fs;
use std::time::Duration;

/// In what the kernel counts processor time there: USER_HZ, which is 100 on every Linux of today.
const TICK: Duration = Duration::from_millis(10);

/// What is known; `None` where /proc does not say it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// User and system time of all threads.
    pub cpu: Option<Duration>,
    /// In bytes.
    pub resident: Option<u64>,
    /// In bytes.
    pub virtual_memory: Option<u64>,
    pub open_fds: Option<u64>,
    pub threads: Option<u64>,
}

impl Process {
    pub fn read() -> Process {
        let read =
            |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        Process { open_fds: open_fds(), ..Process::parse(&read("stat"), &read("status")) }
    }

    fn parse(stat: &str, status: &str) -> Process {
        Process {
            cpu: cpu(stat),
            resident: number_of(status, "VmRSS:").map(|kib| kib * 1024),
            virtual_memory: number_of(status, "VmSize:").map(|kib| kib * 1024),
            open_fds: None,
            threads: number_of(status, "Threads:"),
        }
    }
}

/// Without the one that reads the directory.
fn open_fds() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(count.saturating_sub(1) as u64)
}

/// Fields 14 and 15; the name in field 2 may hold blanks and brackets.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(TICK * ticks()? + TICK * ticks()?)
}

fn number_of(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 3 0 1 2 3";
        let status = "Name:\ta ) b\nVmSize:\t  2000 kB\nVmRSS:\t   300 kB\nThreads:\t3\n";
        assert_eq!(
            Process::parse(stat, status),
            Process {
                cpu: Some(Duration::from_secs(3)),
                resident: Some(300 * 1024),
                virtual_memory: Some(2000 * 1024),
                open_fds: None,
                threads: Some(3),
            }
        );
        assert_eq!(Process::parse("", "VmRSS:\n"), Process::default());
        let own = Process::read();
        assert!(own.open_fds > Some(2) && own.cpu.is_some() && own.resident > Some(0), "{own:?}");
    }
}
