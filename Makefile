# `make demo` shows it, `make test` proves it. Both install what the machine lacks; see e2e/setup.sh.
.PHONY: demo test modules

# e2e/setup.sh puts Node.js here when the system has none that is new enough.
export PATH := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/parlour/node/bin:$(PATH)

demo:
	@e2e/setup.sh demo
	@$(MAKE) --no-print-directory modules
	@echo "== building Parlour"
	@cargo build --quiet
	@echo "== building the page"
	@npm --prefix web-demo run --silent build
	@exec node e2e/demo.mjs

# The first failure ends it. The calls in Chromium use the server that its own tests have built: another `cargo build` would
# resolve features without theirs, and build half of the dependencies a second time.
test:
	@e2e/setup.sh test
	@echo "== format"
	@cargo fmt --all --check
	@echo "== clippy"
	@cargo clippy --workspace --all-targets --quiet -- -D warnings
	@echo "== tests of the server"
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace; else cargo test --workspace; fi
	@$(MAKE) --no-print-directory modules
	@echo "== tests of the page"
	@npm --prefix web-demo run --silent check
	@npm --prefix web-demo run --silent test
	@npm --prefix web-demo run --silent build
	@echo "== calls in Chromium"
	@node --test --test-concurrency=1 --test-timeout=300000 --test-reporter=spec e2e/tests/*.test.mjs

modules: e2e/node_modules/.package-lock.json web-demo/node_modules/.package-lock.json
	@:

# npm writes this file last.
%/node_modules/.package-lock.json: %/package-lock.json
	@echo "== npm packages of $*"
	@npm --prefix $* ci --silent
	@touch $@
