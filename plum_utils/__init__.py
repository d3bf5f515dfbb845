"""The machinery behind the lessons."""

import logging

for _name in ("vllm", "bitsandbytes"):  # what they warn of while they load concerns kernels that a CPU never has
    logging.getLogger(_name).setLevel(logging.ERROR)
