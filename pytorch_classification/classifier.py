"""A finished classifier: what it says of images, where it looked, and the file with all that prediction needs."""

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

from cxr import checkpoints, model_file, prediction, runtime
from cxr.backbone import State
from cxr.model_file import UNSAVED, ModelProvenance
from cxr.out_of_distribution import FeatureDistance, features
from pytorch_classification.model import TASK, as_input, build, fill, predict_logits, to_probability, weights_in

_EXPLAINED = 32  # images at once when gradients are kept
_SETTINGS = ("size", "store_size", "flip_average", "temperature", "threshold")  # that a model file holds


@dataclass(frozen=True)
class Judgement:
    """What is said of N images.

    Attributes:
        log_odds: float64 [N], of PNEUMONIA, before calibration.
        probability: float64 [N], of PNEUMONIA, calibrated.
        unlike: bool [N], whether an image is unlike those of training; None where the model file cannot tell.
        heat: float32 [N, size, size] in 0..1, where PNEUMONIA is seen and how strongly; None if it was not asked for.
    """

    log_odds: NDArray[np.float64]
    probability: NDArray[np.float64]
    unlike: NDArray[np.bool_] | None
    heat: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Classifier:
    """A finished model with everything that prediction needs; ``save`` and ``load`` are its file.

    Attributes:
        size: side in pixels of the square the network sees. store_size: of the square an image is first squashed to.
        temperature: divides the log-odds before they become a probability. threshold: at or above it is PNEUMONIA.
        likeness: what training's images look like to the network; None in files from before it was kept.
        heat_scale: strength of Grad-CAM that is drawn as hot, from true positives of validation; None as above, or
            without one of them.
        known: the keys of ``known_images`` of what was learnt from or chosen by; None in files from before it was kept.
        origin: what the file says of itself.
    """

    model: nn.Module
    size: int
    store_size: int
    flip_average: bool
    temperature: float
    threshold: float
    likeness: FeatureDistance | None = None
    heat_scale: float | None = None
    known: frozenset[str] | None = None
    origin: ModelProvenance = UNSAVED

    @property
    def views(self) -> int:
        """How many times the network looks at each image."""
        return 2 if self.flip_average else 1

    def save(self, path: Path, **record: Any) -> None:
        """Write the model file, with ``record`` (plain values) for a later reader; kernels in float16."""
        checkpoints.save(
            path,
            task=TASK,
            model=checkpoints.with_half_kernels(self.model.state_dict()),
            prediction={name: getattr(self, name) for name in _SETTINGS},
            likeness=None if self.likeness is None else self.likeness.plain(),
            heat_scale=self.heat_scale,
            known_images=model_file.pack_keys(self.known),
            **record,
        )

    @classmethod
    def load(cls, path: Path, run: runtime.Runtime) -> "Classifier":
        """The model file at ``path``, its network in evaluation mode on the run's device.

        Raises:
            FileNotFoundError, ValueError: no file, or not a finished classification model.
        """
        state = checkpoints.load(path, task=TASK)
        if "prediction" not in state:
            raise ValueError(
                f"{path}: from a training, without the operating point that prediction needs; the finished model is "
                "pneumonia_resnet18.pth, unless --model-file named another"
            )
        settings = state["prediction"]
        if not isinstance(settings, dict) or {*settings} != {*_SETTINGS}:
            raise ValueError(f"{path}: expected the prediction settings {', '.join(_SETTINGS)}")
        model = build("none")
        fill(model, weights_in(state, str(path)), str(path))
        return cls(
            model.to(run.device).to(memory_format=torch.channels_last).eval(),
            **settings,
            likeness=FeatureDistance.of(state.get("likeness"), path),
            heat_scale=state.get("heat_scale"),
            known=model_file.unpack_keys(state.get("known_images")),
            origin=ModelProvenance.of(state, path),
        )

    @classmethod
    def of_user(cls, path: Path, run: runtime.Runtime, threshold: float | None = None) -> "Classifier":
        """The model that a user names, with another ``threshold`` than its own if there is one.

        Raises:
            FileNotFoundError, ValueError: as ``load``; says how to get a model where there is none.
        """
        if not path.exists():
            raise FileNotFoundError(
                f"no model at {path.resolve()}; train one with "
                "`python pytorch_classification/train_classification.py` or name one with --model"
            )
        classifier = cls.load(path, run)
        if classifier.likeness is None:
            prediction.warn_without_likeness(path)
        if threshold is None:
            return classifier
        return replace(classifier, threshold=threshold, origin=classifier.origin.with_manual_threshold())

    def log_odds(
        self, images: NDArray[np.uint8], run: runtime.Runtime, chosen: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Log-odds of PNEUMONIA before calibration, float64 [N], of squares uint8 [N, store_size, store_size].

        Of all, or of those at ``chosen``. Always in float32, so that every machine and batch gives the same answer to
        five digits.

        Raises:
            ValueError: an answer is not a finite number, which must not pass for NORMAL.
        """
        rows = np.arange(len(images)) if chosen is None else chosen
        exact = replace(run, bf16=False)
        return _finite(predict_logits(self.model, images, rows, self.size, self.flip_average, exact))

    def probabilities(self, images: NDArray[np.uint8], run: runtime.Runtime) -> NDArray[np.float64]:
        """Calibrated probability of PNEUMONIA; as ``log_odds`` otherwise."""
        return to_probability(self.log_odds(images, run), self.temperature)

    def judge(self, images: NDArray[np.uint8], run: runtime.Runtime, *, explain: bool = False) -> Judgement:
        """What there is to say of squares uint8 [N, store_size, store_size], from one look of the network.

        With ``explain``, for up to a few dozen images, also Grad-CAM on the scale of ``heat_scale``; without that, each
        map is as hot as the next.
        """
        with features(self.model) as seen:
            if explain:
                log_odds, maps, strength = self._grad_cam(images, run)
            else:
                log_odds, maps, strength = self.log_odds(images, run), None, None
        if maps is not None and strength is not None and self.heat_scale is not None:
            maps = maps * np.minimum(strength / self.heat_scale, 1).astype(np.float32)[:, None, None]
        unlike = None if self.likeness is None else self.likeness.is_ood(seen.rows(self.views, run))
        return Judgement(log_odds, to_probability(log_odds, self.temperature), unlike, maps)

    def explain(self, images: NDArray[np.uint8], run: runtime.Runtime) -> NDArray[np.float32]:
        """Grad-CAM of each image on its own scale, 0..1: it tells where, not how much; float32 [N, size, size]."""
        return self._grad_cam(images, run)[1]

    def heat_strength(self, images: NDArray[np.uint8], run: runtime.Runtime) -> NDArray[np.float64]:
        """How much there is at the peak of Grad-CAM before it is scaled, float64 [N]."""
        parts = [images[first : first + _EXPLAINED] for first in range(0, len(images), _EXPLAINED)]
        return np.concatenate([self._grad_cam(part, run)[2] for part in parts])

    def _grad_cam(
        self, images: NDArray[np.uint8], run: runtime.Runtime
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float64]]:
        """Log-odds, Grad-CAM of the PNEUMONIA output on the scale of each image, and its strength.

        Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74. With ``flip_average`` a map is the mean over the image and its
        mirror image, as the log-odds are. The strength is the geometric mean of the peaks in all layers and views,
        whose scales differ.
        """
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        targets: list[Any] = [ClassifierOutputTarget(0)] * len(images)
        layers = grad_cam_layers(self.model)
        inputs = as_input(torch.from_numpy(images).to(run.device), self.size)
        views = [inputs, inputs.flip(3)] if self.flip_average else [inputs]
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
        found = (maps[0] + maps[1][:, :, ::-1]) / 2 if self.flip_average else maps[0]
        tiny = np.finfo(np.float32).tiny
        found = found / np.maximum(found.max(axis=(1, 2), keepdims=True), tiny)
        strength = np.exp(np.log(np.maximum(np.array(peaks, np.float64), tiny)).mean(axis=0))
        return _finite(torch.stack(logits).mean(0).double().cpu().numpy()), found, strength


def grad_cam_layers(model: nn.Module) -> list[nn.Module]:
    """The blocks whose activations Grad-CAM weighs, with cells of 8 and of 16 pixels; their maps are averaged.

    On squares of about 100 pixels the usual choice, layer4, has 4 x 4 cells that each see the whole image, and its
    peaks lie at the edges: on 432 synthetic images that nothing was learnt from they hit a true opacity in 0 %, those
    of layer3 in 44 %, of layer2 in 66 %, of these two together in 71 %.
    """
    return [cast(nn.Sequential, model.get_submodule(name))[-1] for name in ("layer2", "layer3")]


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
        raise ValueError("the model's answers are not finite numbers: its weights are damaged, train it anew")
    return log_odds


def weights_sha256(state: State) -> str:
    """Of a network as a model file keeps it: the same for two files that differ in all else, and for what is loaded."""
    digest = hashlib.sha256()
    for name, value in sorted(checkpoints.with_half_kernels(state).items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
