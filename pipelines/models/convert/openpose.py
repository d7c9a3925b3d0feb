"""OpenPose's body network as lllyasviel/Annotators has it -> `bodypose_model` of controlnet-aux."""

from collections.abc import Mapping
from typing import Any

FILE = "body_pose_model.pth"
CONFIG = {"_class_name": "bodypose_model"}


def body_weights(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The file names layers alone ("conv1_1.weight"), the module by stage and layer ("model0.conv1_1.weight").

    Raises KeyError where a tensor is missing.
    """
    import torch
    from controlnet_aux.open_pose.model import bodypose_model

    with torch.device("meta"):
        names = list(bodypose_model().state_dict())
    return {name: weights[name.partition(".")[2]] for name in names}
