# Short names for longer commands. Everything runs from .venv, which is created when missing.
PYTHON ?= python3
VENV := .venv/bin

.PHONY: demo pictures test test-slow lint bench

# Installs again when a requirements file changes.
.venv/installed: requirements.txt requirements-onnx.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --upgrade pip
	$(VENV)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

# In two processes; each trains the models that its tests need, once.
test: .venv/installed
	$(VENV)/python -m pytest -q -n 2 --dist worksteal

test-slow: .venv/installed
	$(VENV)/python -m pytest -q -m "slow"

lint: .venv/installed
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/pyright

# Everything on synthetic data, offline: both models trained from scratch, evaluated, and used on one image each that
# was not in training: a test image, and the 18th exam with opacity, which the split of seed 0 holds out.
SAMPLE := sample
RUN := $(SAMPLE)/run
IMAGE = $$(ls $(SAMPLE)/chest_xray/test/PNEUMONIA/*.jpeg | head -n 1)
EXAM = $(SAMPLE)/dataset_det/stage_2_train_images/$$(grep ',1$$' $(SAMPLE)/dataset_det/stage_2_train_labels.csv \
	| cut -d, -f1 | uniq | sed -n 18p).dcm
demo: .venv/installed
	$(VENV)/python make_sample_data.py --output-dir $(SAMPLE)
	$(VENV)/python pytorch_classification/train_classification.py --data-dir $(SAMPLE)/chest_xray --weights none \
		--size 96 --epochs 12 --batch-size 16 --output-dir $(RUN)/classification \
		--model-file $(RUN)/pneumonia_resnet18.pth
	$(VENV)/python studies/pointing_game.py --model $(RUN)/pneumonia_resnet18.pth \
		--image $(SAMPLE)/chest_xray/test/PNEUMONIA --boxes $(SAMPLE)/chest_xray/opacity_boxes.csv
	$(VENV)/python pytorch_classification/predict_classification.py --model $(RUN)/pneumonia_resnet18.pth \
		--image $(IMAGE) --output-dir $(RUN)/predictions
	$(VENV)/python pytorch_detection/train_detection.py --data-dir $(SAMPLE)/dataset_det --weights none \
		--size 160 --epochs 5 --output-dir $(RUN)/detection --model-file $(RUN)/pneumonia_fasterrcnn.pth
	$(VENV)/python pytorch_detection/predict_detection.py --model $(RUN)/pneumonia_fasterrcnn.pth \
		--output-dir $(RUN)/predictions --image $(EXAM)
	@echo "Pictures of the evaluations: $(RUN)/*/images   of the predictions: $(RUN)/predictions"

# The pictures of README and docs, made again from the demo alone.
pictures: demo
	$(VENV)/python studies/readme_pictures.py --film $(IMAGE) --exam $(EXAM) --demo-dir $(SAMPLE)

# Every benchmark in its short form, and a table of the results.
bench: .venv/installed
	$(VENV)/python benchmarks/run_all.py
