# The kernel side: its Python mirror, its objects, its trial on old kernels.
.PHONY: layout objects test-kernels

layout: venv ## write bpf/layout.py anew from bpf/include
	$(PY) -m weft.bpf.genlayout

objects: venv ## compile every bpf/*.bpf.c (cached by sources, flags and compiler)
	$(PY) -m weft.bpf.build

KERNEL_PACKAGES := qemu-system-x86 busybox-static

.PHONY: kernel-packages
kernel-packages: $(BUILD)/.kernel-packages
$(BUILD)/.kernel-packages: | packages
	@$(MAKE) --no-print-directory --always-make packages PACKAGES='$(KERNEL_PACKAGES)'
	@touch $@

test-kernels: venv kernel-packages objects ## load and attach every program on Debian's 6.1 and 6.12 kernels in qemu
	$(PY) -m pytest tests/kernels
