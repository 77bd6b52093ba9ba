//! A hyper application as a backend: nothing listens here, and clients reach it through the proxy.
//!
//! ```sh
//! cargo run --example hyper -- 127.0.0.1:8079 app.example.com
//! curl -H 'Host: app.example.com' http://127.0.0.1:8079/hello
//! ```
//!
//! It serves as many requests at once as it has threads. On Ctrl-C or TERM it ends without losing a
//! request.

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::io;
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread;

use cloudbridge::client::BridgeListener;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// Requests served at once, and so bridges parked at the proxy.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [proxy, host] = &arguments[..] else {
        eprintln!("usage: hyper PROXY[:8079] HOST");
        return ExitCode::from(2);
    };
    match run(proxy, host) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hyper: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(proxy: &str, host: &str) -> io::Result<()> {
    let listener = BridgeListener::builder(proxy).host(host).build()?;
    let mut workers = Vec::new();
    for _ in 0..THREADS {
        let (listener, runtime) = (listener.clone(), one_thread()?);
        workers.push(thread::spawn(move || work(&listener, &runtime)));
    }
    one_thread()?.block_on(termination())?;
    // The proxy closes every idle bridge, and the worker of each ends.
    if let Err(error) = listener.shutdown() {
        eprintln!("hyper: {error}");
    }
    for worker in workers {
        let _ = worker.join();
    }
    Ok(())
}

fn one_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

async fn termination() -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    std::future::poll_fn(|cx| match terminated.poll_recv(cx) {
        std::task::Poll::Pending => interrupted.poll_recv(cx),
        ready => ready,
    })
    .await;
    Ok(())
}

/// Serves one bridge after another, until the listener is shut down.
fn work(listener: &BridgeListener, runtime: &Runtime) {
    for bridge in listener.incoming() {
        let served = bridge.map_err(Into::into).and_then(|bridge| runtime.block_on(serve(bridge)));
        // The proxy refused, or the bridge broke. The listener waits before it dials again.
        if let Err(error) = served {
            eprintln!("hyper: {error}");
        }
    }
}

/// Serves requests until the bridge is closed.
async fn serve(stream: TcpStream) -> Result<(), Box<dyn Error + Send + Sync>> {
    stream.set_nonblocking(true)?;
    let stream = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
    http1::Builder::new().serve_connection(stream, service_fn(answer)).await?;
    Ok(())
}

/// The application.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = format!("{} {}\n", request.method(), request.uri());
    Ok(Response::new(Full::new(Bytes::from(text))))
}
