//! A chunked body goes by, by size of its chunks: looked through as it is passed on, or with the
//! coding taken off for a client of HTTP/1.0. It comes in reads of the size of a worker's scratch
//! buffer, as in the proxy.

mod common;

use std::hint::black_box;

use cloudbridge::exchange::body_pump::{BodyPump, Form};
use cloudbridge::http::Framing;
use criterion::{BenchmarkId, Criterion, Throughput};

/// Bytes of data in the body.
const BODY: usize = 256 * 1024;

/// Bytes that come at once.
const READ: usize = 64 * 1024;

fn body(chunk: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..BODY / chunk {
        bytes.extend_from_slice(format!("{chunk:x}\r\n").as_bytes());
        bytes.resize(bytes.len() + chunk, b'x');
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Has a flow take the whole body; `out` holds what one read came to.
fn pass(bytes: &[u8], form: Form, out: &mut Vec<u8>) -> u64 {
    let mut flow = BodyPump::new(Framing::Chunked, form).expect("there is a body");
    for read in bytes.chunks(READ) {
        out.clear();
        let taken = flow.take(read, out).expect("a good body");
        debug_assert_eq!(taken, read.len());
        black_box(&*out);
    }
    assert!(flow.is_done());
    flow.moved()
}

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunks");
    group.throughput(Throughput::Bytes(BODY as u64));
    let mut out = Vec::with_capacity(READ);
    for chunk in [16, 64, 256, 1024, 4 * 1024, 16 * 1024, 64 * 1024] {
        let bytes = body(chunk);
        for (name, form) in [("scan", Form::AsFramed), ("decode", Form::DataOnly)] {
            group.bench_with_input(BenchmarkId::new(name, chunk), &bytes, |b, bytes| {
                b.iter(|| pass(black_box(bytes), form, &mut out));
            });
        }
    }
    group.finish();
}

fn main() {
    let mut c = common::criterion();
    chunks(&mut c);
    c.final_summary();
}
