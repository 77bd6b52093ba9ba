//! Pages that an application has stored: Rails' page cache, and Swiftiply's.

use super::tree::Tree;
use crate::common::{Bridge, Client, Setup};

#[test]
fn a_stored_page_is_served_until_it_is_removed() {
    let pages = Tree::new(&[
        ("index.html", "front"),
        ("about.html", "about"),
        ("old.htm", "old"),
        ("posts/1.html", "post"),
        ("posts/index.html", "posts"),
        ("tags.html", "tags"),
        ("feed.xml", "<feed>"),
        ("plain", "plain"),
    ]);
    let proxy = Setup::new()
        .settings(&format!(
            "site a.test pages={} suffixes=html,htm hidden=^/posts/secret",
            pages.path().display()
        ))
        .start();
    let mut client = Client::connect(&proxy);
    for (path, text) in [
        ("/", "front"),
        ("/about", "about"),
        ("/about.html", "about"),
        ("/old", "old"),
        ("/posts/1", "post"),
        ("/posts/", "posts"),
        ("/tags/", "tags"),
        ("/feed.xml", "<feed>"),
    ] {
        client.send_get("a.test", path);
        assert_eq!(client.read_response().text(), text, "{path}");
    }
    pages.write("posts/secret.html", "secret");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for path in
        ["/about?page=2", "/about?", "/plain", "/none", "/posts", "/posts/secret", "/posts/2/"]
    {
        client.send_get("a.test", path);
        assert_eq!(bridge.serve_to(&mut client, "made"), format!("GET {path} HTTP/1.1"));
    }
    // The application expires a page by removing it.
    std::fs::remove_file(pages.path().join("about.html")).unwrap();
    crate::common::eventually("the page is made again", || {
        client.send_get("a.test", "/about");
        let mut made = false;
        crate::common::eventually("an answer", || {
            made = bridge.has_bytes();
            made || client.has_bytes()
        });
        if made {
            bridge.serve("made");
        }
        let text = client.read_response().text();
        assert_eq!(text, if made { "made" } else { "about" });
        made
    });
}

#[test]
fn the_docroot_comes_before_the_pages() {
    let (files, pages) = (
        Tree::new(&[("both.html", "file"), ("only-file", "file")]),
        Tree::new(&[("both.html", "page"), ("index.html", "front")]),
    );
    let proxy = files.serve(&format!("pages={} suffixes=html", pages.path().display()));
    let mut client = Client::connect(&proxy);
    for (path, text) in
        [("/both.html", "file"), ("/only-file", "file"), ("/both", "page"), ("/", "front")]
    {
        client.send_get("a.test", path);
        assert_eq!(client.read_response().text(), text, "{path}");
    }
}
