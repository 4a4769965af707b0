"""The tokenizer under OpenAI's module name."""

from clip.simple_tokenizer import SimpleTokenizer, get_tokenizer


def test_names_that_trainers_use():
    tokenizer = SimpleTokenizer()
    assert tokenizer.encode("Hello World!") == [3306, 1002, 256]  # ids of the published vocabulary
    assert tokenizer.decode([3306, 1002, 256]) == "hello world ! "
    assert tokenizer.decoder[3306] == "hello</w>"
    assert tokenizer.encoder["hello</w>"] == 3306
    assert tokenizer.encoder["<|startoftext|>"] == tokenizer.encoder["<start_of_text>"] == 49406
    assert tokenizer.encoder["<|endoftext|>"] == tokenizer.encoder["<end_of_text>"] == 49407


def test_one_tokenizer_a_process():
    assert get_tokenizer() is get_tokenizer()
