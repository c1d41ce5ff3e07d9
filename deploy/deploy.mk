# The image and what runs it. deploy/lab has its own fragment.
KIND_CLUSTER ?= weft
.PHONY: image kind

image: packages venv shim ## the node image as OCI archive, build/weft-image.tar (root; no Docker)
	$(PY) -m deploy.image --shim $(BUILD)/weft-cni --out $(BUILD)/weft-image.tar

kind: image ## a kind cluster on Weft (needs kind, kubectl and Docker)
	@for tool in kind kubectl docker; do \
	  command -v $$tool >/dev/null || { echo "make kind needs $$tool; make cluster SHAPE=kind does not"; exit 1; }; done
	kind create cluster --name $(KIND_CLUSTER) --config deploy/kind.yaml
	kind load image-archive $(BUILD)/weft-image.tar --name $(KIND_CLUSTER)
	kubectl --context kind-$(KIND_CLUSTER) apply -f deploy/install.yaml
	kubectl --context kind-$(KIND_CLUSTER) -n kube-system rollout status ds/weft --timeout=120s
