"""`python -m popcloud` is the command `popcloud`."""

import sys

from popcloud.cli import main

if __name__ == "__main__":
    sys.exit(main())
