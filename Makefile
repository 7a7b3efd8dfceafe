# `make run` shows what speechemo does, `make test` that it does it right. Both need Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
DATA ?= data
FUZZ_SECONDS ?= 30

.PHONY: help install run test test-slow docs fuzz check format bench load encoder packaged-model lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed ## Make .venv with what requirements.lock lists, and speechemo in it

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "speechemo needs Python 3.11 or newer, found: $$($(PYTHON) --version). Try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: install ## Extract, train, evaluate and predict: on RAVDESS if data/ holds it, else on synthetic voices
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh benchmarks/demo.sh $(DATA)

test: install ## Run the tests
	$(BIN)/python -m pytest

test-slow: install ## Run the tests that train for longer
	$(BIN)/python -m pytest -m slow

GROUP = "import sys, tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups'][sys.argv[1]], sep='\n')"

docs: install ## Build the pages and the Python API into build/site (installs mkdocs-material)
	$(BIN)/python -c $(GROUP) docs | $(BIN)/python -m pip install --quiet --disable-pip-version-check -r /dev/stdin
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "Open build/site/index.html"

fuzz: install ## Damage recordings and model files at random, FUZZ_SECONDS for each (Linux; installs atheris)
	$(BIN)/python -c $(GROUP) fuzz | $(BIN)/python -m pip install --quiet --disable-pip-version-check -r /dev/stdin
	$(BIN)/python fuzz/seeds.py build/fuzz
	for target in reader model_file; do \
		$(BIN)/python fuzz/fuzz_$$target.py -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=4096 -max_len=1000000 \
			-print_final_stats=1 -artifact_prefix=build/fuzz/ build/fuzz/$$target || exit; \
	done

check: install ## Lint, type-check, and look for dead code, undeclared dependencies and misspellings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vulture
	$(BIN)/deptry .
	$(BIN)/codespell *.md docs/*.md data/README.md speechemo_cli tests benchmarks tools fuzz --skip '*.keras,*.tflite,*.npz,golden'

format: install ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## Measure speed as ratios against references in the same run (DATA=folder of clips)
	$(BIN)/python benchmarks/bench.py $(DATA)

load: install ## Run extract and predict over 10,000 and 100,000 short clips: memory, time and open files (Linux)
	$(BIN)/python benchmarks/load.py

# Unlike the others it does without clips.
encoder: install ## Make the LiteRT file of Whisper's encoder anew and compare it (on clips with DATA=folder)
	$(BIN)/python tools/make_encoder.py $(if $(filter file,$(origin DATA)),,$(DATA))

packaged-model: install ## Train anew the model that comes with the package (DATA="RAVDESS AESDD NEMO", folders or manifests)
	$(BIN)/speechemo train $(DATA) --song --version v3 --split none --resume --output build/packaged.keras
	cp build/packaged.keras build/packaged.tflite speechemo_cli/models/
	$(BIN)/speechemo model card packaged --output docs/packaged-model.md --plot docs/reliability.png

LOCK := --universal --python-version 3.11 --upgrade --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --no-header

lock: ## Resolve the dependencies anew, all and those of predict alone (needs uv)
	uv pip compile pyproject.toml --group dev --extra onnx --extra serve --extra dask $(LOCK) -o requirements.lock
	uv pip compile --group predict --constraints requirements.lock $(LOCK) -o requirements-predict.lock

clean: ## Remove everything that was made here
	rm -rf .venv build dist demo features models runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
