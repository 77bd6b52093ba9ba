//! A head is parsed and written anew, as every request and every response is once: by kind of head.

mod common;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use cloudbridge::http::rewrite::{self, Forwarded, Toward, Via};
use cloudbridge::http::{Limits, Version, request, response};
use criterion::{BenchmarkId, Criterion, Throughput};

/// What wrk sends.
const SMALL_REQUEST: &str = "GET / HTTP/1.1\r\nHost: a.bench\r\n\r\n";

/// What a browser sends behind a proxy that terminates TLS.
const BROWSER_REQUEST: &str = "GET /articles/2024/a-rather-long-title?utm_source=feed HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://www.example.com/articles/\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes\r\n\
    X-Forwarded-For: 203.0.113.9\r\n\
    X-Forwarded-Proto: https\r\n\r\n";

/// What the benchmark's backend answers.
const SMALL_RESPONSE: &str = "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\n\
    Content-Length: 64\r\n\r\n";

/// What an application server answers.
const USUAL_RESPONSE: &str = "HTTP/1.1 200 OK\r\n\
    Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n\
    Server: application\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Transfer-Encoding: chunked\r\n\
    Connection: keep-alive\r\n\
    Keep-Alive: timeout=75\r\n\
    Cache-Control: private, max-age=0, must-revalidate\r\n\
    ETag: W/\"0123456789abcdef\"\r\n\
    Vary: Accept-Encoding, Cookie\r\n\
    Content-Encoding: gzip\r\n\
    Set-Cookie: session=0123456789abcdef0123456789abcdef; Path=/; HttpOnly; Secure; SameSite=Lax\r\n\
    X-Request-Id: 7b0c7a52-4f7e-4c57-9b0e-2f0a5d5f3c11\r\n\
    Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n\r\n";

/// `start` and fields of ordinary length, `count` in all with those of `start`.
fn with_fields(start: &str, count: usize) -> String {
    let mut head = start.to_owned();
    for number in start.matches("\r\n").count() - 1..count {
        head.push_str(&format!(
            "X-Field-Number-{number}: value number {number} of some length\r\n"
        ));
    }
    head.push_str("\r\n");
    head
}

fn requests(c: &mut Criterion) {
    let many = with_fields("GET / HTTP/1.1\r\nHost: a.bench\r\n", 50);
    let heads = [("small", SMALL_REQUEST), ("browser", BROWSER_REQUEST), ("50 fields", &many)];
    let (limits, mut out) = (Limits::default(), Vec::with_capacity(16 * 1024));
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let via = Via::new(client, Forwarded::Append);
    let mut group = c.benchmark_group("request");
    for (name, head) in heads {
        let bytes = head.as_bytes();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("parse", name), bytes, |b, bytes| {
            b.iter(|| {
                let mut storage = request::storage();
                let parsed = request::parse(black_box(bytes), &mut storage, &limits);
                parsed.is_ok_and(|whole| whole.is_some())
            });
        });
        group.bench_with_input(BenchmarkId::new("parse and rewrite", name), bytes, |b, bytes| {
            b.iter(|| {
                let mut storage = request::storage();
                let parsed = request::parse(black_box(bytes), &mut storage, &limits);
                let whole = parsed.expect("a good head").expect("a whole head");
                out.clear();
                rewrite::request(&mut out, &whole, &via);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn responses(c: &mut Criterion) {
    let many = with_fields("HTTP/1.1 200 OK\r\nContent-Length: 64\r\n", 50);
    let heads = [("small", SMALL_RESPONSE), ("usual", USUAL_RESPONSE), ("50 fields", &many)];
    let (limits, mut out) = (Limits::default(), Vec::with_capacity(16 * 1024));
    let toward = Toward { version: Version::V11, close: false, decode_chunked: false };
    let mut group = c.benchmark_group("response");
    for (name, head) in heads {
        let bytes = head.as_bytes();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("parse and rewrite", name), bytes, |b, bytes| {
            b.iter(|| {
                let mut storage = response::storage();
                let parsed = response::parse(black_box(bytes), &mut storage, &limits, false);
                let whole = parsed.expect("a good head").expect("a whole head");
                out.clear();
                rewrite::response(&mut out, &whole, &toward);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn main() {
    let mut c = common::criterion();
    requests(&mut c);
    responses(&mut c);
    c.final_summary();
}
