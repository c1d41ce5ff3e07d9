.PHONY: api
api: venv ## generate the stubs of proxy/api/weft.proto
	$(PY) -m weft.proxy.api.generate
