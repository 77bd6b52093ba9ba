# make run    build, start the proxy and an echo backend, and end both on Ctrl-C
# make test   formatting, lints, all tests
# make bench  the benchmark, side by side with haproxy, nginx, sozu and the floor

CARGO ?= cargo
PORT ?= 8079
# Most tests wait for timers, not for a processor.
THREADS ?= 8

.PHONY: all run test check bench install clean

all:
	$(CARGO) build --release

# Where cargo puts the programs, unless its own settings say otherwise.
TARGET ?= $(or $(CARGO_TARGET_DIR),$(CARGO_BUILD_TARGET_DIR),target)

run:
	$(CARGO) build --release --quiet
	@PORT=$(PORT) BIN=$(TARGET)/release sh conf/try.sh

test: check
	RUST_TEST_THREADS=$(THREADS) $(CARGO) test --workspace --quiet

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings

bench:
	bench/run

clean:
	$(CARGO) clean
