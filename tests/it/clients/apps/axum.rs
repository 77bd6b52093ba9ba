//! The application of the tests, as an axum program.

use std::env;
use std::io;
use std::io::Read;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use axum::routing::any;
use cloudbridge::client::{AsyncBridgeListener, BridgeListener};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    env_logger::Builder::new().filter_level(log::LevelFilter::Warn).init();
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let listed = |name: &str| {
        let all = variable(name);
        let list: Vec<String> = all.split(',').map(str::to_owned).collect();
        list.into_iter().filter(|one| !one.is_empty())
    };
    let builder = |proxy: String| {
        let builder = BridgeListener::builder(proxy);
        let builder = listed("BRIDGE_HOSTS").fold(builder, |builder, host| builder.host(host));
        let builder = listed("BRIDGE_KEYS").fold(builder, |builder, key| builder.key(key));
        let builder = builder.bearer_keys(variable("BRIDGE_BEARER_KEYS") == "yes");
        let builder = match variable("BRIDGE_CA").as_str() {
            "" => builder,
            ca => builder.ca(ca),
        };
        let builder = match variable("BRIDGE_SERVER_NAME").as_str() {
            "" => builder,
            name => builder.server_name(name),
        };
        match variable("BRIDGE_CLIENT_CERT").split_once(',') {
            None => builder,
            Some((chain, key)) => builder.client_cert(chain, key),
        }
    };
    let connections = variable("CONNECTIONS").parse::<usize>().map_err(io::Error::other)?;
    // Before it says a word: a test sends the signal once it has.
    let mut terminated = signal(SignalKind::terminate())?;
    let bridges = AsyncBridgeListener::several(listed("PROXIES").map(builder), connections)?;
    let app = Router::new()
        .route("/lines/{count}", any(lines))
        .route("/wait", any(wait))
        .route("/unread", any(|| async { "not read" }))
        .route("/forged", any(forged))
        .route("/fields", any(fields))
        .route("/tunnel", any(tunnel))
        .fallback(any(answer));
    let leave = bridges.leave(Duration::from_secs(30));
    let ending = async move {
        terminated.recv().await;
        leave.await;
    };
    axum::serve(bridges, app).with_graceful_shutdown(ending).await?;
    println!("stopped");
    Ok(())
}

async fn answer(method: Method, uri: Uri, fields: HeaderMap, body: Bytes) -> Bytes {
    if method == Method::POST {
        return body;
    }
    let host = fields.get("host").and_then(|host| host.to_str().ok());
    format!("{method} {uri} for {}", host.unwrap_or_default()).into()
}

async fn lines(Path(count): Path<usize>) -> String {
    (0..count).map(|number| format!("{number:015}\n")).collect()
}

async fn wait() -> &'static str {
    println!("waiting");
    let read = || io::stdin().read(&mut [0; 16]);
    let _ = tokio::task::spawn_blocking(read).await;
    "waited"
}

async fn forged(_body: Bytes) -> (StatusCode, [(HeaderName, &'static str); 1], &'static str) {
    let field = HeaderName::from_static("cloudbridge-undelivered");
    (StatusCode::SERVICE_UNAVAILABLE, [(field, "application")], "forged")
}

async fn fields(fields: HeaderMap) -> String {
    let names: Vec<&str> = fields.keys().map(HeaderName::as_str).collect();
    names.join(" ")
}

/// Its end answers when the client has ended its side.
async fn tunnel(request: Request) -> (StatusCode, [(&'static str, &'static str); 2]) {
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.map_err(io::Error::other)?;
        let (mut stream, mut said) = (TokioIo::new(upgraded), Vec::new());
        stream.read_to_end(&mut said).await?;
        said.extend_from_slice(b" and done");
        stream.write_all(&said).await?;
        stream.shutdown().await
    });
    (StatusCode::SWITCHING_PROTOCOLS, [("upgrade", "echo"), ("connection", "Upgrade")])
}
