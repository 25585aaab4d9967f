# Each target is a line or two over the tools that do the work. PYTHON picks the interpreter (3.11 or newer);
# TORCH_INDEX the package index that torch comes from (see pyproject.toml).
PYTHON ?= python3
CHAPTER ?= goldfish
PROFILE ?= laptop
SEEDS ?= 1
# Options of JupyterLab: make lab LAB=--no-browser
LAB ?=
BIN := .venv/bin
CHROMIUM ?= chromium
export PYTHONUTF8 := 1

MINUTES ?= 9
OUT ?= _runs/gpu

.PHONY: book test test-full test-faults run lab gpu gpu-pack gpu-all bench serve pdf lint lock clean .venv/newest

book: .venv/installed
	$(BIN)/python -m paperwalk refresh
	rm -rf _build/html # a page whose source is gone would stay
	$(BIN)/jupyter-book build . --all -W --keep-going --quiet
	@echo "The book is ready: $(CURDIR)/_build/html/index.html"

# Minutes; the long ones, clusters, whole builds and faults are in test-full. What the tests read is fetched first.
# Three processes on two cores, since those of pages wait for a browser; a file, or a class of tests, is one process's.
PYTEST = $(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder --durations 20 --durations-min 1

test: .venv/installed
	$(BIN)/python -m paperwalk fetch
	$(PYTEST) -m "not full"

test-full: .venv/installed
	$(PYTEST) -m full

test-faults: .venv/installed
	PAPERWALK_FAULTS=full $(BIN)/python -m pytest -m fault --fault-report=book/reliability/report.json

run: .venv/installed
	$(BIN)/python -m paperwalk run $(CHAPTER) --profile $(PROFILE) --seeds $(SEEDS)
	$(MAKE) book

lab: .venv/installed
	$(BIN)/jupyter lab $(LAB) book

gpu: .venv/installed
	$(BIN)/python -m paperwalk run $(CHAPTER) --profile gpu --seeds 3

gpu-pack: .venv/installed
	$(BIN)/python -m deploy.gpu pack

# On the GPU machine, which may be bare: the environment of this project where it is installed, else the machine's own.
gpu-all:
	PYTHONPATH=lib $(if $(wildcard .venv/installed),$(BIN)/python,$(PYTHON)) -m deploy.gpu run --minutes $(MINUTES) --out $(OUT) $(if $(ONLY),--only $(ONLY))

bench: .venv/installed
	for one in mask loss steps stacked fam generation astar; do $(BIN)/python -m benchmarks.$$one || exit 1; done

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

.venv/installed: requirements.lock pyproject.toml | .venv/bin/pip
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet --index-url $(TORCH_INDEX) "$$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.lock)")
	$(MAKE) --no-print-directory -j 2 .venv/half-0.lock .venv/half-1.lock
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

# Every other line of the lock: pip unpacks and compiles on one core, so two of them share the work. What no line names,
# such as the CUDA libraries that a build of torch asks for, comes with the whole lock afterwards.
.venv/half-%.lock: requirements.lock
	awk '!/^#/ && NR % 2 == $*' requirements.lock > .venv/half-$*.new
	$(BIN)/pip install --quiet --no-deps -r .venv/half-$*.new
	mv .venv/half-$*.new $@

# In place of the locked versions the newest that pyproject.toml allows.
.venv/newest: | .venv/bin/pip
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet --upgrade --index-url $(TORCH_INDEX) "$$(sed -n 's/^ *"\(torch>[^"]*\)".*/\1/p' pyproject.toml)")
	$(BIN)/pip install --quiet --upgrade --upgrade-strategy eager --editable '.[book,legal,test]'
	@touch .venv/installed

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv --clear .venv || { rm -rf .venv; echo "python -m venv failed: on Debian and Ubuntu, install python3-venv"; exit 1; }

COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --fork-strategy fewest \
  --no-annotate --no-header $(UPGRADE)
# A lock with a head, and without torch's CUDA packages (its CUDA build asks for them itself) and lines of a pattern.
define rewrite
	{ echo '# Made by "make lock" from pyproject.toml: $(2).'; grep -vE '^(#|cuda-|nvidia-)' $(1) | grep -v $(3); } > $(1).new
	mv $(1).new $(1)
endef

# Versions that stand in the locks stay; UPGRADE=--upgrade takes the newest, UPGRADE="-P NAME" those of one package.
lock: | .venv/bin/pip
	$(BIN)/pip install --quiet uv
	$(COMPILE) --extra book --extra legal --extra test --output-file requirements.lock
	$(call rewrite,requirements.lock,all of its groups but cluster,'^$$')
	$(COMPILE) --all-extras --constraint requirements.lock --output-file requirements-cluster.lock
	$(call rewrite,requirements-cluster.lock,what its group cluster adds to requirements.lock,-xFf requirements.lock)
