//! Reports to the shell that started the process: it serves, or why it does not.
//!
//! A process that goes into the background returns to the shell only when one of the two is known,
//! so that an error still appears on the terminal and in the exit code.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use crate::net::sys::{self, Forked, Stream};

/// Sent to the parent when the process serves. No text begins with it.
const SERVING: u8 = 0;

/// Most bytes of errors that the parent prints.
const MAX_ERRORS: u64 = 1 << 20;

/// Which process has returned from [`Starter::background`].
pub enum Launch {
    /// The one in the background, which continues.
    Background(Starter),
    /// The original one, which exits with this code.
    Done(ExitCode),
}

/// Reports the result of the start.
pub struct Starter {
    /// Standard error, or the pipe to the parent; `None` if standard error is closed.
    output: Option<File>,
    in_background: bool,
}

impl Starter {
    /// For a process in the foreground. Its standard error may be redirected afterwards.
    #[must_use]
    pub fn foreground() -> Starter {
        let output = io::stderr().as_fd().try_clone_to_owned().ok().map(File::from);
        Starter { output, in_background: false }
    }

    /// Goes into the background: a new session, no terminal, and a parent that waits for
    /// [`Starter::serving`] or [`Starter::refuse`]. The working directory and standard error are
    /// kept; the caller redirects the latter. `program` is the name in the parent's messages.
    ///
    /// # Errors
    /// As pipe(2) and fork(2), or if there are other threads.
    pub fn background(program: &str) -> io::Result<Launch> {
        let (reader, writer) = io::pipe()?;
        if sys::fork()? == Forked::Parent {
            drop(writer);
            return Ok(Launch::Done(wait(reader, program)));
        }
        drop(reader);
        let output = Some(File::from(OwnedFd::from(writer)));
        let mut starter = Starter { output, in_background: true };
        // From here on the parent waits, so errors must be reported to it.
        match leave_terminal() {
            // No longer the session leader, so that it can never acquire a terminal again.
            Ok(Forked::Parent) => Ok(Launch::Done(ExitCode::SUCCESS)),
            Ok(Forked::Child) => Ok(Launch::Background(starter)),
            Err(error) => {
                let problem = format!("cannot go into the background: {error}");
                Ok(Launch::Done(starter.refuse(program, &[problem])))
            }
        }
    }

    /// Reports why the process does not serve.
    pub fn refuse(&mut self, program: &str, problems: &[String]) -> ExitCode {
        if let Some(output) = &mut self.output {
            for problem in problems {
                let _ = writeln!(output, "{program}: {problem}");
            }
        }
        ExitCode::FAILURE
    }

    /// Reports that the process serves.
    pub fn serving(self) {
        if let (true, Some(mut output)) = (self.in_background, self.output) {
            let _ = output.write_all(&[SERVING]);
        }
    }
}

fn leave_terminal() -> io::Result<Forked> {
    sys::new_session()?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    sys::replace_stream(Stream::Input, &nothing)?;
    sys::replace_stream(Stream::Output, &nothing)?;
    sys::fork()
}

/// Waits until the process in the background reports or exits.
fn wait(reader: PipeReader, program: &str) -> ExitCode {
    let mut report = Vec::new();
    let read = reader.take(MAX_ERRORS).read_to_end(&mut report);
    match (read, report.first()) {
        (Ok(_), Some(&SERVING)) => return ExitCode::SUCCESS,
        (Ok(_), Some(_)) => {
            let _ = io::stderr().write_all(&report);
        }
        (Ok(_), None) => eprintln!("{program}: ended before it served; its log may say why"),
        (Err(error), _) => eprintln!("{program}: cannot learn whether it serves: {error}"),
    }
    ExitCode::FAILURE
}
