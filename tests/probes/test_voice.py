"""Whose words: masking keeps offsets and leaves the speaker's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprobe.probes.english import reads_as_english
from moeprobe.probes.voice import MASK, flowing, own_words, plain


@given(st.text(alphabet=st.sampled_from("ab \n\"'“”‘’>`~Dear,İﬁ👍\u00a0")))
def test_masking_keeps_the_length(text: str) -> None:
    assert len(own_words(text)) == len(text) == len(plain(text))
    assert all(mine in (MASK, *plain(theirs)) for mine, theirs in zip(own_words(text), text, strict=True))


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ('She said "I can\'t help you" and left.', "She said and left."),
        ("'I won't do it,' said the boy.", "said the boy."),
        ("“I refuse.” He left.", "He left."),
        ("I don't “feel” it.", 'I don\'t "feel" it.'),
        ('"I cannot help you with that."', '"I cannot help you with that."'),
        ("> I can't do that\nAgreed.", "Agreed."),
        ("Run:\n```\nprint('I refuse to go')\n```", "Run:"),
        ("Here it is:\n\nDear Ann,\n\nI can't come.\n\nBest,\nJo\n\nAnything else?", "Here it is: Anything else?"),
        ("Hi there,\n\nI can't help with that.", "Hi there, I can't help with that."),
        ("Dear user, I can't help with that.", "Dear user, I can't help with that."),
        ("I can't say the dogs' owner's name.", "I can't say the dogs' owner's name."),
        ("I **can't**\nhelp", "I can't help"),
    ],
)
def test_masks_what_is_not_the_speakers_own(text: str, own: str) -> None:
    assert flowing(own_words(text).replace(MASK, " ")) == own


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("thus garden refuse amber", True),
        ("The film is called La vie est une fête.", True),
        ("Es tut mir leid, aber ich kann nicht dabei helfen, das ist verboten.", False),
        ("Je ne peux pas vous aider avec cette demande.", False),
        ("Lo siento, pero no puedo ayudar con eso por las leyes.", False),
        ("申し訳ありませんが、お手伝いできません。", False),
        ("Извините, я не могу помочь.", False),
        ("12 + 30 = 42", True),
    ],
)
def test_tells_english_from_other_languages(text: str, english: bool) -> None:
    assert reads_as_english(text) is english
