"""The kinds of work, one file each."""

from benchmarks.work.chat import CHAT
from benchmarks.work.document import DOCUMENT
from benchmarks.work.images import IMAGES
from benchmarks.work.text import TEXT

ALL = {work.name: work for work in (CHAT, IMAGES, DOCUMENT, TEXT)}
