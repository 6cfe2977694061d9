"""The register "non-english": how much of a text is in another language than English."""

import re
from collections import Counter

from moeprobe.probes.probe import Level, Passage, Reading, Span
from moeprobe.probes.registers._beside import FromFiles
from moeprobe.probes.registers._languages import DENSE, ENGLISH, FOREIGN, LOANS, SHARED, WEAK, WORD, script_of
from moeprobe.probes.sentences import split_sentences

_URL = re.compile(r"\b(?:https?://|www\.)\S{1,500}")
_CODE = re.compile(r"^\s*(?:from [\w.]+ )?import \w|`[^`\n]{1,400}`|[=(){}\[\];<>]{2}|\w\([^)\n]{0,200}\)|\w = ")
LONGEST = 2_000  # characters of one sentence that are looked at; what runs on is judged by its beginning
DENSITY = 3  # a character of Han, kana or Hangul weighs as so many letters
COMMON = 0.4  # an English word that other languages have as well ("no", "me"), of one that is English only
ACCENT = 0.8  # of a function word; accents stand in names and loans as well


class NonEnglish(FromFiles):
    """A sentence is foreign by its script, or by another language's function words; the score is the foreign share."""

    name = "non-english"
    version = "2"
    level: Level = "sentence"
    held_out_read = "again"
    definition = (
        "The text, or most of it, is in another language than English, in whatever script, also without accents or "
        "written in Latin letters. The score is the share of the letters that stand in sentences of another language, "
        "of those in sentences whose language shows; "
        "a character of Chinese, Japanese or Korean weighs as three letters. The label is the script. Foreign names, "
        "dishes, loans, titles and quoted phrases inside English sentences do not count. It abstains where nothing "
        "shows a language: no other script, and no function word or common short answer of English or of another "
        "language, as in names, numbers, code, formulas, emoji and empty text."
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1], the foreign sentences as spans, and the script of most of them as label."""
        judged = []
        for sentence in split_sentences(_URL.sub(lambda match: " " * len(match[0]), passage.text)):
            script, weight, foreign = _judge(sentence.text[:LONGEST])
            share = len(sentence.text) / min(len(sentence.text), LONGEST)
            if foreign is not None:
                judged.append((sentence, script, weight * share, foreign))
        found = [one for one in judged if one[3]]
        total = sum(weight for _, _, weight, _ in judged)
        if not total:
            return Reading(None)
        score = round(sum(weight for _, _, weight, _ in found) / total, 6)
        scripts = Counter[str]()
        for _, script, weight, _ in found:
            scripts[script] += int(weight)
        spans = tuple(Span(one.start, one.end, 1.0, f"{script} script") for one, script, _, _ in found)
        return Reading(score, spans, f"{scripts.most_common(1)[0][0]} script" if scripts else "English")


def _judge(sentence: str) -> tuple[str, float, bool | None]:
    """Script, weight, and whether the sentence is foreign; None where nothing shows it."""
    letters = Counter(script_of(letter) for letter in sentence if letter.isalpha())
    for script in DENSE & letters.keys():
        letters[script] *= DENSITY
    total = sum(letters.values())
    if not total:
        return "Latin", 0.0, None
    if "Japanese" in letters:  # Chinese characters beside kana
        letters["Japanese"] += letters.pop("Han", 0)
    if letters["Latin"] * 2 < total:
        del letters["Latin"]
        return letters.most_common(1)[0][0], total, True
    return "Latin", total, _foreign_words(sentence)


def _foreign_words(sentence: str) -> bool | None:
    """Whether one other language's words, and accents, outweigh the function words of English; None where none shows.

    Each word counts once, so that "la la la" is no French. Code is never foreign.
    """
    words = WORD.findall(sentence.replace("’", "'"))
    # a capital inside a sentence is a name's ("Las Vegas"), but the first word has one anyway
    plain = [word.lower() for place, word in enumerate(words) if word.islower() or place == 0]
    accents = sum(not word.isascii() and word not in LOANS for word in plain)
    said = set(plain)
    shown = [sum(0.5 if word in WEAK else 1.0 for word in said & own) for own in FOREIGN.values()]
    foreign = max(shown) + ACCENT * accents
    lower = [word.lower() for word in words]
    english = sum(COMMON if word in SHARED and word != "i" else 1.0 for word in lower if word in ENGLISH)
    if (
        not _CODE.search(sentence)
        and foreign > english
        and foreign >= 1
        and (foreign >= 2 or foreign * 5 >= len(words))
    ):
        return True
    own = [word for word in lower if word in ENGLISH]
    return False if own and english >= foreign and set(lower) - (SHARED - {"i"}) else None
