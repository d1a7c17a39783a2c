"""An answer in the form that a PACS stores: a structured report, and the film with what was found as a picture."""

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from warnings import warn

from PIL import Image, ImageDraw, ImageFont

from cxr import dicom_results
from cxr.messages import one_line
from cxr.prediction import Box, Model, Prediction
from reading_room.answers import Exam

_BOX_COLOUR = "#E69F00"  # orange of Okabe and Ito, as in the pictures that prediction draws


@dataclass(frozen=True)
class Documents:
    """Where DICOM results go, and the models they are from."""

    folder: Path
    classifier: Model
    detector: Model | None

    def write(self, source: Path, exam: Exam, film: bytes, heat: bytes) -> None:
        """The DICOM results of the file ``source``; nothing for one that is not DICOM.

        A source that allows no valid document, or is gone since it was read, causes a warning: the exam is on the
        worklist all the same.

        Raises:
            OSError: a document cannot be written.
        """
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "drawn.png"
            drawn(film, heat, exam, self.caption(exam)).save(picture)
            predicted = Prediction(
                source,
                note=one_line(exam.note),
                probability=exam.probability,
                boxes=tuple(Box(box.x, box.y, box.width, box.height, box.score) for box in exam.boxes),
                highest_score=exam.highest,
                out_of_distribution=exam.out_of_distribution,
                picture=picture,
            )
            try:
                dicom_results.write(predicted, self.folder, self.classifier, self.detector)
            except (ValueError, FileNotFoundError) as error:  # the second: the source has gone
                warn(f"no DICOM document: {one_line(error)}", stacklevel=2)

    def caption(self, exam: Exam) -> str:
        """The answer in a line."""
        borderline = ", borderline" if exam.borderline else ""
        unlike = ", unlike training" if exam.out_of_distribution else ""
        point = f"operating point {self.classifier.threshold:.3f}"
        text = f"Probability of PNEUMONIA {exam.probability:.3f} ({point}{borderline}{unlike})"
        if self.detector is None:
            return text
        return f"{text}; boxes from score {self.detector.threshold:.3f}: {len(exam.boxes) or 'none'}"


def drawn(film: bytes, heat: bytes, exam: Exam, caption: str) -> Image.Image:
    """The film with boxes and scores, beside it the film under Grad-CAM, both as in the page; above them a caption."""
    with Image.open(io.BytesIO(film)) as jpeg, Image.open(io.BytesIO(heat)) as webp:
        plain = jpeg.convert("RGB")
        warm = webp.convert("RGBA").resize(plain.size, Image.Resampling.BICUBIC)
    boxed, heated = plain.copy(), plain.copy()
    heated.paste(warm, mask=warm)
    font_size = max(10, plain.width // 32)
    draw, font = ImageDraw.Draw(boxed), ImageFont.load_default(font_size)
    across, down = plain.width / exam.width, plain.height / exam.height
    for box in reversed(exam.boxes):  # the highest score on top
        left, top = box.x * across, box.y * down
        draw.rectangle((left, top, left + box.width * across, top + box.height * down), outline=_BOX_COLOUR, width=2)
        draw.text((left + 4, top + 2), f"{box.score:.2f}", _BOX_COLOUR, font, stroke_width=2, stroke_fill="black")
    gap = max(1, plain.width // 60)
    width, strip = 2 * plain.width + gap, 2 * font_size
    both = Image.new("RGB", (width, plain.height + strip), "white")
    ImageDraw.Draw(both).text((strip // 4, strip // 2), caption, "black", font, anchor="lm")
    both.paste(boxed, (0, strip))
    both.paste(heated, (plain.width + gap, strip))
    return both
