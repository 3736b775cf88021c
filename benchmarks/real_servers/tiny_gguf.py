"""A tiny llama with random weights as a GGUF file: `python tiny_gguf.py FILE`, in an environment that has gguf.

It says nothing that makes sense, but it says it: only printable ASCII, never the end, and the same each time.
"""

import sys
from pathlib import Path

import gguf
import numpy as np

_WIDTH, _HIDDEN, _LAYERS, _HEADS, _KV_HEADS, _CONTEXT = 64, 128, 2, 4, 2, 2048
_SPECIAL = ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def letters() -> dict[int, str]:
    """GPT-2's letter for each byte: the byte's own where it has one that shows, else one from 256 on."""
    own = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in own]
    return {**{byte: chr(byte) for byte in own}, **{byte: chr(256 + at) for at, byte in enumerate(rest)}}


def write(path: Path) -> None:
    letter = letters()
    tokens = [letter[byte] for byte in range(256)] + ["th", *_SPECIAL]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    plain, control = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
    writer.add_token_types([control if token in _SPECIAL else plain for token in tokens])
    writer.add_token_merges(["t h"])
    end = tokens.index(_SPECIAL[0])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_chat_template(_TEMPLATE)
    for name, tensor in _tensors(len(tokens)).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(tokens: int) -> dict[str, np.ndarray]:
    dice = np.random.default_rng(1)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return dice.normal(0, 0.1, (rows, columns)).astype(np.float32)

    ones = np.ones(_WIDTH, np.float32)
    last = matrix(tokens, _WIDTH)
    last[[token for token in range(tokens) if not ord("!") <= token <= ord("~")]] = 0
    found = {"token_embd.weight": matrix(tokens, _WIDTH), "output_norm.weight": ones, "output.weight": last}
    of_keys = _WIDTH // _HEADS * _KV_HEADS
    for at in range(_LAYERS):
        block = f"blk.{at}."
        found |= {
            f"{block}attn_norm.weight": ones,
            f"{block}attn_q.weight": matrix(_WIDTH, _WIDTH),
            f"{block}attn_k.weight": matrix(of_keys, _WIDTH),
            f"{block}attn_v.weight": matrix(of_keys, _WIDTH),
            f"{block}attn_output.weight": matrix(_WIDTH, _WIDTH),
            f"{block}ffn_norm.weight": ones,
            f"{block}ffn_gate.weight": matrix(_HIDDEN, _WIDTH),
            f"{block}ffn_up.weight": matrix(_HIDDEN, _WIDTH),
            f"{block}ffn_down.weight": matrix(_WIDTH, _HIDDEN),
        }
    return found


if __name__ == "__main__":
    write(Path(sys.argv[1]))
