# Every target creates .venv and installs the pinned lock on first use.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
NUMBERS := $(addprefix tests/tuner/,saving/test_export.py saving/test_cp_fit.py saving/test_fit.py test_products.py \
  test_tuner_factors.py test_tuner_geometries.py behaviours) $(addprefix tests/baselines/,tensor/test_tensor_family.py \
  tensor/test_tensor_identities.py test_soda.py linear/test_surm.py)
SWEEP := adapter=head_only,lora,vera,loretta_rep,lorta rank=4,8 task=glue
DECODER := model=smollm2_135m task=instruct adapter=lora,lorta rank=2,8 trainer.precision=bf16 trainer.max_steps=8 \
  trainer.per_device_train_batch_size=4 trainer.per_device_eval_batch_size=8 data.max_train_samples=32 \
  data.max_eval_samples=16 data.max_length=128 task.generations=2 task.max_new_tokens=32

.PHONY: demo demo-decoder unit test numbers peft-tests check docs smoke tables pages lock clean

.venv/installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --no-deps $$(grep '^torch==' requirements.lock)
	$(PIP) --no-deps -r requirements.lock
	$(PIP) --no-deps --editable .
	$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null 2>&1 || true  # on all cores; pip compiles on one
	touch $@

demo: .venv/installed  ## the embedded sweep: offline, a table at the end
	$(BIN)/python run.py -m $(SWEEP) runtime.name=demo

demo-decoder: .venv/installed  ## a real decoder, offline: two methods, a table; make demo-decoder DATA=FOLDER reads your own rows
	$(BIN)/python run.py -m $(DECODER) data.$(if $(DATA),root=$(DATA),source=embedded) runtime.name=demo

unit: .venv/installed  ## the fast tests of tests/unit.txt, in under a minute on two cores
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile @tests/unit.txt

test: .venv/installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

numbers: .venv/installed  ## tests of tensors again, as another processor computes
	HF_HUB_OFFLINE=1 MKL_CBWR=COMPATIBLE ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(NUMBERS)

peft-tests: .venv/installed  ## all of PEFT's own tests over our tuners, some minutes; CI runs one in 16
	OMP_NUM_THREADS=1 $(BIN)/python scripts/peft_tests.py --numprocesses 2

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

docs: .venv/installed  ## the documentation site, in docs/_build
	HF_HUB_OFFLINE=1 $(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

smoke: .venv/installed
	HF_HUB_OFFLINE=1 $(BIN)/python run.py -m 'adapter=glob(*)' task=glue trainer=smoke runtime.name=smoke

tables: .venv/installed  ## tables and figures of all committed records, and the paper's tables
	for file in results/records/*.jsonl*; do $(BIN)/python scripts/make_tables.py --records $$file > /dev/null; done
	$(BIN)/python scripts/make_tables.py paper=lorta --results results > /dev/null
	$(BIN)/python scripts/make_readme.py

pages: .venv/installed  ## one page a committed suite: tables, plots and records, for a browser
	for file in results/records/*.jsonl*; do name=$${file##*/}; \
	  $(BIN)/lorta report --records $$file --to results/pages/$${name%%.*}.html; done

lock: .venv/installed  ## after a change of the pins: what is installed now becomes the lock
	$(BIN)/python scripts/lock.py

clean:
	rm -rf .venv runs cache
