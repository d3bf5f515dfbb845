"""The machinery behind the lessons."""

import logging

# What these two warn of while they load concerns kernels that a CPU never has.
for _name in ("vllm.triton_utils.importing", "bitsandbytes.backends.cpu.ops"):
    logging.getLogger(_name).setLevel(logging.ERROR)
