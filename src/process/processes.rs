//! The processes of the machine, by what the kernel says of each (proc_pid_stat(5)).

use std::fs;

use crate::net::sys;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: u32,
    pub(crate) parent: u32,
    /// In clock ticks since the machine started.
    pub(crate) started: u64,
    /// Its parent has not waited for it yet.
    pub(crate) has_ended: bool,
}

/// All that this process may see.
pub(crate) fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(Process::find).collect()
}

/// Whether there is such a process, and it has not ended.
pub(crate) fn is_alive(id: u32) -> bool {
    match Process::find(id) {
        Some(process) => !process.has_ended,
        // /proc may hide what belongs to others.
        None => sys::exists(id),
    }
}

impl Process {
    fn find(id: u32) -> Option<Process> {
        Process::read(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    fn read(stat: &str) -> Option<Process> {
        let id = stat.split(' ').next()?.parse().ok()?;
        // The name before the other fields may have any characters.
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let (state, parent, started) = (fields.first()?, fields.get(1)?, fields.get(19)?);
        let has_ended = matches!(*state, "Z" | "X");
        let (parent, started) = (parent.parse().ok()?, started.parse().ok()?);
        Some(Process { id, parent, started, has_ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_known_by_the_kernel_s_line_of_them() {
        let line = |state: &str| {
            let fields = "7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 8192 1";
            format!("9 (a) b) {state} 42 {fields}\n")
        };
        for (state, has_ended) in [("S", false), ("Z", true)] {
            let process = Process { id: 9, parent: 42, started: 4711, has_ended };
            assert_eq!(Process::read(&line(state)), Some(process));
        }
        assert_eq!(Process::read(""), None);
    }

    #[test]
    fn a_process_lives_until_it_ends() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let id = child.id();
        let is_listed = || all().iter().any(|process| process.id == id);
        assert!(is_alive(id) && is_listed());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(id) && !is_listed());
        assert!(!is_alive(u32::MAX));
    }
}
