"""The kinds of work, one file each."""

from bench.work.chat import CHAT
from bench.work.document import DOCUMENT
from bench.work.images import IMAGES
from bench.work.text import TEXT

ALL = {work.name: work for work in (CHAT, IMAGES, DOCUMENT, TEXT)}
