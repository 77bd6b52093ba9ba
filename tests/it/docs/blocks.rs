//! The blocks of a page, and what the comments in front of them say. In a manual page, these are the
//! examples, and the comments begin with `.\" test: `.

use std::path::Path;

/// How a block is tested, as the comment in front of it says: `<!-- test: MARK -->`.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// `run`: by a shell that goes on from block to block, and must succeed. With `; needs PROGRAM ...`
    /// the page is skipped where one of them is missing.
    Run { needs: Vec<String> },
    /// `serves`: the same, but the proxies, agents and servers in it stay in the foreground where a
    /// reader types them. They go on until the end of the page.
    Serves { needs: Vec<String> },
    /// `setup`: commands in the comment itself, which a reader does not see. `setup; afresh` ends
    /// what the blocks before it have started, and empties the directory.
    Setup { afresh: bool },
    /// `output`: what the block before it prints, `...` being any text or, alone, any lines. With
    /// `; numbers vary` any number is as good as another.
    Output { numbers_vary: bool },
    /// `log`: lines that what runs has written on standard error.
    Log,
    /// `settings`: the proxy's, in order. They become its file. With `, each line` each line is a file
    /// of its own.
    Settings { each_line: bool },
    /// `agent settings`: a file of the agent, which starts with it.
    AgentSettings,
    /// `haproxy`: settings of haproxy, or some sections of them, in order.
    Haproxy,
    /// `metrics`: expressions with metrics that there are.
    Metrics,
    /// `text`: nothing that is run.
    Text,
    /// `none, REASON`: commands that are not run.
    None(String),
}

/// A block and where it is.
#[derive(Clone, Debug)]
pub struct Block {
    /// `PAGE:LINE` of its first line.
    pub place: String,
    pub mark: Mark,
    /// Without the indentation that makes it a block.
    pub text: String,
}

impl Mark {
    fn parse(text: &str) -> Option<Mark> {
        let (kind, option) = text.split_once("; ").unwrap_or((text, ""));
        let needs = || match (option, option.strip_prefix("needs ")) {
            ("", _) => Some(Vec::new()),
            (_, programs) => Some(programs?.split(' ').map(str::to_owned).collect()),
        };
        Some(match (kind, option) {
            ("run", _) => Mark::Run { needs: needs()? },
            ("serves", _) => Mark::Serves { needs: needs()? },
            ("setup", "") => Mark::Setup { afresh: false },
            ("setup", "afresh") => Mark::Setup { afresh: true },
            ("output", "") => Mark::Output { numbers_vary: false },
            ("output", "numbers vary") => Mark::Output { numbers_vary: true },
            ("log", "") => Mark::Log,
            ("settings", "") => Mark::Settings { each_line: false },
            ("settings, each line", "") => Mark::Settings { each_line: true },
            ("agent settings", "") => Mark::AgentSettings,
            ("haproxy", "") => Mark::Haproxy,
            ("metrics", "") => Mark::Metrics,
            ("text", "") => Mark::Text,
            (kind, "") => Mark::None(kind.strip_prefix("none, ")?.to_owned()),
            _ => return None,
        })
    }
}

/// A comment's mark, and whether the comment goes on.
fn mark_of(line: &str) -> Option<(&str, bool)> {
    let inside = line.trim().strip_prefix("<!-- test: ")?;
    Some(match inside.strip_suffix(" -->") {
        Some(mark) => (mark, false),
        None => (inside, true),
    })
}

/// All blocks of a page, indented or between fences, and the commands of its setups. It is an error
/// if some of them do not say how they are tested; all of these are named.
pub fn of(page: &Path, text: &str) -> Result<Vec<Block>, String> {
    let lines: Vec<&str> = text.lines().collect();
    let place = |line: usize| format!("{}:{}", page.display(), line + 1);
    let (mut blocks, mut unmarked, mut mark, mut at) = (Vec::new(), Vec::new(), None, 0);
    while at < lines.len() {
        let line = lines[at];
        if let Some((text, goes_on)) = mark_of(line) {
            let parsed = Mark::parse(text);
            let parsed = parsed.ok_or_else(|| format!("{}: no mark: {text}", place(at)))?;
            if !goes_on {
                mark = Some(parsed);
                at += 1;
                continue;
            }
            let end = lines[at..].iter().position(|line| line.trim() == "-->");
            let end = at + end.ok_or_else(|| format!("{}: a comment without end", place(at)))?;
            let text = lines[at + 1..end].join("\n");
            blocks.push(Block { place: place(at), mark: parsed, text });
            at = end + 1;
            continue;
        }
        let fence = line.trim_start().starts_with("```");
        let indented = line.starts_with("    ") && (at == 0 || lines[at - 1].trim().is_empty());
        if !fence && !indented {
            if !line.trim().is_empty() && mark.take().is_some() {
                return Err(format!("{}: a mark without a block", place(at)));
            }
            at += 1;
            continue;
        }
        let first = at + usize::from(fence);
        let ends = |line: &&str| match fence {
            true => line.trim_start().starts_with("```"),
            false => !line.trim().is_empty() && !line.starts_with("    "),
        };
        let length = lines[first..].iter().position(ends);
        let end = length.map_or(lines.len(), |length| first + length);
        let text = dedented(&lines[first..end]);
        match mark.take() {
            Some(mark) => blocks.push(Block { place: place(first), mark, text }),
            None => unmarked.push(place(first)),
        }
        at = end + usize::from(fence);
    }
    let what = |place: &String| format!("{place}: a block that does not say how it is tested");
    match unmarked.is_empty() {
        true => Ok(blocks),
        false => Err(unmarked.iter().map(what).collect::<Vec<_>>().join("\n")),
    }
}

/// The examples of a manual page, by the same rules. The commands of a setup are in comments behind
/// its own, indented by four spaces.
pub fn of_manual(page: &Path, text: &str) -> Result<Vec<Block>, String> {
    let place = |line: usize| format!("{}:{}", page.display(), line + 1);
    let (mut blocks, mut mark, mut open) = (Vec::<Block>::new(), None, None::<(usize, String)>);
    let lines = text.lines().enumerate().skip_while(|(_, line)| *line != ".Sh EXAMPLES").skip(1);
    for (at, line) in lines.take_while(|(_, line)| !line.starts_with(".Sh ")) {
        if let Some(text) = line.strip_prefix(".\\\" test: ") {
            let parsed = Mark::parse(text);
            let parsed = parsed.ok_or_else(|| format!("{}: no mark: {text}", place(at)))?;
            match parsed {
                Mark::Setup { .. } => {
                    blocks.push(Block { place: place(at), mark: parsed, text: String::new() });
                }
                parsed => mark = Some(parsed),
            }
            continue;
        }
        if let Some(command) = line.strip_prefix(".\\\"     ") {
            let setup = blocks.last_mut().filter(|block| matches!(block.mark, Mark::Setup { .. }));
            let setup = setup.ok_or_else(|| format!("{}: no setup", place(at)))?;
            setup.text += &format!("{command}\n");
            continue;
        }
        let literal = match (line.strip_prefix(".Dl "), &mut open) {
            (Some(line), _) => Some((at, line.to_owned())),
            (None, Some(_)) if line == ".Ed" => open.take(),
            (None, Some((_, text))) => {
                *text += &format!("{line}\n");
                None
            }
            (None, None) => {
                open = line.starts_with(".Bd -literal").then(|| (at + 1, String::new()));
                None
            }
        };
        if let Some((first, text)) = literal {
            let mark = mark.take().ok_or_else(|| {
                format!("{}: an example that does not say how it is tested", place(first))
            })?;
            let text = text.replace("\\e", "\\").replace("\\&", "").replace("\\-", "-");
            blocks.push(Block { place: place(first), mark, text: text.trim_end().to_owned() });
        }
    }
    Ok(blocks)
}

/// Without the spaces that all lines begin with, and without empty lines at the end.
fn dedented(lines: &[&str]) -> String {
    let filled = || lines.iter().filter(|line| !line.trim().is_empty());
    let spaces = filled().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    let lines: Vec<&str> = lines.iter().map(|line| line.get(spaces..).unwrap_or("")).collect();
    lines.join("\n").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str) -> Result<Vec<Block>, String> {
        of(Path::new("page.md"), text)
    }

    #[test]
    fn blocks_are_indented_or_fenced_and_marked() {
        let page = "A text:\n\n<!-- test: run; needs curl jq -->\n\n    one\n\n      two\n\n- an item\n\n  \
                    <!-- test: text -->\n\n      three\n\n<!-- test: setup\nfour\n-->\n\n\
                    <!-- test: none, root -->\n```sh\nfive\n```\nend\n";
        let found = blocks(page).unwrap();
        let found: Vec<(&str, &str)> =
            found.iter().map(|block| (&*block.place, &*block.text)).collect();
        let expected = [
            ("page.md:5", "one\n\n  two"),
            ("page.md:13", "three"),
            ("page.md:15", "four"),
            ("page.md:21", "five"),
        ];
        assert_eq!(found, expected);
        let marks: Vec<Mark> = blocks(page).unwrap().into_iter().map(|block| block.mark).collect();
        let needs = vec!["curl".to_owned(), "jq".to_owned()];
        let setup = Mark::Setup { afresh: false };
        assert_eq!(marks, [Mark::Run { needs }, Mark::Text, setup, Mark::None("root".to_owned())]);
    }

    #[test]
    fn a_block_without_a_mark_and_a_mark_without_a_block_are_errors() {
        let unmarked = blocks("Text:\n\n    block\n").unwrap_err();
        assert_eq!(unmarked, "page.md:3: a block that does not say how it is tested");
        let alone = blocks("<!-- test: run -->\n\ntext\n").unwrap_err();
        assert_eq!(alone, "page.md:3: a mark without a block");
        assert_eq!(blocks("<!-- test: runs -->\n").unwrap_err(), "page.md:1: no mark: runs");
    }

    #[test]
    fn examples_of_a_manual_page_are_marked_too() {
        let page = ".Dl not an example\n.Sh EXAMPLES\n.\\\" test: setup\n.\\\"     one\n.\\\" test: run\n\
                    .Bd -literal -offset indent\ntwo \\e\n    three\n.Ed\n.Pp\n.\\\" test: serves\n\
                    .Dl four\n.Sh SEE ALSO\n.Dl none\n";
        let found = of_manual(Path::new("page.1"), page).unwrap();
        let found: Vec<(&str, &str)> =
            found.iter().map(|block| (&*block.place, &*block.text)).collect();
        let expected =
            [("page.1:3", "one\n"), ("page.1:7", "two \\\n    three"), ("page.1:12", "four")];
        assert_eq!(found, expected);
        let unmarked = of_manual(Path::new("page.1"), ".Sh EXAMPLES\n.Dl one\n").unwrap_err();
        assert_eq!(unmarked, "page.1:2: an example that does not say how it is tested");
    }
}
