"""The kinds of work, one file each."""

from benchmarks.workloads.chat import CHAT
from benchmarks.workloads.document import DOCUMENT
from benchmarks.workloads.images import IMAGES
from benchmarks.workloads.text import TEXT

ALL = {work.name: work for work in (CHAT, IMAGES, DOCUMENT, TEXT)}
