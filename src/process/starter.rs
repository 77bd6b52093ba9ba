//! Whoever started the process, and what is said to him: that it serves, or why it does not.
//!
//! In the background his shell has its prompt back only when one of the two is certain, and an error
//! still appears on his terminal and in the exit code.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use crate::net::sys::{self, Forked, Stream};

/// What the process in the background says to its parent when it serves. No text begins so.
const SERVING: u8 = 0;

/// Longest complaint that the parent passes on, in bytes.
const COMPLAINT: u64 = 1 << 20;

/// What has become of the process that asked for [`Starter::background`].
pub enum Launch {
    /// This is the process that goes on, in the background.
    Background(Starter),
    /// This is the one that was started, and all is done: it ends with this code.
    Done(ExitCode),
}

/// The way back to whoever started the process.
pub struct Starter {
    /// His terminal, or the parent's pipe; `None` when he gave us no standard error.
    back: Option<File>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Foreground,
    Background,
}

impl Starter {
    /// For a process that stays where it was started. Its standard error may be put elsewhere
    /// afterwards.
    #[must_use]
    pub fn foreground() -> Starter {
        let back = io::stderr().as_fd().try_clone_to_owned().ok().map(File::from);
        Starter { back, place: Place::Foreground }
    }

    /// Goes into the background: a session of its own, no terminal, and a parent that waits for
    /// [`Starter::serving`] or [`Starter::refuse`]. The working directory stays. Standard error
    /// stays too, for the caller to put it elsewhere. `program` is the name in the parent's words.
    ///
    /// # Errors
    /// As pipe(2) and fork(2); and when there are other threads already.
    pub fn background(program: &str) -> io::Result<Launch> {
        let (reader, writer) = io::pipe()?;
        if sys::fork()? == Forked::Parent {
            drop(writer);
            return Ok(Launch::Done(wait(reader, program)));
        }
        drop(reader);
        let back = Some(File::from(OwnedFd::from(writer)));
        let mut starter = Starter { back, place: Place::Background };
        // From here on the parent listens, and has to be told of errors by us.
        match leave_terminal() {
            // Not the session's leader any more, so that no terminal is ever given to us again.
            Ok(Forked::Parent) => Ok(Launch::Done(ExitCode::SUCCESS)),
            Ok(Forked::Child) => Ok(Launch::Background(starter)),
            Err(error) => {
                let problem = format!("cannot go into the background: {error}");
                Ok(Launch::Done(starter.refuse(program, &[problem])))
            }
        }
    }

    /// Says why the process does not serve.
    pub fn refuse(&mut self, program: &str, problems: &[String]) -> ExitCode {
        if let Some(back) = &mut self.back {
            for problem in problems {
                // Nobody is left to be told that nobody can be told.
                let _ = writeln!(back, "{program}: {problem}");
            }
        }
        ExitCode::FAILURE
    }

    /// Says that the process serves.
    pub fn serving(self) {
        if let (Place::Background, Some(mut back)) = (self.place, self.back) {
            let _ = back.write_all(&[SERVING]);
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

/// Waits for what the process in the background has to say, until it says so or ends.
fn wait(reader: PipeReader, program: &str) -> ExitCode {
    let mut said = Vec::new();
    let read = reader.take(COMPLAINT).read_to_end(&mut said);
    match (read, said.first()) {
        (Ok(_), Some(&SERVING)) => return ExitCode::SUCCESS,
        (Ok(_), Some(_)) => {
            let _ = io::stderr().write_all(&said);
        }
        (Ok(_), None) => eprintln!("{program}: ended before it served; its log may say why"),
        (Err(error), _) => eprintln!("{program}: cannot learn whether it serves: {error}"),
    }
    ExitCode::FAILURE
}
