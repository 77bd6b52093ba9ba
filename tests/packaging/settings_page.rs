//! `cloudbridge.conf(5)`, made from `conf/cloudbridge.conf`, which `src/config/shipped.rs` holds against
//! the table of settings.

use crate::tools::{hold, run, source};
use std::process::Command;

/// The page up to the settings.
const BEGINNING: &str = r#".\" Written by make manuals from conf/cloudbridge.conf: change that file.
.Dd November 26, 2026
.Dt CLOUDBRIDGE.CONF 5
.Os
.Sh NAME
.Nm cloudbridge.conf
.Nd settings of cloudbridge, the reverse-reverse HTTP proxy
.Sh SYNOPSIS
.Pa /etc/cloudbridge/cloudbridge.conf
.Sh DESCRIPTION
.Xr cloudbridge 1
reads its settings from the file that its option
.Fl c
names.
Each has a default, so a file has only what is to be different.
.Bd -literal -offset indent
cloudbridge -c /etc/cloudbridge/cloudbridge.conf -t
.Ed
.Pp
checks a file, and
.Ql systemctl reload cloudbridge
or the signal HUP has the proxy read it again.
"#;

/// The page after the settings.
const END: &str = r#".Sh FILES
.Bl -tag -width Ds
.It Pa /etc/cloudbridge/cloudbridge.conf
The settings of the shipped unit.
.It Pa /usr/share/doc/cloudbridge/examples/cloudbridge.conf
Every setting with its default and this text.
With
.Ql make install
it is below
.Pa /usr/local .
.El
.Sh SEE ALSO
.Xr cloudbridge 1 ,
.Xr cloudbridge-agent 1 ,
.Xr cloudbridge-key 1
"#;

/// The lines of a comment, without `#` and the blank behind it.
type Comment<'t> = Vec<&'t str>;

#[test]
fn manuals_have_every_setting() {
    let text = source("conf/cloudbridge.conf");
    let (head, settings) = text.split_once("\n####").expect("sections begin with a line of #");
    let mut page = BEGINNING.to_owned();
    let about = comment(head.lines());
    let general = about.iter().position(|line| line.starts_with("One setting a line")).unwrap();
    page += ".Pp\n";
    page += &paragraphs(&about[general..]);
    page += ".Sh SETTINGS\n";
    let names: Vec<&str> = settings_of_the_help();
    let mut found = Vec::new();
    let settings = format!("####{settings}");
    for section in settings.split("\n\n\n") {
        let (title, rest) = section.trim_start().split_once('\n').unwrap();
        page += &format!(".Ss {}\n.Bl -tag -width Ds\n", titled(title.trim_matches(['#', ' '])));
        for entry in rest.trim().split("\n\n") {
            let lines: Vec<&str> = entry.lines().collect();
            let (last, above) = lines.split_last().unwrap();
            let example = last.trim_start_matches("# ");
            let name = example.split(' ').next().unwrap();
            assert!(names.contains(&name), "{last}");
            found.push(name);
            page += &format!(".It Ic {name}\n{}", paragraphs(&comment(above.iter().copied())));
            if last.starts_with('#') {
                page += &format!(".Pp\n.Dl {}\n", escaped(example));
            }
        }
        page += ".El\n";
    }
    assert_eq!(found, names, "the order of the help");
    hold("doc/cloudbridge.conf.5", &(page + END));
}

/// The names of all settings, in their order.
fn settings_of_the_help() -> Vec<&'static str> {
    let help = run(Command::new(env!("CARGO_BIN_EXE_cloudbridge")).arg("--help"));
    let help: &'static str = help.leak();
    let lines = help.lines().skip_while(|line| !line.starts_with("Settings, "));
    lines.filter_map(|line| line.strip_prefix("  ").filter(|name| !name.starts_with(' '))).collect()
}

fn comment<'t>(lines: impl Iterator<Item = &'t str>) -> Comment<'t> {
    lines.map(|line| line.strip_prefix("# ").unwrap_or(line.trim_start_matches('#'))).collect()
}

/// `LISTENERS` as a title.
fn titled(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    format!("{first}{}", rest.to_lowercase())
}

/// The text with its examples and its lists of options.
fn paragraphs(lines: &[&str]) -> String {
    let mut text = String::new();
    for paragraph in lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty()) {
        if !text.is_empty() {
            text += ".Pp\n";
        }
        text += &match paragraph {
            [first, second, ..] if is_indented(second) && !is_indented(first) => options(paragraph),
            [first, ..] if is_indented(first) || is_table(first) => literal(paragraph),
            _ => filled(paragraph),
        };
    }
    // A display makes its own space.
    text.replace(".Pp\n.Bd", ".Bd").replace(".Pp\n.Bl", ".Bl")
}

fn is_indented(line: &str) -> bool {
    line.starts_with("    ")
}

/// A list of options of a setting: each line that is not indented names some, and the text follows.
fn options(lines: &[&str]) -> String {
    let mut text = ".Bl -tag -width Ds\n".to_owned();
    let mut rest = lines;
    while let [name, more @ ..] = rest {
        let count = more.iter().take_while(|line| is_indented(line)).count();
        let (about, next) = more.split_at(count);
        text += &format!(".It Li {}\n", argument(name));
        for part in about.chunk_by(|a, b| is_table(a) == is_table(b)) {
            let part: Vec<&str> =
                part.iter().map(|line| line.strip_prefix("    ").unwrap()).collect();
            text += &if is_table(part[0]) { literal(&part) } else { filled(&part) };
        }
        rest = next;
    }
    text + ".El\n"
}

/// A line of two columns.
fn is_table(line: &str) -> bool {
    line.trim_start().contains("   ") || line.trim_end().len() - line.trim().len() > 8
}

fn literal(lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| escaped(line.trim_end())).collect();
    let indents = lines.iter().map(|line| line.len() - line.trim_start().len());
    let indent = indents.min().unwrap_or(0);
    let lines: Vec<&str> = lines.iter().map(|line| &line[indent..]).collect();
    format!(".Bd -literal -offset indent\n{}\n.Ed\n", lines.join("\n"))
}

/// Each sentence begins a line, so that roff sees where it ends.
fn filled(lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| quoted(line.trim())).collect();
    lines.join("\n").replace(". ", ".\n") + "\n"
}

/// Text in which what stands in backticks is bold.
pub fn quoted(line: &str) -> String {
    let parts: Vec<String> = escaped(line).split('`').map(str::to_owned).collect();
    // A backtick without its partner stays.
    if parts.len().is_multiple_of(2) {
        return parts.join("`");
    }
    let mut text = String::new();
    for (number, part) in parts.iter().enumerate() {
        text += &if number % 2 == 1 { format!("\\fB{part}\\fP") } else { part.clone() };
    }
    text
}

/// An argument of a macro, as text.
fn argument(text: &str) -> String {
    format!("\"{}\"", escaped(text).replace('"', "\"\""))
}

/// Text that roff takes for itself.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
