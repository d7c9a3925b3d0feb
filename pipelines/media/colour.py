"""How a clip's pixels are read: what is transparent gets a plain colour behind it, and high dynamic range is mapped to
what every screen shows. What ffmpeg says of the stream decides.
"""

import re
from dataclasses import dataclass

WHITE_NITS = 120  # what becomes white: between the 100 of a studio and the 203 of broadcasts, whose brightest is bent
KNEE = 0.8  # up to this share of white the light stays as it is; what is brighter is bent to fit
TRANSPARENT = re.compile(r"\b(?:yuva\d|rgba|bgra|argb|abgr|gbrap|ya8|ya16|pal8)")
WIDE_TRANSFERS = ("smpte2084", "arib-std-b67")  # PQ and HLG
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # ffmpeg's own pass over the alpha of these


@dataclass(frozen=True)
class Pixels:
    """What a stream's pixels need to become plain ones."""

    decoder: str | None = None  # instead of ffmpeg's own
    transparent: bool = False
    wide: bool = False  # high dynamic range
    primaries: bool = False  # standard range with BT.2020's primaries

    @property
    def before(self) -> list[str]:
        """Options of ffmpeg for the input."""
        return ["-c:v", self.decoder] if self.decoder else []

    @property
    def first(self) -> list[str]:
        """Filters before the picture is made smaller: else the colour behind would be mixed in at the edges."""
        if not self.transparent:
            return []
        behind = "drawbox=c=white:replace=1:t=fill"
        return [f"format=rgba,split[over][under];[under]{behind}[white];[white][over]overlay=format=rgb"]

    @property
    def last(self) -> list[str]:
        """Filters after that: they are slow."""
        if self.wide:
            linear = f"zscale=t=linear:npl={WHITE_NITS},format=gbrpf32le,zscale=p=bt709"
            return [f"{linear},tonemap=mobius:param={KNEE}:desat=0,zscale=t=bt709:m=bt709:r=limited,format=yuv444p"]
        if self.primaries:
            return ["zscale=p=bt709:t=bt709:m=bt709:r=limited,format=yuv444p"]
        return []


def pixels(log: str) -> Pixels:
    """What the first moving picture in ffmpeg's `log` of a file (at the level "info") needs."""
    found = re.search(r"^ *Stream #0:\d+.*?: Video: (?!.*\(attached pic\))(.*)$((?:\n(?! *Stream|\S).*)*)", log, re.M)
    if found is None:
        return Pixels()
    line, rest = found.groups()
    codec = line.split()[0].strip(",")
    if codec in ALPHA_DECODERS and re.search(r"^ *alpha_mode *: 1", rest, re.MULTILINE):
        return Pixels(decoder=ALPHA_DECODERS[codec], transparent=True)
    return Pixels(
        transparent=bool(TRANSPARENT.search(line)),
        wide=any(transfer in line for transfer in WIDE_TRANSFERS),
        primaries="bt2020" in line,
    )
