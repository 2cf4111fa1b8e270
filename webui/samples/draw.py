"""Draws the sample pictures and the page's icon into this folder: python -m webui.samples.draw"""

from __future__ import annotations

from pathlib import Path

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
        "icon.png": icon(),
    }.items():
        picture.save(HERE / name, optimize=True)


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
