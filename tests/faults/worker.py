"""The real worker with faults in it, as a command line: `python -m tests.faults.worker train`. For tests only.

LUTHIER_FAULT_DEADLY_FILE    the process ends at once when it checks this file, as if memory had run out
"""

import os
from typing import Any

from workers import __main__ as command
from workers.data.tokenized import TokenizedDataset
from workers.jobs import datasets

DEADLY_FILE = os.environ["LUTHIER_FAULT_DEADLY_FILE"]
check_file = datasets.check_file


def deadly_check(*arguments: Any, **options: Any) -> TokenizedDataset:
    if options["file_id"] == DEADLY_FILE:
        os._exit(9)
    return check_file(*arguments, **options)


if __name__ == "__main__":
    datasets.check_file = deadly_check
    command.main()
