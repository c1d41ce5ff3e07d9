# The lab cluster: a real control plane, kubelets and containerd in namespaces of this machine.
NODES ?= 2
SHAPE ?= plain
NETWORK ?= weft
SETTINGS ?=
ARGS ?= get nodes,pods -A -o wide
LAB = $(PY) -m deploy.lab

# Beside Go, which go/*/go.mod name the version of: Debian's is too old.
LAB_PACKAGES := etcd-server runc mmdebstrap openssl gcc libc6-dev iproute2 nftables util-linux

.PHONY: cluster cluster-reload cluster-down kubectl lab-packages lab-binaries test-cluster-smoke test-cluster

lab-packages: $(BUILD)/.lab-packages
$(BUILD)/.lab-packages: | packages
	@$(MAKE) --no-print-directory --always-make packages PACKAGES='$(LAB_PACKAGES)'
	@touch $@

lab-binaries: venv ## the lab's Go binaries, into the cache and build/lab/bin
	$(LAB) binaries

cluster: venv lab-packages $(if $(filter weft,$(NETWORK)),image) ## a cluster in namespaces: NODES=2 SHAPE=plain|kind NETWORK=weft|reference|none SETTINGS='mode=bridge'
	$(LAB) up --nodes $(NODES) --shape $(SHAPE) --network $(NETWORK) $(SETTINGS:%=--set %)

cluster-reload: venv image ## put the image and the manifest of now into the running cluster
	$(LAB) reload

cluster-down: venv ## remove the cluster and all it made, also after a crash
	$(LAB) down

kubectl: venv ## kubectl on the cluster: ARGS='get pods -A'
	@$(LAB) kubectl $(ARGS)

test-cluster-smoke: venv lab-packages $(if $(wildcard $(BUILD)/weft-image.tar),,image) ## the smoke test, on the cluster that is up or on one of its own
	$(PYTEST) tests/cluster

test-cluster: venv lab-packages lab-binaries ## upstream's tests on the cluster that is up: PART=all|conformance|networking|load-balancer FOCUS='regular expression' SKIP=...
	$(PY) -m tests.cluster.suite $(if $(PART),--part=$(PART)) $(if $(FOCUS),--focus='$(FOCUS)') $(if $(SKIP),--skip='$(SKIP)')
