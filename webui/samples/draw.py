"""Draws the sample pictures and the page's icon into this folder: python -m webui.samples.draw"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
INK = "#1f2937"
FAINT = "#9ca3af"
ACCENT = "#0f766e"


def main() -> None:
    for name, picture in {
        "receipt.png": receipt(),
        "chart.png": chart(),
        "before.png": desk(cup=(120, 250), lamp=True),
        "after.png": desk(cup=(430, 250), lamp=False),
        "screen-1.png": screen(False),
        "screen-2.png": screen(True),
        "icon.png": icon(),
    }.items():
        picture.save(HERE / name, optimize=True)
    first, *more = letter()
    first.save(HERE / "letter.pdf", save_all=True, append_images=more, resolution=120, title="A letter")
    ball(HERE / "ball.webm")


def receipt() -> Image.Image:
    lines = [
        ("2 x Espresso", "5.60"),
        ("1 x Orange juice", "4.20"),
        ("3 x Croissant", "6.90"),
        ("1 x Sparkling water", "2.80"),
    ]
    picture = Image.new("RGB", (420, 520), "#ffffff")
    draw = ImageDraw.Draw(picture)
    draw.text((210, 50), "CAFE MERIDIAN", INK, _font(28), anchor="mm")
    draw.text((210, 88), "12 March 2026   09:41   Table 7", FAINT, _font(16), anchor="mm")
    y = 140
    for what, price in lines:
        draw.text((40, y), what, INK, _font(20))
        draw.text((380, y), price, INK, _font(20), anchor="ra")
        y += 40
    draw.line((40, y + 6, 380, y + 6), FAINT, 2)
    draw.text((40, y + 24), "TOTAL EUR", INK, _font(24))
    draw.text((380, y + 24), "19.50", INK, _font(24), anchor="ra")
    draw.text((40, y + 72), "incl. VAT 10 %", FAINT, _font(16))
    draw.text((380, y + 72), "1.77", FAINT, _font(16), anchor="ra")
    draw.text((210, 480), "Thank you", FAINT, _font(18), anchor="mm")
    return picture


def chart() -> Image.Image:
    picture = Image.new("RGB", (560, 400), "#ffffff")
    draw = ImageDraw.Draw(picture)
    draw.text((40, 30), "Requests per second, by number of GPUs", INK, _font(20))
    for step in range(5):
        y = 340 - step * 60
        draw.line((60, y, 530, y), "#e5e7eb", 1)
        draw.text((50, y), str(step * 4), FAINT, _font(14), anchor="rm")
    for bar, (gpus, rate) in enumerate((("1 GPU", 3.2), ("2 GPUs", 7.4), ("3 GPUs", 11.8))):
        left, top = 110 + bar * 150, 340 - rate * 15
        draw.rectangle((left, top, left + 90, 340), ACCENT)
        draw.text((left + 45, top - 14), str(rate), INK, _font(16), anchor="mm")
        draw.text((left + 45, 362), gpus, INK, _font(16), anchor="mm")
    return picture


def desk(cup: tuple[int, int], lamp: bool) -> Image.Image:
    """A desk seen from the front; the two pictures differ in where the cup stands and whether the lamp is lit."""
    picture = Image.new("RGB", (560, 400), "#f3efe7")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 310, 560, 400), "#b08968")
    draw.rounded_rectangle((210, 150, 380, 270), 8, "#374151")
    draw.rectangle((220, 160, 370, 260), "#93c5fd")
    draw.polygon([(270, 270), (320, 270), (335, 310), (255, 310)], "#4b5563")
    if lamp:
        draw.polygon([(470, 120), (530, 120), (560, 310), (440, 310)], "#fdf3c4")
    draw.line((500, 310, 500, 110), INK, 6)
    draw.polygon([(480, 70), (520, 70), (535, 115), (465, 115)], "#facc15" if lamp else "#6b7280")
    x, y = cup
    draw.ellipse((x + 40, y + 12, x + 66, y + 42), outline="#b91c1c", width=6)
    draw.rounded_rectangle((x, y, x + 50, y + 60), 6, "#dc2626")
    return picture


def letter() -> list[Image.Image]:
    """Two pages, A4 at 120 dots an inch."""
    pages = (
        (
            "CAFE MERIDIAN",
            "To: Northlight Roasters, Harbour Street 4",
            "Date: 2 April 2026",
            "",
            "Dear Ms Okafor,",
            "",
            "please send us 24 kg of Sumatra, ground for filter, and",
            "6 kg of Yirgacheffe, whole beans, by 17 April.",
            "",
            "The last delivery was two bags short. We enclose the list.",
            "",
            "Kind regards,",
            "J. Lindqvist",
        ),
        (
            "Enclosure: delivery of 26 March 2026",
            "",
            "Sumatra          10 bags ordered      8 received",
            "Yirgacheffe       4 bags ordered      4 received",
            "Decaf             2 bags ordered      2 received",
        ),
    )
    found = []
    for number, lines in enumerate(pages, 1):
        page = Image.new("L", (992, 1403), 255)
        draw = ImageDraw.Draw(page)
        for row, words in enumerate(lines):
            draw.text((110, 130 + row * 46), words, 20, _font(40 if row == 0 and number == 1 else 26))
        draw.text((496, 1330), f"page {number} of {len(pages)}", 120, _font(20), anchor="mm")
        found.append(page)
    return found


def ball(path: Path) -> None:
    """Six seconds: a red ball rolls to the right, and a lamp goes on after three. VP9, which browsers and OpenCV both read."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP90"), 12, (480, 270))
    for number in range(72):
        lit = number >= 36
        frame = Image.new("RGB", (480, 270), "#f3efe7" if lit else "#c9c4ba")
        draw = ImageDraw.Draw(frame)
        draw.rectangle((0, 200, 480, 270), "#b08968")
        draw.line((410, 0, 410, 50), INK, 4)
        draw.polygon([(385, 80), (435, 80), (422, 46), (398, 46)], "#facc15" if lit else "#6b7280")
        x = 30 + number * 5
        draw.ellipse((x, 150, x + 50, 200), "#dc2626")
        writer.write(cv2.cvtColor(np.asarray(frame), cv2.COLOR_RGB2BGR))
    writer.release()


def screen(filled: bool) -> Image.Image:
    """A program's window with a form; in the second picture its field is filled."""
    picture = Image.new("RGB", (960, 600), "#dfe5ec")
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((60, 40, 900, 560), 10, "#ffffff", "#c3ccd6")
    draw.rounded_rectangle((60, 40, 900, 84), 10, "#334155")
    draw.text((84, 62), "Orders", "#ffffff", _font(22), anchor="lm")
    for row, (name, x) in enumerate((("File", 84), ("Edit", 150), ("View", 216), ("Help", 288))):
        draw.text((x, 106), name, INK if row else ACCENT, _font(18), anchor="lm")
    draw.text((100, 170), "Customer", INK, _font(20), anchor="lm")
    draw.rounded_rectangle((260, 150, 700, 190), 6, "#f8fafc", "#94a3b8", 2)
    draw.text((274, 170), "Northlight Roasters" if filled else "", INK, _font(20), anchor="lm")
    draw.text((100, 240), "Amount (kg)", INK, _font(20), anchor="lm")
    draw.rounded_rectangle((260, 220, 420, 260), 6, "#f8fafc", "#94a3b8", 2)
    draw.text((274, 240), "24" if filled else "", INK, _font(20), anchor="lm")
    draw.rectangle((100, 300, 122, 322), "#ffffff", "#94a3b8", 2)
    draw.text((136, 311), "Ground for filter", INK, _font(20), anchor="lm")
    draw.rounded_rectangle((560, 480, 700, 528), 8, "#e2e8f0")
    draw.text((630, 504), "Cancel", INK, _font(20), anchor="mm")
    draw.rounded_rectangle((720, 480, 860, 528), 8, ACCENT if filled else "#9fc5c0")
    draw.text((790, 504), "Submit", "#ffffff", _font(20), anchor="mm")
    return picture


def icon() -> Image.Image:
    """Three eyes in one, drawn large and scaled down for smooth edges."""
    picture = Image.new("RGBA", (512, 512), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((0, 0, 511, 511), 112, ACCENT)
    for x in (136, 256, 376):
        draw.ellipse((x - 46, 150, x + 46, 362), fill="#ffffff")
        draw.ellipse((x - 24, 226, x + 24, 290), fill=INK)
    return picture.resize((64, 64), Image.Resampling.LANCZOS)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


if __name__ == "__main__":
    main()
