#!/bin/sh
# `make run`: the proxy and an echo backend, until Ctrl-C. PORT is the port (default 8079).
set -eu
port=${PORT:-8079}
bin=${BIN:-target/release}

"$bin/cloudbridge" "127.0.0.1:$port" &
proxy=$!
# Without the pause the agent may dial before the proxy listens, and would log that it tries again.
sleep 0.3
kill -0 "$proxy"
"$bin/cloudbridge-agent" --echo -n 4 "127.0.0.1:$port" &
agent=$!
# Ctrl-C reaches the proxy directly; background jobs of a shell ignore it otherwise.
trap 'kill "$agent"' INT
trap 'kill "$agent" "$proxy"' TERM
echo "try:  curl -i http://127.0.0.1:$port/hello     (Ctrl-C ends it)"
# A trap interrupts the first wait; the second waits until the proxy has drained.
wait "$proxy" || wait "$proxy" || true
kill "$agent" 2>/dev/null || true
