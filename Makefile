# Thin names for commands that README shows in full. Everything runs from .venv, which is made when missing.
PYTHON ?= python3
VENV := .venv/bin

.PHONY: demo pictures test test-slow lint bench

# Installed again when a requirements file changes.
.venv/installed: requirements.txt requirements-onnx.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --upgrade pip
	$(VENV)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

# In two processes; each makes the trained models that it needs, once.
test: .venv/installed
	$(VENV)/python -m pytest -q -n 2 --dist worksteal

test-slow: .venv/installed
	$(VENV)/python -m pytest -q -m "slow"

lint: .venv/installed
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/pyright

# Everything on synthetic data, offline: both models trained from scratch, evaluated, and used on one image each that
# neither has learnt from: a test image, and the 18th exam with opacity, which the split of seed 0 holds out.
SAMPLE := sample
RUN := $(SAMPLE)/run
FILM = $$(ls $(SAMPLE)/chest_xray/test/PNEUMONIA/*.jpeg | head -n 1)
EXAM = $$(grep ',1$$' $(SAMPLE)/dataset_det/stage_2_train_labels.csv | cut -d, -f1 | uniq | sed -n 18p)
demo: .venv/installed
	$(VENV)/python make_sample_data.py --out-dir $(SAMPLE)
	$(VENV)/python pytorch_classification/train_classification.py --data-dir $(SAMPLE)/chest_xray --weights none \
		--size 96 --epochs 12 --batch-size 16 --out-dir $(RUN)/classification --images-dir $(RUN)/images \
		--model-file $(RUN)/pneumonia_resnet18.pth
	$(VENV)/python pytorch_classification/pointing_game.py --model $(RUN)/pneumonia_resnet18.pth \
		--image $(SAMPLE)/chest_xray/test/PNEUMONIA --boxes $(SAMPLE)/chest_xray/opacity_boxes.csv
	$(VENV)/python pytorch_classification/predict_classification.py --model $(RUN)/pneumonia_resnet18.pth \
		--image $(FILM) --output-dir $(RUN)/predictions
	$(VENV)/python pytorch_detection/train_detection.py --data-dir $(SAMPLE)/dataset_det --weights none \
		--size 160 --epochs 5 --out-dir $(RUN)/detection --images-dir $(RUN)/images \
		--model-file $(RUN)/pneumonia_fasterrcnn.pth
	$(VENV)/python pytorch_detection/predict_detection.py --model $(RUN)/pneumonia_fasterrcnn.pth \
		--output-dir $(RUN)/predictions --image $(SAMPLE)/dataset_det/stage_2_train_images/$(EXAM).dcm
	@echo "Pictures of the evaluation: $(RUN)/images   of the predictions: $(RUN)/predictions"

# README's pictures, made again from the demo; of anything else none is taken.
pictures: demo
	$(VENV)/python readme_pictures.py --film $(FILM) --exam $(SAMPLE)/dataset_det/stage_2_train_images/$(EXAM).dcm \
		--demo-dir $(SAMPLE)

# Every benchmark in its short form, and a table of what they found.
bench: .venv/installed
	$(VENV)/python benchmarks/run_all.py
