# Weft: every command a developer or operator runs from a checkout. `make help` lists them.
SHELL := /bin/bash
BUILD := build
PYTHON ?= python3
VENV := $(BUILD)/venv
PY := $(VENV)/bin/python
TREE := $(BUILD)/tree/weft
PYTEST := $(PY) -m pytest -p no:cacheprovider
# A file's tests share its labs and stay together; files run beside each other, one for each CPU.
BESIDE := -n auto --dist loadfile

# What Debian or Ubuntu must carry: BCC and its headers to compile, the rest to wire and to look.
PACKAGES := python3-bpfcc linux-headers-amd64 libbpf1 gcc libc6-dev iproute2 nftables iptables tcpdump iputils-ping procps mmdebstrap

.PHONY: help packages venv tree lint type test test-long test-unit test-netns demo bench clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

packages: $(BUILD)/.packages ## what the machine must carry (Debian or Ubuntu, root)
$(BUILD)/.bench-packages: PACKAGES := iperf3
$(BUILD)/.packages $(BUILD)/.bench-packages:
	@mkdir -p $(BUILD)
	@command -v apt-get >/dev/null || { echo "Weft builds on Debian or Ubuntu; elsewhere install: $(PACKAGES)"; exit 1; }
	@missing=; for p in $(PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	  if [ -n "$$missing" ]; then \
	    [ "$$(id -u)" = 0 ] || { echo "missing packages:$$missing (run as root, or apt-get install them)"; exit 1; }; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  fi
	@touch $@

tree: $(TREE) ## weft.* importable from the checkout, without installing it
$(TREE):
	mkdir -p $(TREE)
	for p in bpf cni proxy cli; do ln -sfn ../../../$$p $(TREE)/$$p; done

venv: $(VENV)/.done ## the interpreter that every other command uses
$(VENV)/.done: requirements/dev.txt | $(TREE)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --require-hashes -r requirements/dev.txt
	echo "$(CURDIR)/$(BUILD)/tree" > $$($(PY) -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/weft-tree.pth
	printf '#!%s\nimport sys\nfrom weft.cli.__main__ import main\nsys.exit(main())\n' "$(CURDIR)/$(PY)" > $(VENV)/bin/weft
	printf '#!%s\nimport sys\nfrom weft.proxy.__main__ import main\nsys.exit(main())\n' "$(CURDIR)/$(PY)" > $(VENV)/bin/weftd
	chmod 0755 $(VENV)/bin/weft $(VENV)/bin/weftd
	touch $@

-include bpf/bpf.mk cni/shim/shim.mk proxy/api/api.mk deploy/deploy.mk deploy/lab/lab.mk

lint: venv ## ruff, formatting included
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

type: venv ## mypy strict, tests too
	$(VENV)/bin/mypy -p weft.bpf -p weft.cni -p weft.proxy -p weft.cli && $(VENV)/bin/mypy tests deploy

test: packages venv shim objects lint type ## everything that needs no Kubernetes binaries, in minutes
	$(PYTEST) -q $(BESIDE) -m "not long" tests/test_house.py tests/unit tests/packet tests/netns

test-long: packages venv shim objects ## nodes that break, move, are upgraded, paths of every mode and size: twenty minutes
	$(PYTEST) -q $(BESIDE) -m long tests/netns

test-unit: venv ## what needs no root and no kernel
	$(PYTEST) -q tests/test_house.py tests/unit

test-netns: packages venv shim objects ## nodes and pods as namespaces
	$(PYTEST) -q $(BESIDE) tests/netns

demo: packages venv shim objects ## two nodes, six pods, a Service, two policies, in a picture
	$(PY) -m deploy.demo

bench: packages $(BUILD)/.bench-packages venv shim objects ## figures, each beside its peer; ARGS="paths programs": only those
	$(PY) -m tests.bench $(ARGS)

clean: ## what was built in the checkout; the cache outside stays
	rm -rf $(BUILD)
