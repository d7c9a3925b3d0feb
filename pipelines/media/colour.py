"""How a clip's pixels are read: what is transparent gets a plain colour behind it, and high dynamic range is mapped to
what every screen shows. What ffmpeg says of the stream decides.
"""

import re
from dataclasses import dataclass

WHITE_NITS = 120  # what becomes white: between the 100 of a studio and the 203 of broadcasts, whose brightest is bent
KNEE = 0.8  # up to this share of white the light stays as it is; what is brighter is bent to fit
TRANSPARENT = re.compile(r"\b(?:yuva\d|rgba|bgra|argb|abgr|gbrap|ya8|ya16|pal8)")
RGB = re.compile(r"\b(?:rgb|bgr|gbr|0rgb|0bgr|argb|abgr|pal8|gray|ya8|ya16)")
WIDE_TRANSFERS = ("smpte2084", "arib-std-b67")  # PQ and HLG
WIDE_PRIMARIES = ("bt2020", "smpte432", "smpte431")  # BT.2020, and Display P3 and DCI P3
UNMARKED = ("unknown", "reserved")
HD = 1280, 720  # from either on, what is not marked is taken as BT.709, as browsers do; smaller as BT.601
# Matrix, primaries and transfer, in ffmpeg's words; one word where all are called the same.
MARKS = re.compile(r"[(,] ?(?:([\w-]+)/([\w-]+)/([\w-]+)|(bt709|smpte170m|smpte240m))[,)]")
ICTCP = "ictcp"  # the matrix of BT.2100 that only zscale knows
DOLBY = re.compile(r"DOVI configuration record: .*\bprofile: 5\b")  # for which each frame has a matrix of its own
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # ffmpeg's own pass over the alpha of these


@dataclass(frozen=True)
class Pixels:
    """What a stream's pixels need to become plain ones."""

    decoder: str | None = None  # instead of ffmpeg's own
    transparent: bool = False
    wide: bool = False  # high dynamic range
    primaries: bool = False  # standard range with primaries of a wider gamut
    constant: bool = False  # ICtCp, of a constant intensity
    unreadable: bool = False  # Dolby Vision's own colours
    marks: str = ""  # what the stream should say of its colours and does not: options of ffmpeg's setparams

    @property
    def before(self) -> list[str]:
        """Options of ffmpeg for the input."""
        return ["-c:v", self.decoder] if self.decoder else []

    @property
    def first(self) -> list[str]:
        """Filters before the picture is made smaller: else the colour behind would be mixed in at the edges."""
        marks = [f"setparams={self.marks}"] if self.marks else []
        if self.constant:
            marks.append("zscale=m=bt2020nc,format=yuv444p16le")
        if not self.transparent:
            return marks
        behind = "drawbox=c=white:replace=1:t=fill"
        return [*marks, f"format=rgba,split[over][under];[under]{behind}[white];[white][over]overlay=format=rgb"]

    @property
    def last(self) -> list[str]:
        """Filters after that: they are slow. They take no odd sizes of a picture whose colours are stored coarser."""
        full = "format=yuv444p16le|gbrp16le"
        if self.wide:
            linear = f"zscale=t=linear:m=gbr:npl={WHITE_NITS},format=gbrpf32le,zscale=p=bt709"
            mapped = f"tonemap=mobius:param={KNEE}:desat=0"
            return [f"{full},{linear},{mapped},zscale=t=bt709:m=bt709:r=limited,format=yuv444p"]
        if self.primaries:
            return [f"{full},zscale=p=bt709:t=bt709:m=bt709:r=limited,format=yuv444p"]
        return []


def pixels(log: str) -> Pixels:
    """What the first moving picture in ffmpeg's `log` of a file (at the level "info") needs.

    Where a frame of it was decoded, the log also has the line of that: what frames say of their colours counts more
    than what the file says.
    """
    found = re.search(r"^ *Stream #0:\d+.*?: Video: (?!.*\(attached pic\))(.*)$((?:\n(?! *Stream|\S).*)*)", log, re.M)
    if found is None:
        return Pixels()
    line, rest = found.groups()
    codec = line.split()[0].strip(",")
    decoder = ALPHA_DECODERS.get(codec) if re.search(r"^ *alpha_mode *: 1", rest, re.MULTILINE) else None
    decoded = re.search(r"^Output #0(?:.*\n)+? *Stream #0:\d+.*?: Video: (.*)$", log, re.MULTILINE)
    frame = decoded[1] if decoded else line
    of_file, of_frame = _marks(line), _marks(frame)
    told = [file if mark in UNMARKED else mark for file, mark in zip(of_file, of_frame, strict=True)]
    matrix, primaries, transfer = told
    constant = matrix == ICTCP
    wide, gamut = constant or transfer in WIDE_TRANSFERS, primaries in WIDE_PRIMARIES
    usual = ["bt2020nc", "bt2020", "bt709"] if wide or gamut else ["bt709" if _is_hd(line) else "", "", ""]
    if constant:
        usual[2] = "smpte2084"
    if RGB.search(frame):
        usual[0] = ""
    meant = [usually if mark in UNMARKED else mark for mark, usually in zip(told, usual, strict=True)]
    marks = ":".join(
        f"{name}={mark}"
        for name, known, mark in zip(("colorspace", "color_primaries", "color_trc"), of_frame, meant, strict=True)
        if known in UNMARKED and mark
    )
    # HEVC's alpha lies in a layer of its own, of which the file's line says nothing.
    transparent = decoder is not None or any(TRANSPARENT.search(each) for each in (line, frame))
    dolby = DOLBY.search(rest) is not None
    return Pixels(decoder, transparent, wide, gamut, constant=constant, unreadable=dolby, marks=marks)


def _marks(line: str) -> tuple[str, str, str]:
    """Matrix, primaries and transfer of the stream that ffmpeg's `line` is about, each perhaps of UNMARKED."""
    found = MARKS.search(line)
    if found is None:
        return UNMARKED[0], UNMARKED[0], UNMARKED[0]
    *three, all_of_them = found.groups()
    matrix, primaries, transfer = three if all_of_them is None else [all_of_them] * 3
    return matrix, primaries, transfer


def _is_hd(line: str) -> bool:
    size = re.search(r", (\d+)x(\d+)\b", line)
    return size is not None and (int(size[1]) >= HD[0] or int(size[2]) >= HD[1])
