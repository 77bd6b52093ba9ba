//! Completions for bash, zsh and fish.

use crate::help::{self, Flag, Program, Subcommand, Value};
use crate::tools::{has, hold, root, run, source};
use std::fmt::Write;
use std::process::Command;

/// What completes the name of a host: those that the proxy has now.
const HOSTS: &str = "cloudbridge ctl hosts 2>/dev/null | sed -e 1d -e 's/[ ,/].*//'";

/// Words behind a command that are the name of a host.
const OF_HOSTS: &[&str] = &["HOST", "TARGET"];

struct Shell {
    /// The name of a program's file.
    file: fn(&str) -> String,
    write: fn(&str, &Program, Option<&Program>) -> String,
}

const SHELLS: &[Shell] = &[
    Shell { file: |program| format!("{program}.bash"), write: bash },
    Shell { file: |program| format!("_{program}"), write: zsh },
    Shell { file: |program| format!("{program}.fish"), write: fish },
];

#[test]
fn manuals_and_completions_have_every_option() {
    let ctl = help::ctl();
    let programs = [
        ("cloudbridge", help::proxy(), Some(&ctl)),
        ("cloudbridge-agent", help::agent(), None),
        ("cloudbridge-key", help::key(), None),
    ];
    for (name, program, ctl) in &programs {
        for shell in SHELLS {
            let text = (shell.write)(name, program, *ctl);
            hold(&format!("packaging/completions/{}", (shell.file)(name)), &text);
        }
    }
}

fn head(name: &str) -> String {
    format!("# Completes {name}. Written by make manuals, from --help.\n")
}

fn names(flags: &[Flag], wanted: impl Fn(Value) -> bool) -> Vec<String> {
    flags.iter().filter(|flag| wanted(flag.takes())).flat_map(Flag::names).collect()
}

fn takes_hosts(command: &Subcommand) -> bool {
    OF_HOSTS.iter().any(|word| command.words.contains(word))
}

/// The names of the commands whose words are of this kind.
fn commands(program: &Program, wanted: impl Fn(&Subcommand) -> bool) -> Vec<&str> {
    let wanted = program.commands.iter().filter(|command| wanted(command));
    wanted.map(|command| command.name.as_str()).collect()
}

fn takes_files(command: &Subcommand) -> bool {
    command.words.contains("FILE") || command.words.contains("BINARY")
}

fn bash(name: &str, program: &Program, ctl: Option<&Program>) -> String {
    let function = format!("_{}", name.replace('-', "_"));
    let mut text = head(name);
    text += &bash_function(&function, program, ctl.map(|_| format!("{function}_ctl")));
    if let Some(ctl) = ctl {
        text += &bash_function(&format!("{function}_ctl"), ctl, None);
    }
    writeln!(text, "complete -F {function} {name}").unwrap();
    text
}

fn bash_function(function: &str, program: &Program, ctl: Option<String>) -> String {
    let flags = &program.flags;
    let mut text = format!(
        "{function}() {{\n    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} at\n"
    );
    if let Some(ctl) = &ctl {
        writeln!(text, "    if ((COMP_CWORD > 1)) && [[ ${{COMP_WORDS[1]}} == ctl ]]; then\n        {ctl}\n        return\n    fi").unwrap();
    }
    text += "    case $before in\n";
    let files = names(flags, |value| value == Value::File);
    if !files.is_empty() {
        writeln!(text, "    {})\n        compopt -o filenames\n        mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n        return\n        ;;", files.join(" | ")).unwrap();
    }
    for flag in flags {
        if let Value::Words(words) = flag.takes() {
            writeln!(text, "    {})\n        mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$word\")\n        return\n        ;;", flag.names().join(" | "), words.join(" ")).unwrap();
        }
    }
    let texts = names(flags, |value| value == Value::Text);
    if !texts.is_empty() {
        writeln!(
            text,
            "    {})\n        COMPREPLY=()\n        return\n        ;;",
            texts.join(" | ")
        )
        .unwrap();
    }
    text += "    esac\n";
    let all = names(flags, |_| true).join(" ");
    writeln!(text, "    if [[ $word == -* ]]; then\n        mapfile -t COMPREPLY < <(compgen -W '{all}' -- \"$word\")\n        return\n    fi").unwrap();
    if ctl.is_some() {
        text += "    ((COMP_CWORD == 1)) && mapfile -t COMPREPLY < <(compgen -W 'ctl demo' -- \"$word\")\n";
    } else if !program.commands.is_empty() {
        text += "    for at in \"${COMP_WORDS[@]:1:COMP_CWORD - 1}\"; do\n        case $at in\n";
        let hosts = commands(program, takes_hosts);
        if !hosts.is_empty() {
            writeln!(text, "        {})\n            mapfile -t COMPREPLY < <(compgen -W \"$({HOSTS})\" -- \"$word\")\n            return\n            ;;", hosts.join(" | ")).unwrap();
        }
        let files = commands(program, takes_files);
        if !files.is_empty() {
            writeln!(text, "        {})\n            compopt -o filenames\n            mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n            return\n            ;;", files.join(" | ")).unwrap();
        }
        let others = commands(program, |command| !takes_hosts(command) && !takes_files(command));
        writeln!(text, "        {})\n            COMPREPLY=()\n            return\n            ;;\n        esac\n    done", others.join(" | ")).unwrap();
        let all = commands(program, |_| true).join(" ");
        writeln!(text, "    mapfile -t COMPREPLY < <(compgen -W '{all}' -- \"$word\")").unwrap();
    }
    text + "}\n"
}

fn zsh(name: &str, program: &Program, ctl: Option<&Program>) -> String {
    let function = format!("_{}", name.replace('-', "_"));
    let mut text = format!("#compdef {name}\n{}", head(name));
    if let Some(ctl) = ctl {
        text += &zsh_function(&format!("{function}_ctl"), ctl);
        writeln!(text, "{function}() {{\n    if (( CURRENT > 2 )) && [[ $words[2] == ctl ]]; then\n        shift words\n        (( CURRENT-- ))\n        {function}_ctl\n        return\n    fi").unwrap();
        text += &zsh_arguments(program, &["'1:command or address:(ctl demo)'", "'*:address:'"]);
        text += "}\n";
    } else {
        text += &zsh_function(&function, program);
    }
    writeln!(text, "{function} \"$@\"").unwrap();
    text
}

fn zsh_function(function: &str, program: &Program) -> String {
    let mut text = format!("{function}() {{\n");
    if program.commands.is_empty() {
        text += &zsh_arguments(program, &["'*:proxy:_hosts'"]);
        return text + "}\n";
    }
    text += "    local -a commands\n    commands=(\n";
    for command in &program.commands {
        let about =
            if command.about.is_empty() { command.words.clone() } else { command.about.clone() };
        writeln!(text, "        '{}:{}'", command.name, single(&about)).unwrap();
    }
    text += "    )\n";
    text +=
        &zsh_arguments(program, &["'1:command:{_describe command commands}'", "'*::word:->words'"]);
    text += "    [[ $state == words ]] || return\n    case $words[1] in\n";
    let hosts = commands(program, takes_hosts);
    if !hosts.is_empty() {
        writeln!(
            text,
            "    {})\n        compadd -- ${{(f)\"$({HOSTS})\"}}\n        ;;",
            hosts.join(" | ")
        )
        .unwrap();
    }
    let files = commands(program, takes_files);
    if !files.is_empty() {
        writeln!(text, "    {})\n        _files\n        ;;", files.join(" | ")).unwrap();
    }
    text + "    esac\n}\n"
}

fn zsh_arguments(program: &Program, positional: &[&str]) -> String {
    let mut text = "    local state\n    _arguments -s -S".to_owned();
    for flag in &program.flags {
        let names = flag.names();
        let value = match (flag.takes(), flag.value.as_deref()) {
            (Value::File, Some(value)) => format!(":{value}:_files"),
            (Value::Words(words), Some(value)) => format!(":{value}:({})", words.join(" ")),
            (_, Some(value)) => format!(":{value}:"),
            (_, None) => String::new(),
        };
        let about = single(&flag.about).replace('[', "\\[").replace(']', "\\]");
        let spec = format!("[{about}]{value}'");
        text += " \\\n        ";
        text += &match (&names[..], flag.repeats()) {
            ([name], false) => format!("'{name}{spec}"),
            ([name], true) => format!("'*{name}{spec}"),
            (_, true) => format!("'*'{{{}}}'{spec}", names.join(",")),
            (_, false) => format!("'({})'{{{}}}'{spec}", names.join(" "), names.join(",")),
        };
    }
    for spec in positional {
        text += " \\\n        ";
        text += spec;
    }
    text + "\n"
}

fn fish(name: &str, program: &Program, ctl: Option<&Program>) -> String {
    let mut text = head(name);
    writeln!(text, "complete -c {name} -f").unwrap();
    match ctl {
        Some(ctl) => {
            text += &fish_flags(name, program, " -n 'not __fish_seen_subcommand_from ctl'");
            writeln!(
                text,
                "complete -c {name} -n __fish_use_subcommand -a ctl -d 'asks a running proxy'\n\
                 complete -c {name} -n __fish_use_subcommand -a demo -d 'shows it at work'"
            )
            .unwrap();
            text += &fish_flags(name, ctl, " -n '__fish_seen_subcommand_from ctl'");
            text += &fish_commands(name, ctl, "__fish_seen_subcommand_from ctl; and ");
        }
        None => {
            text += &fish_flags(name, program, "");
            text += &fish_commands(name, program, "");
        }
    }
    text
}

fn fish_flags(name: &str, program: &Program, when: &str) -> String {
    let mut text = String::new();
    for flag in &program.flags {
        write!(text, "complete -c {name}{when}").unwrap();
        flag.short.iter().for_each(|short| write!(text, " -s {short}").unwrap());
        flag.long.iter().for_each(|long| write!(text, " -l {long}").unwrap());
        match flag.takes() {
            Value::Nothing => {}
            Value::File => text += " -r -F",
            Value::Words(words) => write!(text, " -x -a '{}'", words.join(" ")).unwrap(),
            Value::Text => text += " -x",
        }
        writeln!(text, " -d '{}'", fish_text(&flag.about)).unwrap();
    }
    text
}

fn fish_commands(name: &str, program: &Program, when: &str) -> String {
    let mut text = String::new();
    let all = commands(program, |_| true).join(" ");
    for command in &program.commands {
        let about = if command.about.is_empty() { &command.words } else { &command.about };
        let about = fish_text(about);
        writeln!(text, "complete -c {name} -n '{when}not __fish_seen_subcommand_from {all}' -a {} -d '{about}'", command.name).unwrap();
    }
    let hosts = commands(program, takes_hosts).join(" ");
    if !hosts.is_empty() {
        let list = HOSTS.replace('\'', "\\'");
        writeln!(
            text,
            "complete -c {name} -n '{when}__fish_seen_subcommand_from {hosts}' -a '({list})'"
        )
        .unwrap();
    }
    let files = commands(program, takes_files).join(" ");
    if !files.is_empty() {
        writeln!(text, "complete -c {name} -n '{when}__fish_seen_subcommand_from {files}' -F")
            .unwrap();
    }
    text
}

/// Text inside single quotes of zsh.
fn single(text: &str) -> String {
    text.replace('\'', "'\\''").replace(':', "\\:")
}

/// Text inside single quotes of fish.
fn fish_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

/// What bash offers for the last of these words.
#[track_caller]
fn offered(program: &str, words: &[&str]) -> Vec<String> {
    let file = root().join(format!("packaging/completions/{program}.bash"));
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let function = program.replace('-', "_");
    let script = format!(
        "compopt() {{ :; }}; source {}; COMP_WORDS=({}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
         _{function}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        file.display(),
        words.join(" ")
    );
    let text = run(Command::new("bash").current_dir(root()).args(["-euc", &script]));
    let mut found: Vec<String> =
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    found.sort();
    found
}

#[test]
fn bash_offers_what_fits() {
    if !has("bash") {
        return;
    }
    assert_eq!(offered("cloudbridge", &["cloudbridge", "--lo"]), ["--log-file"]);
    assert_eq!(
        offered("cloudbridge", &["cloudbridge", "-c", "Carg"]),
        ["Cargo.lock", "Cargo.toml"]
    );
    assert_eq!(offered("cloudbridge", &["cloudbridge", "-w", ""]), [""; 0]);
    assert_eq!(offered("cloudbridge", &["cloudbridge", "c"]), ["ctl"]);
    assert_eq!(offered("cloudbridge", &["cloudbridge", "d"]), ["demo"]);
    assert_eq!(offered("cloudbridge", &["cloudbridge", "ctl", "un"]), ["undrain"]);
    assert_eq!(offered("cloudbridge", &["cloudbridge", "ctl", "--j"]), ["--json"]);
    assert_eq!(offered("cloudbridge", &["cloudbridge", "ctl", "-c", "LIC"]), ["LICENSE"]);
    assert_eq!(offered("cloudbridge", &["cloudbridge", "ctl", "upgrade", "LIC"]), ["LICENSE"]);
    let mode = ["cloudbridge-agent", "--secrets-mode", "p"];
    assert_eq!(offered("cloudbridge-agent", &mode), ["private"]);
    assert_eq!(offered("cloudbridge-key", &["cloudbridge-key", "ch"]), ["check"]);
    assert_eq!(offered("cloudbridge-key", &["cloudbridge-key", "add", "LIC"]), ["LICENSE"]);
}

#[test]
fn zsh_and_fish_read_their_completions() {
    for program in ["cloudbridge", "cloudbridge-agent", "cloudbridge-key"] {
        let file = |name: String| root().join("packaging/completions").join(name);
        if has("zsh") {
            run(Command::new("zsh").arg("-n").arg(file(format!("_{program}"))));
        }
        if has("fish") {
            let file = file(format!("{program}.fish"));
            run(Command::new("fish").arg("--no-execute").arg(&file));
            let ask = format!("source {}; complete -C '{program} --ver'", file.display());
            let text = run(Command::new("fish").args(["--no-config", "-c", &ask]));
            assert!(text.starts_with("--version\t"), "{text}");
        }
        assert!(source(&format!("packaging/completions/_{program}")).starts_with("#compdef "));
    }
}
