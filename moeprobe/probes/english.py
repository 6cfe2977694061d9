"""Whether a text can be judged by rules written for English."""

import re

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
# The commonest function words of six languages that are not English words as well (so no "die", "an", "in", "as").
_FOREIGN_WORDS = (
    "der das und nicht ich ist ein eine mit für auf sie wir kann leider "
    "le les et est une des dans je ne pas vous que pour avec "
    "el los las es una por con para lo puedo del "
    "il che di non sono una per con mi della "
    "o os um uma não com eu que "
    "het een niet ik van dat voor met kan"
)
_ENGLISH_WORDS = "the of and to in that is it for you i with on this be are not can have or from by at we"
_FOREIGN, _ENGLISH = frozenset(_FOREIGN_WORDS.split()), frozenset(_ENGLISH_WORDS.split())
_ENOUGH = 3  # fewer foreign words than this may be names or a quoted title


def reads_as_english(text: str) -> bool:
    """False where most letters are not Latin or another language's function words prevail; True for word salad.

    Only the first 4,000 characters are looked at.
    """
    letters = [character for character in text[:4000] if character.isalpha()]
    latin = sum(character < "\u0250" for character in letters)
    if letters and latin * 2 < len(letters):
        return False
    words = [word.lower() for word in _WORD.findall(text[:4000])]
    foreign = sum(word in _FOREIGN for word in words)
    english = sum(word in _ENGLISH for word in words)
    return foreign < _ENOUGH or english >= foreign
