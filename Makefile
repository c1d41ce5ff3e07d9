# Weft: every command a developer or operator runs from a checkout. `make help` lists them.
SHELL := /bin/bash
BUILD := build
PYTHON ?= python3
VENV := $(BUILD)/venv
PY := $(VENV)/bin/python
TREE := $(BUILD)/tree/weft

.PHONY: help venv tree lint type test

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

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

lint: venv ## ruff, formatting included
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

type: venv ## mypy strict, tests too
	$(VENV)/bin/mypy -p weft.bpf -p weft.cni -p weft.proxy -p weft.cli && $(VENV)/bin/mypy tests

-include deploy/lab/lab.mk
