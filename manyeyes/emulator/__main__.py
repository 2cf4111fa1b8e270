"""`python -m manyeyes.emulator`: see README.md beside this file."""

import sys

from manyeyes.emulator.server import main

sys.exit(main(sys.argv[1:]))
