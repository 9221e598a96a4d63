# make demo   a face generator trained on the built-in faces, start to end, within ten minutes on two CPU cores
# make test   the tests
#
# Both use the Python at hand where it can import Paddle, and else a fresh virtual environment in .venv.

HAS_PADDLE := $(shell python3 -c "import paddle" >/dev/null 2>&1 && echo yes)
PYTHON := $(if $(HAS_PADDLE),python3,.venv/bin/python)
REQUIREMENTS := $(if $(shell command -v nvidia-smi),requirements.txt,requirements-cpu.txt)

.PHONY: demo test setup

demo: setup
	rm -rf demo
	$(PYTHON) pretreat.py --out demo/imgs --limit 2000
	$(PYTHON) train.py --data demo/imgs --out demo/Output
	$(PYTHON) generator.py --weights demo/Output/generator.safetensors --out demo/Generate --n 16
	$(PYTHON) contrast.py --data demo/imgs --weights demo/Output/generator.safetensors --out demo/Generate/contrast.png
	@echo "Look at demo/Generate/grid.png, demo/Generate/contrast.png and demo/Output/samples/."

test: setup
	$(PYTHON) -m pytest -q

ifdef HAS_PADDLE
setup:  # everything but Paddle and NumPy: those that are there stay as they are
	@python3 -m pip install -q -r requirements-base.txt "numpy==$$(python3 -c 'import numpy; print(numpy.__version__)')"
else
setup: .venv/installed

.venv/installed: $(REQUIREMENTS) requirements-base.txt
	python3 -m venv --clear .venv
	.venv/bin/python -m pip install -q -r $(REQUIREMENTS)
	touch $@
endif
