# The two commands of the README, and those that keep them honest. Plain cargo works, too.

CARGO ?= cargo
# Where cargo puts what it builds: CARGO_TARGET_DIR if set, else target/.
TARGET = $(or $(CARGO_TARGET_DIR),target)

.PHONY: demo test check bench

## Builds the real executables and runs the whole system on this machine. ARGS="--jobs 50 --duplicate --help"
demo:
	$(CARGO) build --workspace
	$(TARGET)/debug/sandbox $(ARGS)

## The whole test suite.
test:
	$(CARGO) build --workspace
	$(CARGO) test --workspace

## What CI denies: formatting, warnings of rustc, clippy and rustdoc.
check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --workspace --no-deps

## The figures of the README, measured on this machine; a release build, so minutes.
bench:
	$(CARGO) build --workspace --release
	$(TARGET)/release/bench $(ARGS)
