# A menu. Each dish installs what it needs: a virtual environment in .venv, and Debian packages when run as root.
SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV   := .venv
BIN    := $(VENV)/bin
BASE   := $(VENV)/.base
STAMP  := $(VENV)/.installed
# Debian's own python3.11 or newer; whatever else is on PATH comes second.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11) python3)
OUT    ?= demo

# Programs that judge our output in the tests, and what golden images are built and booted with; other judges are
# unpacked by the tests themselves.
JUDGE_PACKAGES := dnsmasq-base dosfstools e2fsprogs faketime fdisk genisoimage grub-efi-amd64-bin grub-pc-bin haproxy \
  iproute2 iptables mmdebstrap mtools nftables openssh-client \
  openssl ovmf qemu-system-x86 qemu-utils shellcheck squashfs-tools systemd uidmap util-linux xorriso

# What golden images are built with, and booted with in the lab.
DEMO_PACKAGES := dnsmasq-base dosfstools e2fsprogs fdisk grub-efi-amd64-bin grub-pc-bin iproute2 mmdebstrap mtools \
  openssh-client qemu-system-x86 qemu-utils util-linux

.PHONY: help demo test boots check lint bench docs mirror wheel clean

help: ## show this menu
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' Makefile

demo: $(BASE) ## boot the quickstart cluster on this machine, from nothing, and leave it running
	@$(call need,$(DEMO_PACKAGES),exit 3)
	@PYTHONPATH=.ci $(BIN)/python -m rundemo $(OUT)

# A module stays in one process, so that dear fixtures are made once. Machines come second: they would slow the real
# daemons of the first part down until these look broken. Clusters come last, one after the other: two at a time take
# each other's processors until an etcd waits for longer than a lease lasts.
test: $(STAMP) packages parts ## run the tests: unit, faults, foreign judges, real control planes, booted machines
	$(BIN)/pytest -n 2 --dist loadfile -m "not vm and not long"
	$(BIN)/pytest -n 2 -m "vm and not cluster and not long"
	$(BIN)/pytest -m "cluster and not long"
	@echo "not run: tests that boot more clusters, build many images or take long; make boots runs them"

boots: $(STAMP) packages parts ## run the tests that take long: more clusters, power cuts, attacks, whole images over and over; 30 GB of disk
	$(BIN)/pytest -m long

check: $(STAMP) ## format, lint, types, fast tests: under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=.ci $(BIN)/mypy --strict -p mirror -m rundemo
	$(BIN)/pytest -n 2 -q -m "not judge and not vm and not process and not slow and not long"

lint: $(STAMP) ## format, lint and types, repaired where that is safe
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy
	$(BIN)/yamllint --strict profiles examples

bench: $(STAMP) packages parts ## measure speed and memory against the targets
	$(BIN)/python -m benchmarks

docs: $(STAMP) ## build the documentation into ./site
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

mirror: $(STAMP) ## build a mirror of the release sites from source into ~/.cache/imagegen/mirror
	@PYTHONPATH=.ci $(BIN)/python -m mirror

wheel: $(STAMP) ## build the wheel into ./dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls -l dist

clean: ## remove what make made, but never a secret store
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist site

# $(call need,PACKAGES,OTHERWISE): install what is missing as root; else say how, and go on with OTHERWISE.
define need
missing=""; for package in $(1); do \
  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'install ok' || missing="$$missing $$package"; done; \
if [ -z "$$missing" ]; then :; \
elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
else echo "not installed:$$missing"; echo "  sudo apt-get install --no-install-recommends$$missing"; $(2); fi
endef

# What the tests boot: of the quickstart's version and of 1.20.2, made from source once when it is not there.
.PHONY: parts
parts: $(STAMP)
	@if [ -n "$$IMAGEGEN_MIRROR" ]; then :; \
	elif PYTHONPATH=.ci $(BIN)/python -m mirror --for tests --plan >/dev/null; then :; \
	else echo "building Kubernetes for the tests from source, once: perhaps 25 minutes on two cores"; \
	  PYTHONPATH=.ci $(BIN)/python -m mirror --for tests || \
	  echo "!!! no mirror of the release sites (see above): the tests that boot clusters will be SKIPPED"; fi

.PHONY: packages
packages:
	@$(call need,$(JUDGE_PACKAGES),echo "tests that need them will be skipped")

# imagegen alone is enough for the demo; the tools of the tests come on top.
$(BASE): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "python 3.11 or newer is needed: apt-get install python3 python3-venv"; exit 3; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11; set PYTHON="; exit 3; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv >/dev/null; \
	  else echo "python's venv is missing: sudo apt-get install python3-venv"; exit 3; fi; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing imagegen into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $(BASE)

$(STAMP): $(BASE)
	@echo "installing the tools of the tests into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)
