#!/bin/sh
# `make run`: the proxy and an echo backend, until Ctrl-C. PORT says where (default 8079).
set -eu
port=${PORT:-8079}
bin=${BIN:-target/release}

"$bin/cloudbridge" "127.0.0.1:$port" &
proxy=$!
# The agent would dial until the proxy is there, and say so; a moment spares the reader that.
sleep 0.3
kill -0 "$proxy"
"$bin/cloudbridge-agent" --echo -n 4 "127.0.0.1:$port" &
agent=$!
# Ctrl-C reaches the proxy by itself; a shell has its background jobs ignore it otherwise.
trap 'kill "$agent"' INT
trap 'kill "$agent" "$proxy"' TERM
echo "try:  curl -i http://127.0.0.1:$port/hello     (Ctrl-C ends it)"
# A trap ends the first wait; the second waits for the proxy to finish what is under way.
wait "$proxy" || wait "$proxy" || true
kill "$agent" 2>/dev/null || true
