//! An axum application as a backend: nothing listens here, and clients reach it through the proxy.
//!
//! ```sh
//! cargo run --example axum -- 127.0.0.1:8079 app.example.com
//! curl -H 'Host: app.example.com' http://127.0.0.1:8079/hello
//! ```
//!
//! On Ctrl-C or TERM it ends without losing a request. Its crate has the feature `axum` of
//! cloudbridge.

use std::env;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::routing::{any, post};
use cloudbridge::client::{AsyncBridgeListener, BridgeListener};
use tokio::signal::unix::{SignalKind, signal};

/// Requests served at once, and so bridges parked at each proxy.
const CONNECTIONS: usize = 4;

/// How long requests may take after a signal.
const GRACE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [proxies, host] = &arguments[..] else {
        eprintln!("usage: axum PROXY[:8079][,...] HOST");
        return ExitCode::from(2);
    };
    match run(proxies, host) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("axum: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(proxies: &str, host: &str) -> io::Result<()> {
    let app =
        Router::new().route("/echo", post(|body: Bytes| async { body })).fallback(any(answer));
    // From here on a signal ends it in the announced way, even while it starts.
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let builders = proxies.split(',').map(|proxy| BridgeListener::builder(proxy).host(host));
    let bridges = AsyncBridgeListener::several(builders, CONNECTIONS)?;
    let leave = bridges.leave(GRACE);
    axum::serve(bridges, app)
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
            // It goes on serving until the proxy has closed the last bridge.
            leave.await;
        })
        .await
}

async fn answer(request: Request) -> String {
    format!("{} {}\n", request.method(), request.uri())
}
