"""Whether an image is like those that a network was trained on.

What the network's stages put out, averaged over the picture, is compared with the same of its training images: the
Mahalanobis distance on intermediate features tells wrong radiographs, where scores and energies of the output do not
(Anthony and Kamnitsas 2023, doi:10.1007/978-3-031-44336-7_15).
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
_PERCENTILE = 99.5  # of the distances of validation images; so many of images like them pass

Array = NDArray[np.float64]


@dataclass
class Features:
    """What ``features`` collects: one tensor [B, C] for each stage and forward pass."""

    passes: list[list[Tensor]] = field(default_factory=list[list[Tensor]])

    def rows(self, views: int, run: runtime.Runtime) -> list[Array]:
        """float64 [N, C] for each stage: of the N images of all processes, as ``runtime.shard`` dealt them out.

        Args:
            views: consecutive passes that showed the same images; their mean counts.
            run: where the passes were made.
        """
        stages: list[Array] = []
        for passes in self.passes:
            means = [torch.stack(passes[first : first + views]).mean(0) for first in range(0, len(passes), views)]
            stages.append(runtime.gather(torch.cat(means).double().cpu().numpy(), run))
        return stages


@contextmanager
def features(body: nn.Module) -> Generator[Features]:
    """Collect what the ``STAGES`` of ``body`` put out in this block; no pass is made for this alone."""
    found = Features([[] for _ in STAGES])

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
    """What training images look like to one stage of the network.

    Attributes:
        mean: float32 [C].
        whitening: float32 [C, C]; ``(features - mean) @ whitening`` has the length of the Mahalanobis distance.
        usual: median distance of validation images, by which stages with more features do not count for more.
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
        """float64 [N] of ``features`` [N, C]; 1 is usual."""
        centred = features - self.mean.double().numpy()
        return np.linalg.norm(centred @ self.whitening.double().numpy(), axis=1) / self.usual


@dataclass(frozen=True)
class FeatureDistance:
    """What the training images of a network look like to itself, and how far from that an image may lie.

    Attributes:
        stages: one for each of ``STAGES``.
        limit: on ``distance``; what lies beyond is unlike the training images.
    """

    stages: tuple[Stage, ...]
    limit: float

    @classmethod
    def fit(cls, training: Sequence[Array], validation: Sequence[Array]) -> "FeatureDistance":
        """From ``Features.rows`` of the images that were learnt from, and of others like them."""
        stages = tuple(Stage.fit(*both) for both in zip(training, validation, strict=True))
        distances = cls(stages, np.inf).distance(validation)
        return cls(stages, float(np.percentile(distances, _PERCENTILE)))

    def distance(self, rows: Sequence[Array]) -> Array:
        """float64 [N], the mean over the stages; ``rows`` as ``Features.rows`` gives them."""
        return np.mean([stage.distance(found) for stage, found in zip(self.stages, rows, strict=True)], axis=0)

    def is_ood(self, rows: Sequence[Array]) -> NDArray[np.bool_]:
        """Bool [N], whether images lie beyond the limit."""
        return self.distance(rows) > self.limit

    def plain(self) -> dict[str, Any]:
        """For a checkpoint; ``of`` reads it."""
        return {"stages": [asdict(stage) for stage in self.stages], "limit": self.limit}

    @classmethod
    def of(cls, found: Any, path: Path) -> "FeatureDistance | None":
        """What the checkpoint at ``path`` says of it; None where it was written without.

        Raises:
            ValueError: no training writes that.
        """
        if found is None:
            return None
        try:
            return cls(tuple(Stage(**stage) for stage in found["stages"]), found["limit"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: what it says of the look of its training images is damaged; train anew"
            ) from error
