"""`python -m manyeyes.emulator`: see README.md in this folder."""

import sys

from manyeyes.emulator.server import main

sys.exit(main(sys.argv[1:]))
