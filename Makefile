# Two commands do everything on a fresh machine with Python 3.11 or newer: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: quickstart test nightly test-lowest test-ray study faults docs lint clean

quickstart: $(VENV)/.installed
	$(BIN)/selfpos run recipes/quickstart.yaml

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --cpu-budget 5

# What takes minutes on real data, browsers and launchers.
nightly: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m nightly

# The oldest dependencies that pyproject.toml admits, in an environment of their own.
test-lowest:
	.ci/lowest

# On a real local Ray cluster of two workers. Apart, for Ray is 100 MB more and its cluster takes minutes on two cores.
test-ray: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest tests/jobs/test_ray.py

# Does Self Positioning win? Hours; a stopped study continues. DATA names the folder of the data sets.
DATA ?= data
study: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/study --data $(DATA)

# Kills, full disks, a failing Hub, lost Ray workers, strangers' files, fuzzers: hours. MINUTES are those of each
# fuzzer that coverage guides.
MINUTES ?= 10
faults: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[faults]'
	$(BIN)/python benchmarks/faults --minutes $(MINUTES)

# The pages as a site in site/, with references made from the code, and the notebook carried out: minutes.
docs: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[offline,docs]'
	HF_HUB_OFFLINE=1 $(BIN)/python -m mkdocs build

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy selfpos

# constraints.txt holds the versions that were tested together.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[offline]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[offline,dev,imbalance,search]'
	touch $@

clean:
	rm -rf $(VENV)
