"""A finished classifier: log-odds, calibrated probability, Grad-CAM, and the file with all that prediction needs."""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxr import checkpoints, model_file, runtime
from cxr.backbone import State
from cxr.model_file import UNSAVED, ModelProvenance
from cxr.out_of_distribution import FeatureDistance, features
from pytorch_classification.model import TASK, as_input, build, fill, predict_logits, to_probability, weights_in

_GRAD_CAM_BATCH = 32  # images at once when gradients are kept
# Cells of 8 and 16 pixels; the maps of both are averaged. On squares of about 100 pixels the usual choice, layer4, has
# 4 x 4 cells that each see the whole image, and its peaks lie at the edges: on 432 synthetic test images they hit a
# true opacity in 0 %, those of layer3 in 44 %, of layer2 in 66 %, of these two together in 71 %.
_GRAD_CAM_LAYERS = ("layer2", "layer3")


@dataclass(frozen=True)
class ClassifierOutput:
    """Predictions for N images.

    Attributes:
        log_odds: float64 [N], of PNEUMONIA, before calibration.
        probability: float64 [N], of PNEUMONIA, calibrated.
        out_of_distribution: bool [N]; None where the model file cannot state it.
        grad_cam: float32 [N, size, size] in 0..1, of the PNEUMONIA output; None if it was not asked for.
    """

    log_odds: NDArray[np.float64]
    probability: NDArray[np.float64]
    out_of_distribution: NDArray[np.bool_] | None
    grad_cam: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Classifier:
    """A finished model with everything that prediction needs; ``save`` and ``load`` are its file.

    Attributes:
        size: side in pixels of the network's input. store_size: of the square to which an image is first resized.
        flip_tta: whether the log-odds are averaged over an image and its mirror image.
        temperature: divides the log-odds before they become a probability.
        threshold: at or above this probability an image is classified as PNEUMONIA.
        feature_distance: of an image from the training images; None in files from before it was kept.
        grad_cam_scale: peak strength that Grad-CAM shows as 1, from true positives of validation; None without one, and
            in files from before it was kept: then each map is scaled by its own peak.
        training_images: keys of the images it was trained or selected on (``cxr.model_file``); None as above.
    """

    model: nn.Module
    size: int
    store_size: int
    flip_tta: bool
    temperature: float
    threshold: float
    feature_distance: FeatureDistance | None = None
    grad_cam_scale: float | None = None
    training_images: frozenset[str] | None = None
    provenance: ModelProvenance = UNSAVED

    @property
    def views(self) -> int:
        """Forward passes for each image."""
        return 2 if self.flip_tta else 1

    def save(self, path: Path, **record: Any) -> None:
        """Write the model file, with ``record`` (plain values) for a later reader; kernels in float16."""
        checkpoints.save(
            path,
            task=TASK,
            model=checkpoints.with_half_kernels(self.model.state_dict()),
            prediction={
                "size": self.size,
                "store_size": self.store_size,
                "flip_average": self.flip_tta,
                "temperature": self.temperature,
                "threshold": self.threshold,
            },
            likeness=None if self.feature_distance is None else self.feature_distance.plain(),
            heat_scale=self.grad_cam_scale,
            known_images=model_file.pack_keys(self.training_images),
            **record,
        )

    @classmethod
    def load(cls, path: Path, run: runtime.Runtime, threshold: float | None = None) -> "Classifier":
        """The model file at ``path``, its network in evaluation mode on the run's device.

        Args:
            path: of the model file.
            run: where it computes.
            threshold: in place of the file's.

        Raises:
            FileNotFoundError, ValueError: no file, or not a finished classification model.
        """
        state = model_file.load(path, TASK)
        settings, provenance = dict(state["prediction"]), ModelProvenance.of(state, path)
        if threshold is not None:
            settings["threshold"], provenance = threshold, provenance.with_manual_threshold()
        model = build("none")
        fill(model, weights_in(state, str(path)), str(path))
        return cls(
            model.to(run.device).to(memory_format=torch.channels_last).eval(),
            flip_tta=settings.pop("flip_average"),
            **settings,
            feature_distance=FeatureDistance.of(state.get("likeness"), path),
            grad_cam_scale=state.get("heat_scale"),
            training_images=model_file.unpack_keys(state.get("known_images")),
            provenance=provenance,
        )

    def log_odds(
        self, images: NDArray[np.uint8], run: runtime.Runtime, indices: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Log-odds of PNEUMONIA before calibration, float64 [N], of squares uint8 [N, store_size, store_size].

        Of all, or of those at ``indices``. Always in float32, so that results on every machine and in every batch agree
        to five digits.

        Raises:
            ValueError: non-finite output, which must not pass for NORMAL.
        """
        rows = np.arange(len(images)) if indices is None else indices
        exact = replace(run, bf16=False)
        return _finite(predict_logits(self.model, images, rows, self.size, self.flip_tta, exact))

    def probabilities(self, images: NDArray[np.uint8], run: runtime.Runtime) -> NDArray[np.float64]:
        """Calibrated probability of PNEUMONIA; as ``log_odds`` otherwise."""
        return to_probability(self.log_odds(images, run), self.temperature)

    def predict(self, images: NDArray[np.uint8], run: runtime.Runtime, *, grad_cam: bool = False) -> ClassifierOutput:
        """All outputs for squares uint8 [N, store_size, store_size], each view computed once.

        ``grad_cam`` is for up to a few dozen images: all are in memory at once with their gradients.
        """
        with features(self.model) as collected:
            if grad_cam:
                log_odds, maps, strength = self._grad_cam(images, run)
                if self.grad_cam_scale is not None:
                    maps *= np.minimum(strength / self.grad_cam_scale, 1).astype(np.float32)[:, None, None]
            else:
                log_odds, maps = self.log_odds(images, run), None
        distance = self.feature_distance
        is_ood = None if distance is None else distance.is_ood(collected.rows(self.views, run))
        return ClassifierOutput(log_odds, to_probability(log_odds, self.temperature), is_ood, maps)

    def grad_cam_strength(self, images: NDArray[np.uint8], run: runtime.Runtime) -> NDArray[np.float64]:
        """Peak of Grad-CAM before it is scaled, float64 [N]."""
        batches = [images[first : first + _GRAD_CAM_BATCH] for first in range(0, len(images), _GRAD_CAM_BATCH)]
        return np.concatenate([self._grad_cam(batch, run)[2] for batch in batches])

    def _grad_cam(
        self, images: NDArray[np.uint8], run: runtime.Runtime
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float64]]:
        """Log-odds, Grad-CAM of the PNEUMONIA output scaled to a peak of 1 in each image, and its strength.

        Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74. With ``flip_tta`` a map is the mean over the image and its
        mirror image, as the log-odds are. The strength is the geometric mean of the peaks in all layers and views,
        whose scales differ.
        """
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        targets: list[Any] = [ClassifierOutputTarget(0)] * len(images)
        layers = [cast(nn.Sequential, self.model.get_submodule(name))[-1] for name in _GRAD_CAM_LAYERS]
        inputs = as_input(torch.from_numpy(images).to(run.device), self.size)
        views = [inputs, inputs.flip(3)] if self.flip_tta else [inputs]
        maps: list[NDArray[np.float32]] = []
        logits: list[Tensor] = []
        peaks: list[NDArray[np.float32]] = []

        class Recording(GradCAM):
            """Keeps the peak of each layer's map, which ``GradCAM`` then scales away."""

            def get_cam_image(self, *arguments: Any, **named: Any) -> Any:
                layer: Any = super().get_cam_image(*arguments, **named)
                peaks.append(layer.max(axis=(1, 2)))
                return layer

        with _gradients_up_to(layers[0], self.model), Recording(model=self.model, target_layers=layers) as grad_cam:
            for view in views:
                maps.append(grad_cam(input_tensor=view.contiguous(memory_format=torch.channels_last), targets=targets))
                logits.append(grad_cam.outputs[:, 0].detach())
        mean = (maps[0] + maps[1][:, :, ::-1]) / 2 if self.flip_tta else maps[0]
        tiny = np.finfo(np.float32).tiny
        scaled = mean / np.maximum(mean.max(axis=(1, 2), keepdims=True), tiny)
        strength = np.exp(np.log(np.maximum(np.array(peaks, np.float64), tiny)).mean(axis=0))
        return _finite(torch.stack(logits).mean(0).double().cpu().numpy()), scaled, strength


@contextmanager
def _gradients_up_to(block: nn.Module, model: nn.Module) -> Generator[None]:
    """Backward passes end at the output of ``block``; a finished network's weights need no gradient, then or later."""

    def begin_here(_block: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.requires_grad_(True)

    model.requires_grad_(False)
    hook = block.register_forward_hook(begin_here)
    try:
        with torch.inference_mode(False), torch.enable_grad():  # whatever the caller computes in
            yield
    finally:
        hook.remove()


def _finite(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(log_odds).all():
        raise ValueError("non-finite output: corrupted weights; train the model anew")
    return log_odds


def weights_sha256(state: State) -> str:
    """Of a network as a model file keeps it: the same for two files that differ in all else, and for what is loaded."""
    digest = hashlib.sha256()
    for name, value in sorted(checkpoints.with_half_kernels(state).items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
