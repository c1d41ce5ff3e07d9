# The lab cluster: a real control plane, kubelets and containerd in namespaces of this machine.
NODES ?= 2
SHAPE ?= plain
NETWORK ?= weft
ARGS ?= get nodes,pods -A -o wide
LAB = $(PY) -m deploy.lab.cluster

.PHONY: cluster cluster-down kubectl lab-binaries test-cluster-smoke

lab-binaries: venv ## the lab's Go binaries, into the cache and build/lab/bin
	$(LAB) binaries

cluster: venv ## a cluster in namespaces: NODES=2 SHAPE=plain|kind NETWORK=weft|reference|none
	$(LAB) up --nodes $(NODES) --shape $(SHAPE) --network $(NETWORK)

cluster-down: venv ## remove the cluster and all it made, also after a crash
	$(LAB) down

kubectl: venv ## kubectl on the cluster: ARGS='get pods -A'
	@$(LAB) kubectl $(ARGS)

test-cluster-smoke: venv ## the smoke test, on the cluster that is up or on one of its own
	$(VENV)/bin/pytest tests/cluster/test_smoke.py
