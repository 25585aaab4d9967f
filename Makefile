# Each target is a line or two over the tools that do the work. PYTHON picks the interpreter (3.11 or newer);
# TORCH_INDEX the package index that torch comes from (see requirements.txt).
PYTHON ?= python3
CHAPTER ?= goldfish
PROFILE ?= laptop
SEEDS ?= 1
BIN := .venv/bin
CHROMIUM ?= chromium
export PYTHONUTF8 := 1

MINUTES ?= 9
OUT ?= _runs/gpu

.PHONY: book test test-faults run gpu gpu-pack gpu-all bench serve pdf lint clean

book: .venv/installed
	$(BIN)/python -m paperwalk refresh
	rm -rf _build/html # a page whose source is gone would stay
	$(BIN)/jupyter-book build . --all -W --keep-going --quiet
	@echo "The book is ready: $(CURDIR)/_build/html/index.html"

test: .venv/installed
	$(BIN)/python -m pytest

test-faults: .venv/installed
	PAPERWALK_FAULTS=full $(BIN)/python -m pytest -m fault --fault-report=book/reliability/report.json

run: .venv/installed
	$(BIN)/python -m paperwalk run $(CHAPTER) --profile $(PROFILE) --seeds $(SEEDS)
	$(MAKE) book

gpu: .venv/installed
	$(BIN)/python -m paperwalk run $(CHAPTER) --profile gpu --seeds 3

gpu-pack: .venv/installed
	$(BIN)/python -m paperwalk gpu-pack

# On the GPU machine, which may be bare: the environment of this project where it is installed, else the machine's own.
gpu-all:
	PYTHONPATH=lib $(if $(wildcard .venv/installed),$(BIN)/python,$(PYTHON)) -m paperwalk gpu --minutes $(MINUTES) --out $(OUT)

bench: .venv/installed
	for one in mask loss fam generation astar; do $(BIN)/python -m benchmarks.$$one || exit 1; done

serve: book
	$(BIN)/python -m http.server --directory _build/html 8000

pdf: book
	mkdir -p _build/pdf
	for page in _build/html/book/*.html; do \
	  $(CHROMIUM) --headless --no-sandbox --disable-gpu --no-pdf-header-footer --virtual-time-budget=20000 \
	    --print-to-pdf=_build/pdf/$$(basename $$page .html).pdf file://$(CURDIR)/$$page || exit 1; done

lint: .venv/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf _build _runs

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv || { rm -rf .venv; echo "python -m venv failed: on Debian and Ubuntu, install python3-venv"; exit 1; }
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet --index-url $(TORCH_INDEX) "$$(sed -n 's/^\(torch[^ ]*\).*/\1/p' requirements.txt)")
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@
