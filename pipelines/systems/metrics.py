"""What can be measured about a finished video.

`measure` needs no model and takes a moment: every video gets its figures. CLIP score and frame consistency need the
whole of CLIP, which is used only where it is at hand (`clip_available`); the manager leases its parts. Pose accuracy
compares the people in a video with those whom it was to follow.

Frames are uint8 (F, H, W, 3) in RGB throughout.
"""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pipelines.models.sources import clip_folder
from pipelines.poses.keypoints import Poses, crop, to_coco
from pipelines.settings import Settings

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

SHORT_SIDE = 256  # pixels; motion is told in pixels of a video of this height or width, whichever is less
BATCH = 8  # frames that CLIP looks at together, so that long videos take no more memory


def measure(frames: np.ndarray) -> dict[str, float]:
    """The figures that every video gets: "flicker" and "motion", rounded to what they can tell."""
    return {"flicker": round(temporal_flicker(frames), 4), "motion": round(motion_magnitude(frames), 2)}


def temporal_flicker(frames: np.ndarray) -> float:
    """The mean absolute difference of consecutive frames, as a share of full scale: 0 (still) to 1; 0 for one frame.

    1 minus VBench's temporal flickering score (Huang et al., 2024, temporal_flickering.py). It can't tell flicker from
    motion: as there, it compares videos of scenes that should stand still.
    """
    if len(frames) == 1:
        return 0.0
    differences = sum(cv2.norm(before, after, cv2.NORM_L1) for before, after in pairwise(frames))
    return differences / (frames[1:].size * 255)


def motion_magnitude(frames: np.ndarray) -> float:
    """How far what moves most goes from one frame to the next, in pixels of a video whose short side has 256; 0 for
    one frame.

    The mean length of the fastest 5 % of the optical flow, averaged over all pairs of consecutive frames. It stands in
    for VBench's dynamic degree (Huang et al., 2024, dynamic_degree.py), which takes the same 5 % of RAFT's flow and
    calls a pair moving above 6 px at this scale; being Farnebäck's flow (2003), it needs no weights and its figures
    compare with each other only. What moves by more than about 15 px a frame is lost and counts for less. Larger frames
    are scaled down first, which bounds the work for each pair.
    """
    if len(frames) == 1:
        return 0.0
    height, width = frames.shape[1:3]
    scale = min(1.0, SHORT_SIDE / min(height, width))
    size = round(width * scale), round(height * scale)
    small = (cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames)
    pictures = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in small)
    speeds = [_top_speed(before, after) for before, after in pairwise(pictures)]
    return float(np.mean(speeds)) * SHORT_SIDE / min(size)


def _top_speed(before: np.ndarray, after: np.ndarray) -> float:
    """The mean length in pixels of the longest 5 % of the flow between two grey pictures, uint8 (h, w)."""
    if np.array_equal(before, after):
        return 0.0  # towards the border Farnebäck's flow between equal pictures is a little more than that
    # Against DIS, OpenCV's other weight-free flow, this one is right to 0.02 px up to 12 px and sees hardly any
    # motion in the noise of plain areas, where DIS sees 10 px.
    guess: Any = None  # OpenCV's types want one
    flow = cv2.calcOpticalFlowFarneback(
        before, after, guess, pyr_scale=0.5, levels=4, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
    )
    lengths = np.linalg.norm(flow, axis=2).ravel()
    fastest = max(1, lengths.size // 20)
    return float(np.partition(lengths, -fastest)[-fastest:].mean())


# With CLIP


def clip_available(settings: Settings) -> bool:
    """Whether CLIP is on this machine. Asks no network."""
    return clip_folder(settings) is not None


def measure_with_clip(
    frames: np.ndarray,
    prompt: str,
    model: "CLIPModel",
    tokenizer: "CLIPTokenizer",
    image_processor: "CLIPImageProcessor",
) -> dict[str, float]:
    """The figures that CLIP adds: "clip_score" and "frame_consistency", rounded to what they can tell."""
    images = embed_frames(frames, model, image_processor)
    text = embed_prompt(prompt, model, tokenizer)
    return {"clip_score": round(clip_score(images, text), 2), "frame_consistency": round(frame_consistency(images), 2)}


def clip_score(images: np.ndarray, text: np.ndarray) -> float:
    """How well the frames show what the prompt says: 100 times their mean cosine, -100 to 100; around 20 to 30 in fact.

    `images` (F, c) and `text` (c,) are unit vectors. FollowYourPose's CLIP score (Ma et al., 2023, Tab. 1: of each
    frame, then averaged) and LOVEU-TGVE's clip_text; Hessel et al.'s factor of 2.5 is in neither.
    """
    return 100 * float((images @ text).mean())


def frame_consistency(images: np.ndarray) -> float:
    """How alike consecutive frames are to CLIP: 100 times their mean cosine, -100 to 100; 100 for one frame.

    `images` (F, c) are unit vectors. FollowYourPose's frame consistency (Ma et al., 2023, Tab. 1), by the protocol of
    Gen-1 (Esser et al., 2023). LOVEU-TGVE's clip_frame takes all pairs instead and is lower.
    """
    if len(images) == 1:
        return 100.0
    return 100 * float((images[:-1] * images[1:]).sum(axis=1).mean())


def embed_frames(frames: np.ndarray, model: "CLIPModel", image_processor: "CLIPImageProcessor") -> np.ndarray:
    """CLIP's embeddings of the frames: unit vectors, fp32 (F, c)."""
    import torch

    embeddings = []
    with torch.no_grad():
        for start in range(0, len(frames), BATCH):
            batch = list(frames[start : start + BATCH])
            inputs = image_processor(images=batch, input_data_format="channels_last", return_tensors="pt")
            pixels = inputs.pixel_values.to(model.device, model.dtype)  # (BATCH, 3, 224, 224), normalised
            # get_image_features returns one thing or another, depending on the version of transformers.
            embeddings.append(model.visual_projection(model.vision_model(pixels).pooler_output))
    return _unit(torch.cat(embeddings))


def embed_prompt(prompt: str, model: "CLIPModel", tokenizer: "CLIPTokenizer") -> np.ndarray:
    """CLIP's embedding of the prompt, cut to the 77 tokens that it reads: a unit vector, fp32 (c,)."""
    import torch

    config: Any = model.config.text_config  # transformers calls it a dict
    length = config.max_position_embeddings
    tokens = tokenizer([prompt], max_length=length, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        return _unit(model.text_projection(model.text_model(tokens.to(model.device)).pooler_output))[0]


# Poses

# How far annotators are apart on COCO's 17 joints, as a share of a person's size (cocodataset.org, keypoints).
SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
BODY = 0.53  # of the box around the joints: the share that a body covers, where nobody has outlined it (CrowdPose)
THRESHOLDS = np.arange(0.5, 0.96, 0.05)


def pose_accuracy(found: Poses, wanted: Poses) -> float:
    """How well the people in a video stand where they should: COCO's average precision of keypoints, 0 to 100.

    `found` are the people in the video, `wanted` those whom it was to follow, of the same frames and picture. In each
    frame, the surest first, everybody found is matched with the one wanted who is most alike (`similarity`) and still
    free; the precision at 101 recalls, averaged over thresholds of likeness from 0.5 to 0.95 (Lin et al., 2014).
    FollowYourPose's pose accuracy (Ma et al., 2023, Tab. 1) is such an average over 1,024 videos. 0 where nobody is
    found, 100 where nobody is wanted and nobody found.
    """
    inside = crop(wanted)  # without the joints beside the picture, which nobody can follow
    frames = [(_people(one), _people(other)) for one, other in zip(found.joints, inside.joints, strict=True)]
    count = sum(len(people) for _, people in frames)
    if not count:
        return 0.0 if any(len(people) for people, _ in frames) else 100.0
    scores = np.concatenate([people[..., 2].mean(axis=1) for people, _ in frames])
    order = np.argsort(-scores, kind="stable")
    likenesses = [(similarity(people, others), people) for people, others in frames]
    precisions = []
    for threshold in THRESHOLDS:
        right = [_matched(*each, threshold) for each in likenesses]
        hits = np.cumsum(np.concatenate(right)[order])
        precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
        at = np.searchsorted(hits / count, np.linspace(0, 1, 101))
        precisions.append(np.append(precision, 0)[at].mean())
    return 100 * float(np.mean(precisions))


def similarity(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """COCO's object keypoint similarity of people [N, 17, 3] and [M, 17, 3]: [N, M], each from 0 to 1.

    The mean over the joints that the wanted one has of exp(-d^2 / (2 s^2 k^2)), with d the distance in pixels, k twice
    the joint's SIGMAS and s^2 the body's area, here BODY times the box around its joints. A joint that was not found
    counts 0.
    """
    seen = wanted[..., 2] > 0  # [M, 17]
    corners = np.where(seen[..., None], wanted[..., :2], np.nan)
    sides = np.nanmax(corners, axis=1) - np.nanmin(corners, axis=1)  # [M, 2]
    area = np.maximum(BODY * sides.prod(axis=1), 1.0)
    squares = ((found[:, None, :, :2] - wanted[None, :, :, :2]) ** 2).sum(axis=-1)  # [N, M, 17]
    alike = np.exp(-squares / (2 * area[:, None] * (2 * SIGMAS) ** 2)) * (found[:, None, :, 2] > 0)
    return (alike * seen).sum(axis=-1) / seen.sum(axis=-1)


def _matched(likeness: np.ndarray, people: np.ndarray, threshold: float) -> np.ndarray:
    """Which of the found `people` [N, 17, 3] stand for one who is wanted: bool [N]. `likeness` is [N, M]."""
    right, free = np.zeros(len(people), bool), np.ones(likeness.shape[1], bool)
    for index in np.argsort(-people[..., 2].mean(axis=1), kind="stable"):
        left = np.where(free, likeness[index], -1)
        if free.any() and left.max() >= threshold:
            right[index], free[left.argmax()] = True, False
    return right


def _people(frame: np.ndarray) -> np.ndarray:
    """The people of one frame who have a joint, as COCO counts joints: [P, 18, 3] -> [N, 17, 3]."""
    people = to_coco(frame)
    return people[(people[..., 2] > 0).any(axis=1)]


def _unit(vectors) -> np.ndarray:
    """The rows of a tensor (n, c), each of length 1."""
    vectors = vectors.float().cpu().numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
