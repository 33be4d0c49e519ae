# Every target works on a bare Linux or macOS machine with Rust, and is quick when nothing changed.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PREFIX ?= /usr/local
TARGET := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET)/release/mlx-cache
PACKAGES := $(TARGET)/package

.PHONY: help setup build demo test lint macos fuzz sanitize install uninstall package clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## Prepare what the build needs (Linux: the MLX library; macOS: nothing)
	@native/setup.sh

build: setup ## Build the program: target/release/mlx-cache
	@cargo build --release --locked

demo: build ## Show the main job on a real model, in a store of its own under target/
	@tests/models.sh "$(TARGET)/models"
	@tests/demo.sh "$(abspath $(BINARY))" "$(abspath $(TARGET))"

test: setup ## Run every test
	@tests/models.sh "$(TARGET)/models"
	@tests/python.sh "$(TARGET)/python"
	@tests/tools.sh
	@MLX_CACHE_TEST_MODELS="$(abspath $(TARGET)/models)" MLX_CACHE_TEST_PYTHON="$(abspath $(TARGET)/python)" \
	  cargo test --release --locked

lint: setup ## Check format and lints
	@cargo fmt --all --check
	@cargo clippy --release --locked --all-targets -- -D warnings

macos: setup ## Check on Linux that everything compiles for macOS (fetches zig and Rust's library for it)
	@native/check-macos.sh

fuzz: setup ## Feed each reader of hostile bytes with random ones, FUZZ_SECONDS=30 each (needs a nightly Rust)
	@fuzz/run.sh "$(or $(FUZZ_SECONDS),30)"

sanitize: setup ## Run the tests of unsafe code with AddressSanitizer (Linux; needs a nightly Rust)
	@tests/sanitize.sh

install: build ## Install below PREFIX (default /usr/local)
	@native/install.sh "$(BINARY)" "$(TARGET)/native" "$(DESTDIR)$(PREFIX)"

package: build ## Pack what install installs: target/package/mlx-cache-VERSION-SYSTEM.tar.gz
	@native/pack.sh "$(BINARY)" "$(TARGET)/native" "$(PACKAGES)"

uninstall: ## Remove what install put below PREFIX
	@cd "$(DESTDIR)$(PREFIX)" && rm -rf bin/mlx-cache lib/mlx-cache share/man/man1/mlx-cache.1 \
		share/man/man1/mlx-cache-*.1 share/bash-completion/completions/mlx-cache \
		share/zsh/site-functions/_mlx-cache share/fish/vendor_completions.d/mlx-cache.fish

clean: ## Remove everything that was built or fetched
	@cargo clean
