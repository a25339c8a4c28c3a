"""`python -m federated.cli`: the same as `atcp`."""

import sys

from federated.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
