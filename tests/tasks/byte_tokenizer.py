"""A tokenizer unlike any model's: one token a byte."""


class ByteTokenizer:
    def encode(self, text):
        return list(text.encode())

    def decode(self, token_ids, *, skip_special_tokens):
        return bytes(token_ids).decode(errors="replace")
