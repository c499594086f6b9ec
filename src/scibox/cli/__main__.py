"""`python -m scibox.cli`."""

import sys

from scibox.cli import main

sys.exit(main())
