"""Fast tokenizers of each kind, trained on the spot on a few sentences."""

from collections.abc import Callable

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

_SENTENCES = (
    "The River bends north of an old mill where grain was ground by water until steam came and "
    "cheaper flour followed; nobody repaired its wheel, yet children still climb inside each "
    "summer. Übrigens: naïve Cafés, 42 boats, 3.5 metres deep! why?"
)
WORDS = _SENTENCES.split()


def _train(tokenizer: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    tokenizer.train_from_iterator(WORDS * 3, trainer)
    return tokenizer


def _word_pieces() -> Tokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    _train(tokenizer, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def _word_pieces_of_mpnet() -> Tokenizer:
    special = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    _train(tokenizer, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def _byte_pairs() -> Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(
        tokenizer,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet),
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _unigrams(special: list[str], single: str, pair: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>")
    _train(tokenizer, trainer)
    named = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=named
    )
    return tokenizer


def _unigrams_of_xlm() -> Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return _unigrams(special, "<s> $A </s>", "<s> $A </s> </s> $B </s>")


def _unigrams_of_t5() -> Tokenizer:
    return _unigrams(["<pad>", "</s>", "<unk>"], "$A </s>", "$A </s> $B </s>")


def _unigrams_of_deberta() -> Tokenizer:
    special = ["[PAD]", "[CLS]", "[SEP]", "<unk>", "[MASK]"]
    return _unigrams(special, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "bert": _word_pieces,
    "distilbert": _word_pieces,
    "mpnet": _word_pieces_of_mpnet,
    "roberta": _byte_pairs,
    "modernbert": _byte_pairs,
    "xlm-roberta": _unigrams_of_xlm,
    "camembert": _unigrams_of_xlm,
    "deberta-v2": _unigrams_of_deberta,
    "t5": _unigrams_of_t5,
}


def special_tokens(family: str) -> dict[str, str]:
    """Return what transformers calls the special tokens of a family's tokenizer."""
    if family in ("bert", "distilbert", "deberta-v2"):
        return {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return {"pad_token": "<pad>", "eos_token": "</s>"}
