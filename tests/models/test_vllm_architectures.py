"""vLLM on the paper's architectures with tokenizers of their kinds: settings that it knows, and what transformers says."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, Starcoder2Model

from plum_utils.models.completions import Backend
from plum_utils.models.engines import open_backend
from plum_utils.models.tokenizer import load_tokenizer
from plum_utils.models.vllm_engine import VLLM_LORA_RANKS, _spare_transformers_class, engine_settings, vllm_lora_rank
from plum_utils.models.weights import merge_adapter
from plum_utils.params import EngineParams
from plum_utils.study.tiny_tokenizers import write_tokenizer

KINDS = {"llama": "deepseek-coder", "qwen2": "codeqwen", "starcoder2": "starcoder2"}
TEXTS = ["def add(a, b):\n    return a + b\n", "if x:\n    print(x)\n", "for i in range(10):\n    total += i\n"]

pytestmark = pytest.mark.long("upgrade")


def checkpoint(architecture: str, folder: Path) -> str:
    """A tiny model whose weights are drawn so wide that logits lie units apart; nothing stops its answers, and tokens that
    are no text of their own are never the likeliest: how a text with broken characters is decoded is not what is compared."""
    write_tokenizer(KINDS[architecture], TEXTS, folder)
    tokenizer = load_tokenizer(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, vocab_size=64 * math.ceil(len(tokenizer) / 64),
        bos_token_id=None, eos_token_id=None, pad_token_id=None, initializer_range=0.2)
    model = AutoModelForCausalLM.from_config(config)
    broken = [token for token in range(config.vocab_size)
              if token >= len(tokenizer) or not tokenizer.decode([token]).isascii()]
    with torch.no_grad():
        model.lm_head.weight[broken] = 0
    model.save_pretrained(folder)
    return str(folder)


def drawn_adapter(base: str, folder: Path, seed: int) -> str:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2)
    model.save_pretrained(folder)
    return str(folder)


def answers(backend: Backend, **how) -> list[str]:
    return [outs[0].text for outs in backend.generate(TEXTS, max_tokens=12, **how)]


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """(checkpoint, two adapters, what transformers and PEFT say to ``TEXTS`` without and with each)."""
    home = tmp_path_factory.mktemp(request.param)
    (home / "base").mkdir()
    base = checkpoint(request.param, home / "base")
    adapters = [drawn_adapter(base, home / f"adapter{seed}", seed) for seed in (1, 2)]
    with closing(open_backend("transformers", base, "float32")) as backend:
        expected = {one: answers(backend, adapter=one) for one in (None, *adapters)}
    assert len({str(outs) for outs in expected.values()}) == 3
    return base, adapters, expected


@pytest.mark.parametrize("gpu", [False, True])
def test_vllm_knows_every_setting(made, gpu):
    args = pytest.importorskip("vllm").EngineArgs
    for rank in (4, VLLM_LORA_RANKS[-1]):
        settings = engine_settings(EngineParams(), gpu) | {"enable_lora": True, "max_lora_rank": vllm_lora_rank(rank), "max_loras": 1}
        config = args(model=made[0], tokenizer=made[0], dtype="float32", max_model_len=256, **settings).create_engine_config()
        assert config.lora_config.max_lora_rank >= rank and config.model_config.max_model_len == 256


def test_what_vllm_does_to_a_class_leaves_transformers_model_as_it_is(tmp_path):
    """The Transformers backend decorates the class that ``AutoModel`` finds, after which it needs a vLLM configuration."""
    decorators = pytest.importorskip("vllm.compilation.decorators")
    config = AutoConfig.for_model("starcoder2", hidden_size=64, intermediate_size=64, num_hidden_layers=1,
                                  num_attention_heads=2, num_key_value_heads=1, vocab_size=64, bos_token_id=0, eos_token_id=0)
    config.save_pretrained(tmp_path)
    AutoModel.register(type(config), Starcoder2Model, exist_ok=True)  # as before any engine of this process
    for _ in range(2):  # a second engine finds the class of the first
        _spare_transformers_class(str(tmp_path))
    taken = type(AutoModel.from_config(config).get_decoder())
    decorators.support_torch_compile(dynamic_arg_dims={"input_ids": 1, "inputs_embeds": 1, "position_ids": -1})(taken)
    assert type(AutoModelForCausalLM.from_config(config).model) is taken.__mro__[1] is Starcoder2Model
    with pytest.raises(AssertionError, match="vLLM config is not set"):
        AutoModel.from_config(config)


@pytest.mark.parametrize("adapters", ["merge", "serve"])
def test_adapters_answer_as_transformers_and_peft_do(made, adapters, tmp_path):
    pytest.importorskip("vllm")
    base, both, expected = made
    with closing(open_backend("vllm", base, "float32", lora_rank=4, adapters=adapters)) as backend:
        for one in (None, *both, None):
            assert answers(backend, adapter=one) == expected[one]
        merge_adapter(base, both[0], str(tmp_path), "float32")  # the model can still be built beside an engine
    with closing(open_backend("transformers", str(tmp_path), "float32")) as merged:
        assert answers(merged) == expected[both[0]]
