#!/bin/sh
# `make run`: the proxy and an echo backend, until Ctrl-C. PORT says where (default 8079).
set -eu
port=${PORT:-8079}
bin=${BIN:-target/release}

"$bin/cloudbridge" "127.0.0.1:$port" &
proxy=$!
trap 'kill "$proxy" ${agent:+"$agent"} 2>/dev/null; wait' EXIT
trap 'exit 0' INT TERM
# The agent dials until the proxy is there.
"$bin/cloudbridge-agent" --echo -n 4 "127.0.0.1:$port" &
agent=$!
kill -0 "$proxy"
echo "try:  curl -i http://127.0.0.1:$port/hello     (Ctrl-C ends it)"
wait "$proxy"
