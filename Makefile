# Shortcuts for the commands that developers and operators run. Plain cargo works, too.

CARGO ?= cargo
# Cargo's build directory: CARGO_TARGET_DIR if it is set, otherwise target/.
TARGET = $(or $(CARGO_TARGET_DIR),target)
# The copy of the source in which `make mutants` makes mistakes.
COPY = $(TARGET)/mistakes/source

.DEFAULT_GOAL := help
.PHONY: help

# `##` above a target is its line in this list; `##@` starts a section.
## List the targets.
help:
	@awk '/^##@ / { printf "\n%s\n", substr($$0, 5); next } \
		/^## / { text = substr($$0, 4); next } \
		/^[a-z-]+:/ && text { printf "  %-16s %s\n", substr($$1, 1, length($$1) - 1), text } \
		/^$$/ { text = "" }' $(MAKEFILE_LIST)

##@ Build and test

.PHONY: demo test check bench load validate

## Build the executables and run the whole system on this machine. Options: ARGS="--jobs 50 --duplicate", ARGS=--help
demo:
	$(CARGO) build --workspace
	$(TARGET)/debug/sandbox $(ARGS)

## Run all tests.
test:
	$(CARGO) build --workspace
	$(CARGO) test --workspace --no-fail-fast

## Check formatting and imports, and fail on warnings of rustc, clippy and rustdoc.
check:
	python3 infra/import-cycles
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --workspace --no-deps

# Puts the functions and the agent as they are deployed, and the other executables, into one folder.
define build-measured
$(CARGO) build --workspace --release
AWS_LC_SYS_NO_JITTER_ENTROPY=1 $(CARGO) build --profile deploy --package ingest --package scaler --package janitor --package agent
mkdir -p $(TARGET)/measured
cp $(foreach it,bench load drover stand-in,$(TARGET)/release/$(it)) \
	$(foreach it,ingest scaler janitor agent,$(TARGET)/deploy/$(it)) $(TARGET)/measured
endef

## Measure latency and resource usage of what is deployed, on this machine. The two builds take many minutes.
bench:
	$(build-measured)
	$(TARGET)/measured/bench $(ARGS)

## Find the highest rate of webhook deliveries that ingest keeps up with on this machine.
# With ARGS="--rate 200 --seconds 60 --bad 10000", check that ingest keeps up with that rate instead.
load:
	$(build-measured)
	$(TARGET)/measured/load $(ARGS)

## Run jobs on the real executables, simulate the recorded log with the same pools, and compare: seven minutes.
validate:
	$(CARGO) build --workspace
	$(TARGET)/debug/validate $(ARGS)

##@ Search for faults

.PHONY: simulate mutants mutate exhaustive fuzz chaos

## Simulate many random runs with injected faults in virtual time. Options: ARGS="--seeds 10000"
# Other options: ARGS="--seed 7 --trace", ARGS="--html proof.html", ARGS=--help.
simulate:
	$(CARGO) run --release --package simulator -- $(ARGS)

## Check that the simulator detects every deliberate mistake.
# Each mistake must also stay harmless in runs without injected faults.
# Mistakes in decisions are patched into a copy of the source; those at the ports need no patch.
mutants:
	rm -rf $(COPY) && mkdir -p $(COPY)
	cp -r Cargo.toml Cargo.lock rust-toolchain.toml ingest scaler janitor agent cli shared testing whatif $(COPY)
	patch --directory $(COPY) --strip 1 <testing/simulator/mistakes.patch
	$(CARGO) run --manifest-path $(COPY)/Cargo.toml --target-dir $(TARGET)/mistakes/target --release \
		--package simulator -- --mistakes --seeds 1000 --jobs 100 $(ARGS)

## Test which changed expressions of shared/domain a test notices. For some of them: ARGS="--only policy/decide"
# All of them took 87 minutes on two shared cores. After that, ARGS=--again tries only those that the last run has missed.
mutate:
	command -v cargo-mutants || $(CARGO) install --locked --version 27.1.0 cargo-mutants
	python3 -m venv $(TARGET)/mutate/tools
	$(TARGET)/mutate/tools/bin/pip install --quiet --require-hashes --requirement infra/requirements/mutate.txt
	$(TARGET)/mutate/tools/bin/python infra/mutate $(TARGET)/mutate $(ARGS)

## Fuzz each parser for one minute, or for longer: SECONDS_EACH=600
# These are the parsers of external input and of data that an older version of Drover wrote.
fuzz:
	$(CARGO) build --workspace
	DROVER_FUZZ_SECONDS=$(or $(SECONDS_EACH),60) $(CARGO) test --workspace --test fuzz

## Explore every order of calls in small worlds, and print what happens without one of the safeguards.
# The tests check that an invariant breaks without each of them. One world or one mistake:
# cargo run --release --package simulator -- --exhaustive --world stealing --mistake stale-busy
exhaustive:
	$(CARGO) run --release --package simulator -- --exhaustive
	$(CARGO) test --release --package simulator --test exhaustive

## Run the real functions through storms of faults and outages of each service: ten minutes. For an hour: ARGS="--minutes 60"
chaos:
	$(CARGO) build --workspace
	$(TARGET)/debug/chaos $(ARGS)

.PHONY: diagrams recordings

## Draw the diagrams in docs/images from the scripts beside them.
diagrams:
	python3 docs/images/architecture.py
	python3 docs/images/pickup.py

## Record the README's pictures of demo, explain and dashboard. Needs Python 3.11 and chromium.
recordings:
	$(CARGO) build --workspace
	docs/images/record.py $(TARGET)/debug

##@ Deploy to an AWS account (docs/install.md)

# STACK, ARCH, AUTO, RELEASE, STATE_BUCKET and PARAMETERS come from the environment or the command line.
.PHONY: setup plan infrastructure build-image deploy clean-deploy environment smoke uninstall destroy package prices runner-version check-infra check-image check-deploy verify

## Install the tools that check-infra and deploy need and cargo does not install.
setup:
	infra/setup

## Show what `make infrastructure` would change.
plan:
	infra/infrastructure plan

## Create or update network, roles, launch templates and secrets.
infrastructure:
	infra/infrastructure apply

## Build the runner image. With ARGS=if-new-runner, only if the current image has another version of GitHub's runner.
build-image:
	infra/build-image $(ARGS)

## Deploy functions, queue, tables, schedule and alarms.
deploy:
	infra/deploy

## Deploy after a clean build.
clean-deploy:
	infra/deploy clean

## Print the environment variables that `drover` needs. Use: eval "$(make --silent environment)"
environment:
	@infra/environment

## Check that the deployed stack works.
smoke:
	infra/smoke

## Drain all pools, wait until no machine and no runner is left, then delete everything except the main table.
uninstall:
	infra/uninstall

## Delete everything except the main table, without draining first.
destroy:
	infra/infrastructure destroy

## Build the functions' zip files and print their sizes.
package:
	infra/package

## Print on-demand prices of instance families for `drover cost --prices`. Use: ARGS="eu-central-1 m7a c7g"
prices:
	@infra/prices $(ARGS)

## Print the age of the GitHub runner that the image pins.
runner-version:
	infra/runner-version

## Check template, Terraform, Packer, workflows and scripts without an AWS account.
check-infra:
	infra/check

## Run the image's scripts in a root file system, and boot it in a virtual machine. Needs root on Debian or Ubuntu.
check-image:
	$(CARGO) build --workspace
	BUILT=$(TARGET)/debug infra/check-image

## Follow docs/install.md on an emulator of AWS, run a job and uninstall. With IAM enforced: ARGS=--iam
check-deploy:
	$(CARGO) build --workspace
	EXECUTABLES=$(TARGET)/debug infra/check-deploy $(ARGS)

## Run the checks that take too long for .ci/run, estimated at three hours. For some of them: ARGS="mutants exhaustive"
verify:
	infra/verify $(ARGS)
