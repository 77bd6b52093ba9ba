//! A hyper application as a backend: nothing listens here, and clients reach it through the proxy.
//!
//! ```sh
//! cargo run --example hyper -- 127.0.0.1:8079 app.example.com
//! curl -H 'Host: app.example.com' http://127.0.0.1:8079/hello
//! ```
//!
//! On Ctrl-C or TERM it ends without losing a request. Its crate has the feature `tokio` of
//! cloudbridge.

use std::convert::Infallible;
use std::env;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use cloudbridge::client::{AsyncBridgeListener, Bridge, BridgeListener};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::signal::unix::{SignalKind, signal};

/// Requests served at once, and so bridges parked at each proxy.
const CONNECTIONS: usize = 4;

/// How long requests may take after a signal.
const GRACE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [proxies, host] = &arguments[..] else {
        eprintln!("usage: hyper PROXY[:8079][,...] HOST");
        return ExitCode::from(2);
    };
    match run(proxies, host) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hyper: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(proxies: &str, host: &str) -> io::Result<()> {
    // From here on a signal ends it in the announced way, even while it starts.
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let builders = proxies.split(',').map(|proxy| BridgeListener::builder(proxy).host(host));
    let mut bridges = AsyncBridgeListener::several(builders, CONNECTIONS)?;
    let leave = bridges.leave(GRACE);
    let left = tokio::spawn(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        leave.await;
    });
    // Until the proxy has closed the last bridge.
    while let Ok(bridge) = bridges.accept().await {
        tokio::spawn(serve(bridge));
    }
    left.await.map_err(io::Error::other)
}

/// Serves requests until the bridge is closed.
async fn serve(bridge: Bridge) {
    let served = http1::Builder::new().serve_connection(TokioIo::new(bridge), service_fn(answer));
    if let Err(error) = served.with_upgrades().await {
        eprintln!("hyper: {error}");
    }
}

/// The application.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = format!("{} {}\n", request.method(), request.uri());
    Ok(Response::new(Full::new(Bytes::from(text))))
}
