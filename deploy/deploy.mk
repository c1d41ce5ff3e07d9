# The image and what runs it. deploy/lab has its own fragment.
.PHONY: image kind

image: venv shim ## the node image as OCI archive, build/weft-image.tar (root; no Docker)
	$(PY) -m deploy.image --shim $(BUILD)/weft-cni --out $(BUILD)/weft-image.tar
