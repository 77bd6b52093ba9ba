//! The files of a site, and what starts its backends.

use super::output::{Output, Problem, word};
use super::yaml::{Entry, Value, find, one_line, texts};

/// The original's defaults of the page cache, as soon as one of its two settings is there.
const CACHE_DIRECTORY: &str = "public";
const CACHE_EXTENSION: &str = "html";

/// Why a setting about files has no effect there.
const NO_DOCROOT: &str = "it is about the files below docroot, and there is none";

/// Writes the options for files.
pub(super) fn files(
    entries: &[Entry],
    words: &mut Vec<String>,
    out: &mut Output,
) -> Result<(), Problem> {
    if let Some(root) = folder(entries, "sendfileroot", out)? {
        words.push(format!("sendfile-root={}", word(root)));
    } else if let Some(node) = find(entries, "enable_sendfile_404") {
        out.left_out(node.line, "enable_sendfile_404", "there is no sendfileroot");
    }
    let Some(root) = folder(entries, "docroot", out)? else {
        for name in ["staticmask", "cache_directory", "cache_extensions"] {
            if let Some(node) = find(entries, name) {
                out.left_out(node.line, name, NO_DOCROOT);
            }
        }
        return Ok(());
    };
    words.push(format!("docroot={}", word(root)));
    if let Some(mask) = find(entries, "staticmask") {
        let expression = one_line(mask, "staticmask")?;
        let below = below_root(expression, root);
        if below.is_none() && (expression.starts_with('^') || expression.starts_with("\\A")) {
            let why = "hidden= is searched for in the path of the request, and no longer in that \
                       of the file: look at how it begins";
            out.left_out(mask.line, "staticmask", why);
        }
        words.push(format!("hidden={}", word(below.as_deref().unwrap_or(expression))));
    }
    let (directory, extensions) =
        (find(entries, "cache_directory"), find(entries, "cache_extensions"));
    if directory.is_none() && extensions.is_none() {
        return Ok(());
    }
    let directory = directory.map(|node| one_line(node, "cache_directory")).transpose()?;
    let directory = directory.unwrap_or(CACHE_DIRECTORY).trim_matches('/');
    words.push(format!("pages={}", word(&format!("{}/{directory}", root.trim_end_matches('/')))));
    let suffixes = match texts(entries, "cache_extensions")? {
        suffixes if suffixes.is_empty() => CACHE_EXTENSION.to_owned(),
        suffixes => suffixes.join(","),
    };
    words.push(format!("suffixes={}", word(&suffixes)));
    Ok(())
}

/// An expression that begins with the path of the folder, as one that begins with that of a request.
fn below_root(expression: &str, root: &str) -> Option<String> {
    let rest = expression.strip_prefix('^')?.strip_prefix(root.trim_end_matches('/'))?;
    rest.starts_with('/').then(|| format!("^{rest}"))
}

/// A folder by its whole path. Below any other the original serves nothing.
fn folder<'e>(
    entries: &'e [Entry],
    name: &str,
    out: &mut Output,
) -> Result<Option<&'e str>, Problem> {
    let Some(node) = find(entries, name) else { return Ok(None) };
    let path = one_line(node, name)?;
    if !path.starts_with('/') {
        out.left_out(node.line, name, "the original served nothing below a relative path");
        return Ok(None);
    }
    Ok(Some(path))
}

/// Writes what is called when a request finds no backend: the last one, as in the original.
pub(super) fn manager(
    entries: &[Entry],
    words: &mut Vec<String>,
    out: &mut Output,
) -> Result<(), Problem> {
    let Some(node) = find(entries, "manager") else { return Ok(()) };
    let Some((last, others)) = node.items().split_last() else { return Ok(()) };
    for other in others {
        out.left_out(other.line, "manager", "the original called only the last one");
    }
    let (site, of_ruby) = match &last.value {
        Value::Map(own) => {
            let of_ruby = ["require", "classname", "params"].map(|name| find(own, name));
            (find(own, "callsite"), of_ruby.into_iter().flatten().next())
        }
        _ => (Some(last), None),
    };
    if let Some(node) = of_ruby {
        let why = "its class is in Ruby: write manager=http://... or manager=exec:/PROGRAM";
        out.left_out(node.line, "manager", why);
        return Ok(());
    }
    let Some(site) = site else {
        return Err(Problem::new(last.line, "manager: there is no callsite"));
    };
    match one_line(site, "manager")? {
        url if url.starts_with("http://") => words.push(format!("manager={}", word(url))),
        _ => out.left_out(site.line, "manager", "only http:// is called, or exec:/PROGRAM"),
    }
    Ok(())
}
