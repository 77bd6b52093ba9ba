# make run    build, and show a proxy whose backends are stopped and killed (PORT=8079); Ctrl-C ends it
# make test   formatting, lints, all tests, and those of tests/it once more over TLS
# make bench  the benchmark, side by side with haproxy, nginx, sozu and the floor
# make fuzz   looks for inputs that break a parser or an exchange: FUZZ_SECONDS in all, ten minutes
# make soak   the programs under load with faults: SOAK_SECONDS, ten minutes; SEED repeats a run;
#             NIGHTLY=1 also runs a million schedules of the matching
# make upgrades   new programs take over under load, and are killed meanwhile: what that costs
# make guest  the units and the package under a real systemd, in an emulated machine (tests/guest/run)
# make guest-ktls  TLS by the kernel, in an emulated machine whose kernel has it (tests/guest/ktls/run)
# make install, make uninstall   what has been built: PREFIX (/usr/local), DESTDIR; see packaging/install
# make deb    a package for Debian and Ubuntu, in target/debian
# make manuals   writes the option lists of the manual pages and the completions anew, from --help

CARGO ?= cargo
PORT ?= 8079
# Most tests wait for timers, not for a processor.
THREADS ?= 8

.PHONY: all run test check bench fuzz soak upgrades guest guest-ktls install uninstall deb manuals clean

all:
	$(CARGO) build --release

# Where cargo puts the programs, unless its own settings say otherwise.
TARGET ?= $(or $(CARGO_TARGET_DIR),$(CARGO_BUILD_TARGET_DIR),target)
BIN ?= $(TARGET)/release

run:
	@echo "compiling cloudbridge: this takes a minute or two the first time"
	$(CARGO) build --release --bins
	@$(CARGO) run --release --quiet --bin cloudbridge -- demo $(PORT)

test: check
	RUST_TEST_THREADS=$(THREADS) $(CARGO) test --workspace --quiet
	RUST_TEST_THREADS=$(THREADS) CARGO="$(CARGO)" tests/over-tls/run

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings

bench:
	bench/run

fuzz:
	tests/fuzz/run

soak:
ifdef NIGHTLY
	ROUTING_SEEDS=1000000 $(CARGO) test --release --lib --quiet simulation
endif
	$(CARGO) build --release --quiet --bins --example soak-application
	tests/soak/run

upgrades:
	$(CARGO) build --release --quiet --bins
	tests/upgrades/run

guest:
	tests/guest/run

guest-ktls:
	tests/guest/ktls/run

# They run no cargo, so that `sudo make install` needs no toolchain.
install uninstall:
	@BIN='$(BIN)' PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' SYSCONFDIR='$(SYSCONFDIR)' ZSHDIR='$(ZSHDIR)' \
	    packaging/install $@

deb: all
	@TARGET='$(TARGET)' BIN='$(BIN)' packaging/deb

manuals:
	UPDATE_MANUALS=1 $(CARGO) test --quiet --test packaging manuals

clean:
	$(CARGO) clean
