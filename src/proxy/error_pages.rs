//! The bodies of the proxy's own answers to clients: a page of the settings, JSON, or the plain
//! line.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;

use crate::config::{ErrorPage, PageMedia, Settings, Source};
use crate::http::accept::ErrorForm;
use crate::http::request::Request;
use crate::http::{Reply, reason as phrase};

use super::reason::Reason;

/// Longest page, in bytes.
const PAGE_MAX: u64 = 64 << 10;

/// The waiting page of sites without one of their own.
const WAITING: &str = include_str!("waiting_page.html");

/// How much of a request's ID is shown, in characters.
const ID_SHOWN: usize = 128;

/// The pages of the settings, as they were read.
#[derive(Default, PartialEq, Eq)]
pub(super) struct ErrorPages {
    all: Vec<Page>,
    /// By the sites' names.
    sites: Vec<(String, Vec<Page>)>,
    /// Waiting pages, by the sites' names.
    waiting: Vec<(String, Page)>,
}

/// What an answer tells, beside its status.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) status: u16,
    pub(super) reason: Reason,
    /// The plain line.
    pub(super) detail: &'a str,
}

/// What is known of the request that is answered; nothing if its head could not be parsed.
#[derive(Default)]
pub(super) struct Asked<'a> {
    /// In lower case.
    pub(super) host: Cow<'a, str>,
    pub(super) request_id: Cow<'a, str>,
    json: Option<JsonForm>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum JsonForm {
    Plain,
    Problem,
}

/// A body in place of the plain line.
#[derive(Debug)]
pub(super) struct Body {
    text: String,
    content_type: &'static str,
}

#[derive(PartialEq, Eq)]
struct Page {
    statuses: Vec<u16>,
    media: PageMedia,
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Value),
}

/// What stands in braces in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Status,
    Reason,
    Detail,
    Host,
    RequestId,
}

const VALUES: [(&str, Value); 5] = [
    ("{status}", Value::Status),
    ("{reason}", Value::Reason),
    ("{detail}", Value::Detail),
    ("{host}", Value::Host),
    ("{request_id}", Value::RequestId),
];

impl<'a> Asked<'a> {
    pub(super) fn of(request: &Request<'a, '_>) -> Asked<'a> {
        let values = |name: &'static str| {
            let named = request.fields.iter().filter(|f| f.name.eq_ignore_ascii_case(name));
            named.map(|field| field.value)
        };
        let json = match ErrorForm::of(values("Accept")) {
            ErrorForm::Text => None,
            ErrorForm::Json => Some(JsonForm::Plain),
            ErrorForm::Problem => Some(JsonForm::Problem),
        };
        Asked {
            host: request.host.to_ascii_lowercase().into(),
            request_id: String::from_utf8_lossy(values("X-Request-Id").next().unwrap_or_default()),
            json,
        }
    }

    fn shown_id(&self) -> &str {
        let end = self.request_id.char_indices().nth(ID_SHOWN);
        end.map_or(&*self.request_id, |(end, _)| &self.request_id[..end])
    }
}

impl Body {
    /// The same answer with this body.
    pub(super) fn dress<'a>(&'a self, reply: Reply<'a>) -> Reply<'a> {
        Reply { text: &self.text, content_type: self.content_type, ..reply }
    }
}

impl ErrorPages {
    /// Reads the pages that the settings name.
    ///
    /// # Errors
    /// What is wrong with the files, one sentence each.
    pub(super) fn read(settings: &Settings, source: &Source) -> Result<ErrorPages, Vec<String>> {
        let mut wrong = Vec::new();
        let mut read = |pages: &[ErrorPage]| -> Vec<Page> {
            let pages = pages.iter().map(|page| Page::read(page, source));
            pages.filter_map(|page| page.map_err(|problem| wrong.push(problem)).ok()).collect()
        };
        let all = read(&settings.error_page);
        let with_pages = settings.site.iter().filter(|site| !site.error_pages.is_empty());
        let sites =
            with_pages.map(|site| (site.name().to_owned(), read(&site.error_pages))).collect();
        let mut waiting = Vec::new();
        for site in &settings.site {
            let Some(file) = site.on_demand.page.clone() else { continue };
            let page = ErrorPage { statuses: Vec::new(), file, media: PageMedia::Html };
            match Page::read(&page, source) {
                Ok(page) => waiting.push((site.name().to_owned(), page)),
                Err(problem) => wrong.push(problem),
            }
        }
        if wrong.is_empty() { Ok(ErrorPages { all, sites, waiting }) } else { Err(wrong) }
    }

    /// What a browser sees while it waits.
    pub(super) fn waiting(&self, site: Option<&str>, asked: &Asked<'_>, told: &Told<'_>) -> Body {
        let own = self.waiting.iter().find(|(name, _)| Some(name.as_str()) == site);
        match own {
            Some((_, page)) => page.body(asked, told),
            None => Page::built_in(WAITING).body(asked, told),
        }
    }

    /// Whether a site has pages of its own.
    pub(super) fn has_sites(&self) -> bool {
        !self.sites.is_empty()
    }

    /// The body of an answer to what was asked; `None` for the plain line.
    pub(super) fn body(
        &self,
        site: Option<&str>,
        asked: &Asked<'_>,
        told: &Told<'_>,
    ) -> Option<Body> {
        let own = site.and_then(|name| self.sites.iter().find(|(site, _)| site == name));
        let scopes = [own.map_or(&[][..], |(_, pages)| pages), &self.all];
        let find = |json: bool| {
            let fits = |page: &&Page| {
                page.statuses.contains(&told.status) && (page.media == PageMedia::Json) == json
            };
            scopes.map(|pages| pages.iter().find(fits))
        };
        let [own_json, json] = find(true);
        let page = match asked.json {
            Some(_) => own_json.or(json),
            None => {
                let [own_text, text] = find(false);
                own_text.or(own_json).or(text).or(json)
            }
        };
        match (page, asked.json) {
            (Some(page), _) => Some(page.body(asked, told)),
            (None, Some(form)) => Some(problem(form, asked, told)),
            (None, None) => None,
        }
    }
}

impl Page {
    fn read(page: &ErrorPage, source: &Source) -> Result<Page, String> {
        let shown = page.file.display();
        let text = source
            .kept
            .or(&page.file, read_bounded(&page.file), |kept| Ok(kept.to_vec()))
            .map_err(|error| format!("error-page: cannot read {shown}: {error}"))?;
        if text.len() as u64 > PAGE_MAX {
            return Err(format!("error-page: {shown} is longer than {PAGE_MAX} bytes"));
        }
        let text =
            String::from_utf8(text).map_err(|_| format!("error-page: {shown} is not UTF-8"))?;
        // A line end is added when it is sent.
        let parts = parts_of(text.strip_suffix('\n').unwrap_or(&text));
        Ok(Page { statuses: page.statuses.clone(), media: page.media, parts })
    }

    fn built_in(text: &str) -> Page {
        let parts = parts_of(text.trim_end());
        Page { statuses: Vec::new(), media: PageMedia::Html, parts }
    }

    fn body(&self, asked: &Asked<'_>, told: &Told<'_>) -> Body {
        let mut text = String::new();
        for part in &self.parts {
            let value = match part {
                Part::Text(part) => {
                    text.push_str(part);
                    continue;
                }
                Part::Value(Value::Status) => told.status.to_string(),
                Part::Value(Value::Reason) => told.reason.word().to_owned(),
                Part::Value(Value::Detail) => told.detail.to_owned(),
                Part::Value(Value::Host) => asked.host.to_string(),
                Part::Value(Value::RequestId) => asked.shown_id().to_owned(),
            };
            match self.media {
                PageMedia::Html => escape_html(&value, &mut text),
                PageMedia::Json => {
                    let quoted = quoted(&value);
                    text.push_str(&quoted[1..quoted.len() - 1]);
                }
                PageMedia::Text => text.push_str(&value),
            }
        }
        let content_type = match self.media {
            PageMedia::Html => "text/html; charset=utf-8",
            PageMedia::Json => "application/json",
            PageMedia::Text => "text/plain; charset=utf-8",
        };
        Body { text, content_type }
    }
}

/// The file, and no more of it than shows that it is too long.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    // Opening a FIFO would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(PAGE_MAX + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Splits a page at the values in it. Other braces are text.
fn parts_of(mut text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    while let Some(at) = text.find('{') {
        plain.push_str(&text[..at]);
        text = &text[at..];
        if let Some((name, value)) = VALUES.iter().find(|(name, _)| text.starts_with(name)) {
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Value(*value));
            text = &text[name.len()..];
        } else {
            plain.push('{');
            text = &text[1..];
        }
    }
    plain.push_str(text);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    parts
}

/// The object of RFC 9457. Without a `type`, its title is the phrase of the status (section 4.2.1).
fn problem(form: JsonForm, asked: &Asked<'_>, told: &Told<'_>) -> Body {
    let Told { status, reason, detail } = told;
    let mut text = format!(
        "{{\"title\":{},\"status\":{status},\"reason\":{},\"detail\":{}",
        quoted(phrase(*status)),
        quoted(reason.word()),
        quoted(detail),
    );
    for (name, value) in [("host", &*asked.host), ("request_id", asked.shown_id())] {
        if !value.is_empty() {
            text.push_str(&format!(",\"{name}\":{}", quoted(value)));
        }
    }
    text.push('}');
    let content_type = match form {
        JsonForm::Plain => "application/json",
        JsonForm::Problem => "application/problem+json",
    };
    Body { text, content_type }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn escape_html(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: Told<'_> =
        Told { status: 503, reason: Reason::QueueFull, detail: "too many \"wait\"" };

    fn asked(json: Option<JsonForm>) -> Asked<'static> {
        Asked { host: "a.test".into(), request_id: "<1\">".into(), json }
    }

    fn page(media: PageMedia, text: &str) -> Page {
        Page { statuses: vec![503], media, parts: parts_of(text) }
    }

    #[test]
    fn values_are_escaped_for_what_the_page_is() {
        let text = "a{color:red} {status} {reason} {detail} {host} {request_id} {{status}} {x";
        let text_of = |media| page(media, text).body(&asked(None), &TOLD).text;
        assert_eq!(
            text_of(PageMedia::Text),
            "a{color:red} 503 queue-full too many \"wait\" a.test <1\"> {503} {x"
        );
        assert_eq!(
            text_of(PageMedia::Html),
            "a{color:red} 503 queue-full too many &quot;wait&quot; a.test &lt;1&quot;&gt; {503} {x"
        );
        assert_eq!(
            text_of(PageMedia::Json),
            "a{color:red} 503 queue-full too many \\\"wait\\\" a.test <1\\\"> {503} {x"
        );
    }

    #[test]
    fn the_sites_page_comes_first_and_json_is_for_those_who_ask() {
        use PageMedia::{Html, Json, Text};
        let name = |pages: &ErrorPages, site, json| {
            pages.body(site, &asked(json), &TOLD).map(|body| body.text)
        };
        let (json, own) = (Some(JsonForm::Plain), Some("s"));
        let mut pages = ErrorPages::default();
        assert_eq!(name(&pages, own, None), None);
        pages.all.push(page(Json, "all.json"));
        assert_eq!(name(&pages, own, None).as_deref(), Some("all.json"));
        pages.all.push(page(Html, "all.html"));
        assert_eq!(name(&pages, own, None).as_deref(), Some("all.html"));
        pages.sites.push(("s".to_owned(), vec![page(Text, "own.txt")]));
        assert_eq!(name(&pages, own, None).as_deref(), Some("own.txt"));
        assert_eq!(name(&pages, own, json).as_deref(), Some("all.json"));
        assert_eq!(name(&pages, Some("other"), None).as_deref(), Some("all.html"));
        pages.all[1].statuses = vec![404];
        assert_eq!(name(&pages, None, None).as_deref(), Some("all.json"));
    }

    #[test]
    fn the_default_for_json_is_a_problem() {
        let pages = ErrorPages::default();
        let body = pages.body(None, &asked(Some(JsonForm::Problem)), &TOLD).unwrap();
        assert_eq!(body.content_type, "application/problem+json");
        assert_eq!(
            body.text,
            "{\"title\":\"Service Unavailable\",\"status\":503,\"reason\":\"queue-full\",\
             \"detail\":\"too many \\\"wait\\\"\",\"host\":\"a.test\",\"request_id\":\"<1\\\">\"}"
        );
        let none = Asked { json: Some(JsonForm::Plain), ..Asked::default() };
        let body = pages.body(None, &none, &TOLD).unwrap();
        assert_eq!(body.content_type, "application/json");
        assert!(body.text.ends_with("\\\"wait\\\"\"}"), "{}", body.text);
    }

    #[test]
    fn an_id_is_cut_at_a_whole_character() {
        let asked = Asked { request_id: "é".repeat(500).into(), ..Asked::default() };
        assert_eq!(asked.shown_id().chars().count(), ID_SHOWN);
    }
}
