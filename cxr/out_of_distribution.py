"""Out-of-distribution detection: Mahalanobis distance between an image's features and those of the training images.

The features are the outputs of the network's stages, averaged over the image. On intermediate features this distance
detects wrong radiographs where scores and energies of the output do not (Anthony and Kamnitsas 2023,
doi:10.1007/978-3-031-44336-7_15).
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxr import runtime

STAGES = ("layer2", "layer3", "layer4")  # of a ResNet
_PERCENTILE = 99.5  # of the validation images' distances: the limit

Array = NDArray[np.float64]


@dataclass
class Features:
    """What ``features`` collects: for each stage one tensor [B, C] per forward pass."""

    passes: list[list[Tensor]] = field(default_factory=lambda: [[] for _ in STAGES])

    def rows(self, views: int, run: runtime.Runtime) -> list[Array]:
        """float64 [N, C] for each stage, of the N images of all processes in the order of ``runtime.gather``.

        Args:
            views: consecutive passes over the same images, which are averaged.
            run: of the passes.
        """
        stages: list[Array] = []
        for passes in self.passes:
            means = [torch.stack(passes[first : first + views]).mean(0) for first in range(0, len(passes), views)]
            stages.append(runtime.gather(torch.cat(means).double().cpu().numpy(), run))
        return stages


@contextmanager
def features(body: nn.Module) -> Generator[Features]:
    """Collect the outputs of the ``STAGES`` of ``body`` during the forward passes of this block."""
    found = Features()

    def keep(passes: list[Tensor]) -> Any:
        def hook(_stage: nn.Module, _inputs: Any, output: Tensor) -> None:
            passes.append(output.detach().float().mean((2, 3)))

        return hook

    handles = [
        body.get_submodule(name).register_forward_hook(keep(passes))
        for name, passes in zip(STAGES, found.passes, strict=True)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Stage:
    """The distribution of the training images' features in one stage.

    Attributes:
        mean: float32 [C].
        whitening: float32 [C, C]; the norm of ``(features - mean) @ whitening`` is the Mahalanobis distance.
        usual: median distance of the validation images; divides the distance, since it grows with C.
    """

    mean: Tensor
    whitening: Tensor
    usual: float

    @classmethod
    def fit(cls, training: Array, validation: Array) -> "Stage":
        """Mean and covariance of ``training`` [N, C], shrunk as Ledoit and Wolf (2004) do where N is small."""
        from sklearn.covariance import LedoitWolf

        found: Any = LedoitWolf().fit(training)
        whitening = np.linalg.cholesky(found.precision_)
        mean, root = (torch.from_numpy(values).float() for values in (found.location_, whitening))
        return cls(mean, root, float(np.median(cls(mean, root, 1.0).distance(validation))))

    def distance(self, features: Array) -> Array:
        """float64 [N] of ``features`` [N, C], in units of ``usual``."""
        centred = features - self.mean.double().numpy()
        return np.linalg.norm(centred @ self.whitening.double().numpy(), axis=1) / self.usual


@dataclass(frozen=True)
class FeatureDistance:
    """Distance of an image's features from those of the training images, and its limit.

    Attributes:
        stages: one for each of ``STAGES``.
        limit: a larger ``distance`` is out of distribution.
    """

    stages: tuple[Stage, ...]
    limit: float

    @classmethod
    def fit(cls, training: Sequence[Array], validation: Sequence[Array]) -> "FeatureDistance":
        """From ``Features.rows`` of the training and the validation images."""
        stages = tuple(Stage.fit(*both) for both in zip(training, validation, strict=True))
        distances = cls(stages, np.inf).distance(validation)
        return cls(stages, float(np.percentile(distances, _PERCENTILE)))

    def distance(self, rows: Sequence[Array]) -> Array:
        """float64 [N], the mean over the stages of ``Features.rows``."""
        return np.mean([stage.distance(found) for stage, found in zip(self.stages, rows, strict=True)], axis=0)

    def is_ood(self, rows: Sequence[Array]) -> NDArray[np.bool_]:
        """Bool [N], whether each image is out of distribution."""
        return self.distance(rows) > self.limit

    def plain(self) -> dict[str, Any]:
        """For a checkpoint; ``of`` is the inverse."""
        return {"stages": [asdict(stage) for stage in self.stages], "limit": self.limit}

    @classmethod
    def of(cls, found: Any, path: Path) -> "FeatureDistance | None":
        """From the entry of the model file at ``path``; None where it has none.

        Raises:
            ValueError: the entry is incomplete.
        """
        if found is None:
            return None
        try:
            return cls(tuple(Stage(**stage) for stage in found["stages"]), found["limit"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: incomplete statistics of its training images; train anew") from error
