from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.models import ResNet18_Weights

from cxr.backbone import downloaded, standardized, tensors, weights_file


def test_images_are_standardized_each_by_itself():
    images = torch.tensor([[0.2, 0.4], [0.4, 0.6]]).expand(1, 1, 2, 2)
    expected = torch.tensor([[-0.2, 0.0], [0.0, 0.2]]) / (np.sqrt(0.02) + 0.03)
    assert torch.allclose(standardized(images)[0, 0], expected, atol=1e-6)
    even = torch.full((1, 1, 4, 4), 0.7)
    assert torch.equal(standardized(even), torch.zeros(1, 1, 4, 4))
    together = standardized(torch.cat([torch.rand(3, 1, 8, 8), images.repeat(1, 1, 4, 4)]))
    assert torch.allclose(together[3], standardized(images.repeat(1, 1, 4, 4))[0])


@pytest.mark.parametrize("problem", [URLError("no such name"), RuntimeError('invalid hash value (expected "f3")')])
def test_weights_that_cannot_be_downloaded_name_the_way_out(monkeypatch, tmp_path, problem):
    def fail(*_args, **_kwargs):
        raise problem

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # nothing is cached there
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    message = r"the ImageNet weights cannot be downloaded .*(no such name|invalid hash).*--weights none"
    with pytest.raises(ConnectionError, match=message):
        downloaded(ResNet18_Weights.IMAGENET1K_V1, "ImageNet")


def test_weights_that_are_no_file_are_refused_with_the_words_there_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^--weights: no file .*imagenot, nor is it imagenet or none$"):
        weights_file("imagenot", "imagenet or none")


@pytest.mark.parametrize("found", [None, [torch.zeros(2)], {"conv1.weight": 3}, {3: torch.zeros(2)}])
def test_what_is_no_state_dict_is_refused_with_its_source(found):
    with pytest.raises(ValueError, match=r"^some\.pth: expected a checkpoint of this project or a state dict"):
        tensors(found, "some.pth")
