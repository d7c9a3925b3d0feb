"""BlazePose's two networks, out of MediaPipe's wheel and into assets/detectors/blazepose. To be run once.

    pip download --no-deps --only-binary :all: mediapipe==0.10.21
    pip install ai-edge-litert==2.3.0
    python -m scripts.convert_blazepose mediapipe-0.10.21-*.whl

Of the wheel only two files are read; the package itself is not wanted (it pins numpy below 2, protobuf and jax).
LiteRT, which is no requirement of the app, tells the layers and their weights, and records what they make of two
pictures, drawn here, for tests/test_blazepose.py.
"""

import argparse
import hashlib
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from pipelines.models.networks.blazepose import BlazePoseDetector, BlazePoseLandmarks

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "assets" / "detectors" / "blazepose"
RECORDED = ROOT / "tests" / "data" / "blazepose.npz"
WHEEL = "mediapipe 0.10.21"
PARTS = {  # part -> its file in the wheel, the file's SHA-256, the module, and the outputs that it makes
    "detector": (
        "mediapipe/modules/pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        BlazePoseDetector,
        ("Identity", "Identity_1"),
    ),
    "landmarks": (
        "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        BlazePoseLandmarks,
        ("Identity", "Identity_1"),
    ),
}
LICENCE = "mediapipe-0.10.21.dist-info/LICENSE"
NOTICE = """BlazePose, as published by Google in MediaPipe 0.10.21 (https://github.com/google-ai-edge/mediapipe).
Copyright the MediaPipe authors. Licensed under the Apache License, Version 2.0: see LICENSE.

The weights of pose_detection.tflite and pose_landmark_full.tflite were converted to safetensors by
scripts/convert_blazepose.py of this app, which changed the format and the names, but no value. What is not used here
was left out: the heatmaps, the segmentation mask and the world landmarks.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wheel", type=Path)
    wheel = zipfile.ZipFile(parser.parse_args().wheel)
    recorded = {}
    for part, (name, digest, build, outputs) in PARTS.items():
        content = wheel.read(name)
        if hashlib.sha256(content).hexdigest() != digest:
            raise SystemExit(f"{name} is not the file of {WHEEL}: its SHA-256 is another.")
        interpreter = _interpreter(content)
        module = build().eval()
        module.load_state_dict(_weights(interpreter, outputs, module), strict=True)
        for kind, picture in pictures(interpreter.get_input_details()[0]["shape"][1]).items():
            scaled = picture.astype(np.float32) / 255 if part == "landmarks" else picture.astype(np.float32) / 127.5 - 1
            for output, values in zip(outputs, _run(interpreter, scaled, outputs), strict=True):
                recorded[f"{part} {kind} {output}"] = values
        folder = ASSETS / part
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: value.half() for key, value in module.state_dict().items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"_class_name": build.__name__}) + "\n")
    (ASSETS / "LICENSE").write_bytes(wheel.read(LICENCE))
    (ASSETS / "NOTICE").write_text(NOTICE)
    np.savez_compressed(RECORDED, **recorded)


def pictures(side: int) -> dict[str, np.ndarray]:
    """Pictures uint8 [side, side, 3] to compare on: a drawn figure before a gradient, and noise."""
    ramp = np.linspace(60, 220, side)
    figure = np.stack([np.add.outer(ramp, ramp) / 2, np.tile(ramp, (side, 1)), np.full((side, side), 150)], -1)
    figure = np.ascontiguousarray(figure.astype(np.uint8))

    def at(x: float, y: float) -> tuple[int, int]:
        return round(x * side), round(y * side)

    skin, shirt, trousers, hair = (224, 172, 140), (40, 70, 160), (50, 50, 60), (60, 40, 30)
    thick = round(0.06 * side)
    for start, end, colour in (
        *((at(0.46, 0.55), at(0.44, 0.72), trousers), (at(0.44, 0.72), at(0.43, 0.9), trousers)),
        *((at(0.54, 0.55), at(0.57, 0.72), trousers), (at(0.57, 0.72), at(0.56, 0.9), trousers)),
        *((at(0.42, 0.33), at(0.33, 0.45), shirt), (at(0.33, 0.45), at(0.3, 0.32), skin)),
        *((at(0.58, 0.33), at(0.67, 0.44), shirt), (at(0.67, 0.44), at(0.72, 0.56), skin)),
    ):
        cv2.line(figure, start, end, colour, thick, cv2.LINE_AA)
    torso = np.array([at(0.41, 0.3), at(0.59, 0.3), at(0.56, 0.57), at(0.44, 0.57)])
    cv2.fillConvexPoly(figure, torso, shirt, cv2.LINE_AA)
    cv2.ellipse(figure, at(0.5, 0.2), at(0.055, 0.075), 0, 0, 360, skin, -1, cv2.LINE_AA)
    cv2.ellipse(figure, at(0.5, 0.165), at(0.058, 0.05), 0, 180, 360, hair, -1, cv2.LINE_AA)
    for x in (0.48, 0.52):
        cv2.circle(figure, at(x, 0.195), max(1, side // 90), (30, 30, 30), -1, cv2.LINE_AA)
    cv2.ellipse(figure, at(0.5, 0.235), at(0.02, 0.008), 0, 0, 180, (150, 60, 60), 2, cv2.LINE_AA)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    return {"figure": figure, "noise": cv2.GaussianBlur(noise, (0, 0), 2)}


def _interpreter(content: bytes):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,  # the weights, unpacked, are among them
    )
    interpreter.allocate_tensors()
    return interpreter


def _run(interpreter, image: np.ndarray, outputs: tuple[str, ...]) -> list[np.ndarray]:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    found = {each["name"]: each["index"] for each in interpreter.get_output_details()}
    return [interpreter.get_tensor(found[name]).copy() for name in outputs]


def _weights(interpreter, outputs: tuple[str, ...], module: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of `module`, whose convolutions are defined in the order of the file, but for the trunk's, which
    come first.
    """
    side = interpreter.get_input_details()[0]["shape"][1]
    _run(interpreter, np.zeros((side, side, 3), np.float32), outputs)  # unpacks the weights
    operators = interpreter._get_ops_details()
    makes = {output: operator for operator in operators for output in operator["outputs"]}

    def ancestors(tensors: list[int]) -> set[int]:
        """The numbers of the operators that `tensors` come from."""
        found, open_ends = set(), list(tensors)
        while open_ends:
            operator = makes.get(open_ends.pop())
            if operator is not None and operator["index"] not in found:
                found.add(operator["index"])
                open_ends += operator["inputs"].tolist()
        return found

    names = {each["name"]: each["index"] for each in interpreter.get_output_details()}
    used = ancestors([names[name] for name in outputs])
    convolutions = [
        operator
        for operator in operators
        if operator["index"] in used and operator["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D")
    ]
    width = module.trunk.last[-2].out_channels
    top = next(each for each in convolutions if interpreter.get_tensor(each["inputs"][1]).shape == (1, 3, 3, width))
    trunk = ancestors(top["outputs"].tolist())
    convolutions.sort(key=lambda operator: operator["index"] not in trunk)
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)}
    weights = {}
    for (name, layer), operator in zip(layers.items(), convolutions, strict=True):
        weight, bias = (torch.tensor(interpreter.get_tensor(index)) for index in operator["inputs"][1:3])
        depthwise = operator["op_name"] == "DEPTHWISE_CONV_2D"
        weight = weight.permute(3, 0, 1, 2) if depthwise else weight.permute(0, 3, 1, 2)
        if weight.shape != layer.weight.shape or not torch.equal(weight.half().float(), weight):
            raise SystemExit(f"{name} should be {list(layer.weight.shape)}, and is {list(weight.shape)} in the file.")
        weights |= {f"{name}.weight": weight.contiguous(), f"{name}.bias": bias}
    return weights


if __name__ == "__main__":
    main()
