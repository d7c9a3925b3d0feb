"""Poses: detection, keypoints, skeletons, and the sequence that a dancer follows."""
