# The executable of the node's CNI folder: static, so that it runs on a host without any library.
SHIM := $(BUILD)/weft-cni

.PHONY: shim
shim: $(SHIM) ## build/weft-cni, what a runtime executes

$(SHIM): $(wildcard cni/shim/*.c) cni/shim/shim.h
	mkdir -p $(@D)
	gcc -std=gnu11 -static -Os -Wall -Wextra -Werror -s -o $@.new $(filter %.c,$^)
	mv $@.new $@
