# Every target does its own set-up: tools are built once, from the modules pinned under tests/tools, into a cache outside of the checkout.
.DEFAULT_GOAL := build
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
.PHONY: build dist demo demo-etcd demo-volumes test check mutants bench soak soak-controller
# Where the archives of `make dist` will be fetched from.
URL := file://$(TARGET)/dist

## build: the release binaries, under target/release; the launcher is static, for images of etcd have no libraries
build:
	cargo build --release --locked -p kubectl-backup
	cargo rustc --release --locked -p etcd-launcher --bin etcd-launcher -- -Ctarget-feature=+crt-static

## dist: under target/dist, what krew installs: a static archive for linux/amd64 and the manifest that names it (URL=: where both are published).
## The C parts need a compiler for each platform: musl-gcc (Debian: musl-tools) here. For arm64 and for darwin, which needs Apple's SDK too, build
## there, and give `dist` those programs as well: OS/ARCH=PROGRAM
MUSL := x86_64-unknown-linux-musl
dist:
	command -v musl-gcc >/dev/null || { echo 'make dist needs musl-gcc: apt-get install musl-tools' >&2; exit 1; }
	rustup target add $(MUSL)
	cargo build --release --locked -p kubectl-backup --target $(MUSL)
	cargo run --locked -q -p tests --bin dist -- $(TARGET)/dist $(URL) linux/amd64=$(TARGET)/$(MUSL)/release/kubectl-backup $(PROGRAMS)

## demo: a control plane is brought up, filled, backed up to a folder, damaged, restored and compared
demo: build
	KUBECTL_BACKUP_BIN=$(TARGET)/release/kubectl-backup cargo run --locked -q -p tests --bin demo

## demo-etcd: on a real node (needs root), a control plane is hosted in pods, its etcd saved, damaged and restored below launchers
demo-etcd: build
	tests/tools/build >/dev/null
	KUBECTL_BACKUP_BIN=$(TARGET)/release/kubectl-backup ETCD_LAUNCHER_BIN=$(TARGET)/release/etcd-launcher cargo run --locked -q -p tests --bin demo-etcd

## demo-volumes: on a real node (needs root), a PostgreSQL under steady writers is backed up between hooks that stop it, destroyed, restored and checked
demo-volumes: build
	tests/tools/build >/dev/null
	KUBECTL_BACKUP_BIN=$(TARGET)/release/kubectl-backup cargo run --locked -q -p tests --bin demo-volumes

## test: everything, against real parts; what the machine lacks is skipped loudly and counted
test:
	tests/tools/build >/dev/null
	.ci/test

## check: what has to hold before a commit
check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

## mutants: with each guard rail of volumes left out, in a build for tests, exactly its own test fails
mutants:
	tests/mutants

## bench: the budgets, side by side with Velero and etcd's own tools in one run; keeps the table in BENCH.md (PARTS=etcd: a part alone, printed)
bench: build
	tests/tools/build >/dev/null
	KUBECTL_BACKUP_BIN=$(TARGET)/release/kubectl-backup ETCD_LAUNCHER_BIN=$(TARGET)/release/etcd-launcher cargo run --locked -q --release -p tests --bin bench $(PARTS)

## soak: the races and faults of the tests, many times over; then the controller for ten minutes of 100 schedules, and beside 5,000 backups, whose
## figures are printed (BENCH.md has them). `make soak-controller`: that alone (PARTS="schedules many": one of them)
soak: build
	tests/tools/build >/dev/null
	for round in 1 2 3 4 5; do KUBECTL_BACKUP_SOAK=20 .ci/test claims:: interrupted:: stores:: point_in_time:: || exit 1; done
	$(MAKE) soak-controller
soak-controller: build
	tests/tools/build >/dev/null
	KUBECTL_BACKUP_BIN=$(TARGET)/release/kubectl-backup cargo run --locked -q --release -p tests --bin soak $(PARTS)
