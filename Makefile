# The two commands of the README, and those that keep them honest. Plain cargo works, too.

CARGO ?= cargo
# Where cargo puts what it builds: CARGO_TARGET_DIR if set, else target/.
TARGET = $(or $(CARGO_TARGET_DIR),target)

.PHONY: demo test check bench load

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

## The most deliveries a second that ingest keeps up with here; with ARGS="--rate 200 --seconds 60 --bad 10000", whether it
## keeps up with these.
load:
	$(CARGO) build --workspace --release
	$(TARGET)/release/load $(ARGS)

.PHONY: simulate mutants mutate exhaustive fuzz

## Many seeds of a faulty world in virtual time: ARGS="--seeds 10000", "--seed 7 --trace", "--html proof.html", "--help".
simulate:
	$(CARGO) run --release --package simulator -- $(ARGS)

## Every deliberate mistake must be found, and none may show where nothing goes wrong.
mutants:
	$(CARGO) run --release --package simulator --features mutants -- --mutants --seeds 300 --jobs 100 $(ARGS)

## Changes each expression of shared/domain in turn and tells which change no test minds: hours; ARGS="--shard 0/14" takes a
## sample.
mutate:
	command -v cargo-mutants || $(CARGO) install --locked --version 27.1.0 cargo-mutants
	$(CARGO) mutants --package domain --test-package domain,engine,simulator --exclude shared/domain/src/mutant.rs \
		--sharding round-robin --timeout 240 --output $(TARGET) $(ARGS)

## Everything that is read from outside or was written by an older Drover, each for a minute with inputs nobody thought of.
fuzz:
	$(CARGO) build --workspace
	DROVER_FUZZ_SECONDS=60 $(CARGO) test --workspace --test fuzz

## Every order of the calls of three scalers in a small world; then the same world without what keeps it safe.
exhaustive:
	$(CARGO) run --release --package simulator -- --exhaustive
	$(CARGO) test --release --package simulator --features mutants --test exhaustive

# Into an AWS account; docs/install.md explains. STACK, ARCH, AUTO, STATE_BUCKET and PARAMETERS come from the environment or
# the command line.

.PHONY: setup plan infrastructure build-image deploy clean-deploy environment smoke destroy package prices runner-version check-infra

## What cargo does not install: the tools of check-infra and deploy.
setup:
	infra/setup

## What `make infrastructure` would do.
plan:
	infra/infrastructure plan

## Network, roles, launch templates, secrets.
infrastructure:
	infra/infrastructure apply

## The runners' image.
build-image:
	infra/build-image

## Functions, queue, tables, schedule, alarms.
deploy:
	infra/deploy

## The same, built anew.
clean-deploy:
	infra/deploy clean

## What `drover` needs to know: eval "$(make --silent environment)"
environment:
	@infra/environment

## Does it work?
smoke:
	infra/smoke

## All of it away, but the table.
destroy:
	infra/infrastructure destroy

## The functions' zips, and their sizes.
package:
	infra/package

## What families of machines cost in a region, for drover cost --prices: ARGS="eu-central-1 m7a c7g".
prices:
	@infra/prices $(ARGS)

## How old the image's runner is.
runner-version:
	infra/runner-version

## Everything above, checked without an account.
check-infra:
	infra/check
