"""Files in and out: ffmpeg, strangers' uploads, images, video."""
