"""An answer in the form that a PACS stores: a structured report, and the film with what was found as a picture."""

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from warnings import warn

from PIL import Image, ImageDraw, ImageFont

from cxr import dicom_results, prediction
from cxr.messages import one_line
from reading_room.answers import Exam
from reading_room.page import Model

_BOX_COLOUR = "#E69F00"  # orange of Okabe and Ito, as in the pictures that prediction draws


@dataclass(frozen=True)
class Documents:
    """Where they go, and the models that looked."""

    folder: Path
    classifier: Model
    detector: Model | None

    def write(self, source: Path, exam: Exam, film: bytes, heat: bytes) -> None:
        """What ``exam`` says of the file ``source``; nothing for one that is not DICOM.

        A second time the same documents are written, since their UIDs come from the source and the models. A source
        that allows no valid document, or has gone since it was read, is told by a warning: its answer stands in the
        list all the same.

        Raises:
            OSError: a document cannot be written.
        """
        model = dicom_results.Model("ResNet-18 classifier", self.classifier.hash)
        said = dicom_results.Classification(model, exam.probability, self.classifier.threshold, exam.borderline)
        found = None
        if self.detector is not None:
            boxes = [(box.x, box.y, box.width, box.height, box.score) for box in exam.boxes]
            model, lowest = dicom_results.Model("Faster R-CNN detector", self.detector.hash), self.detector.threshold
            near = prediction.is_borderline(exam.highest, lowest)
            found = dicom_results.Detection(model, boxes, lowest, exam.highest, near)
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "drawn.png"
            drawn(film, heat, exam, self.caption(exam)).save(picture)
            remarks = prediction.remarks(exam.out_of_distribution, one_line(exam.note), self.classifier.adapted)
            results = dicom_results.Results(said, found, picture, remarks)
            try:
                dicom_results.write(source, results, self.folder)
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
